//! Actions, snapshots and results, the limits of a VM, and where output goes.

pub use hm_vm_core::{
    Action, CachingPolicy, ExecutionResult, ImageSource, NetworkPolicy, NullSink, OutputSink,
    Protection, ResourceUsage, SnapshotId, SnapshotLabel, Stream, VmConfig,
};
