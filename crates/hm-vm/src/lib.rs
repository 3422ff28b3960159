//! hm-vm runs a command in an isolated machine, keeps the machine's state as a snapshot, and never
//! does the same work twice.
//!
//! ```no_run
//! # use std::{num::NonZeroU64, path::Path, sync::Arc};
//! # async fn example(backend: Arc<dyn hm_vm::VmBackend>) -> anyhow::Result<()> {
//! use hm_vm::{Action, CachingPolicy, HmVm, ImageRegistry, ImageSource, NullSink, VmConfig};
//!
//! let capacity = NonZeroU64::new(1000).expect("not zero");
//! let registry = ImageRegistry::open(Path::new("/tmp/registry.db"), capacity)?;
//! let engine = HmVm::new(backend, registry, VmConfig::default());
//! let action = Action {
//!     source: ImageSource::Image("host".into()),
//!     cmd: "make".into(),
//!     env: vec![],
//!     working_dir: "/src".into(),
//!     timeout: None,
//!     inject: Some("./project".into()),
//! };
//! let policy = CachingPolicy::Cache { key: "make-1".into() };
//! let result = engine.execute(action, policy, &NullSink).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | actions, snapshots, results, limits, where output goes |
//! | [`backend`] | the traits that a backend implements, with numbered rules |
//! | [`registry`] | [`ImageRegistry`]: the persistent map from cache key to snapshot |
//! | [`output`] | recorded output, and how to read it |
//! | [`remote`] | a cache shared with other machines |
//! | [`vm`] | [`HmVm`]: the engine |
//! | [`gc`] | what to remove when space runs out |
//!
//! This crate is the one place that names all backends: each is behind a feature of its name.
#![forbid(unsafe_code)]

pub mod backend;
pub mod gc;
pub mod output;
pub mod registry;
pub mod remote;
pub mod types;
pub mod vm;

mod key_lock;

pub use hm_vm_core::{
    calendar, cancel, capabilities, config, error, event, key, lines, progress, setup, sink,
    terminal,
};
/// The backend of containers: Docker and Podman through the Engine API.
#[cfg(feature = "docker")]
pub use hm_vm_docker as docker;
/// References, manifests and registries of OCI images.
pub use hm_vm_oci as oci;
/// The sandbox backend: Linux namespaces and overlayfs on the [`store`].
#[cfg(feature = "sandbox")]
pub use hm_vm_sandbox as sandbox;
/// Images and snapshots on disk.
#[cfg(any(feature = "docker", feature = "sandbox"))]
pub use hm_vm_store as store;

pub use hm_vm_core::{
    CacheKey, CancelCause, Cancellation, Capabilities, ComponentChange, Error, Event, EventSink,
    ExecOutcome, ExecRequest, InjectEntry, InjectSource, KeyBase, KeyComponents, Limit,
    LineSplitter, Mount, NetworkPolicy, OutputDecoder, OutputReport, OutputRequest, Phase,
    PhaseTimes, PrivateNetwork, PrivateNetworkRequest, Progress, ProgressState, ProgressUnit,
    Protection, RemoteHit, ResourceUsage, Secret, Stream, Terminal, TerminalSize,
};

pub use backend::{Vm, VmBackend};
pub use registry::{Entry, ImageRegistry, PutDetails};
pub use types::{
    Action, CachingPolicy, ExecutionResult, ImageSource, NullSink, OutputSink, SnapshotId,
    SnapshotLabel, VmConfig,
};
pub use vm::{ExecuteOptions, HmVm, Preparation, Prepared, VmHandover, VmSlot};
