//! The contract of hm-vm.
//!
//! This crate holds what every other crate of the project agrees on, and nothing that touches the
//! machine: no file system, no process, no clock, no environment.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | actions, snapshots and results |
//! | [`config`] | limits, network policy and protections of a VM |
//! | [`backend`] | [`VmBackend`] and [`Vm`], with numbered rules |
//! | [`capabilities`] | what a backend can do beyond the minimum |
//! | [`setup`] | what a command gets beside its files: host files, caches, secrets, a shared network |
//! | [`terminal`] | the interactive side of a VM |
//! | [`sink`], [`lines`] | where output goes, and how bytes become lines |
//! | [`cancel`] | cancellation with a cause |
//! | [`event`] | the phases of an execution |
//! | [`progress`] | how far a long piece of work is |
//! | [`key`] | cache keys derived from content |
//! | [`error`] | the failures that callers can tell apart |
#![forbid(unsafe_code)]

pub mod backend;
pub mod calendar;
pub mod cancel;
pub mod capabilities;
pub mod config;
pub mod error;
pub mod event;
pub mod key;
pub mod lines;
pub mod progress;
pub mod setup;
pub mod sink;
pub mod terminal;
pub mod types;

pub use backend::{ExecOutcome, ExecRequest, Vm, VmBackend};
pub use cancel::{CancelCause, Cancellation};
pub use capabilities::{Capabilities, Limit};
pub use config::{NetworkPolicy, Protection, VmConfig};
pub use error::Error;
pub use event::{Event, EventSink, Phase, PhaseTimes};
pub use key::{CacheKey, ComponentChange, KeyBase, KeyComponents};
pub use lines::{LineSplitter, OutputDecoder};
pub use progress::{Progress, ProgressState, ProgressUnit};
pub use setup::{
    InjectEntry, InjectSource, Mount, OutputReport, OutputRequest, PrivateNetwork,
    PrivateNetworkRequest, Secret,
};
pub use sink::{NullSink, OutputSink, Stream};
pub use terminal::{Terminal, TerminalSize};
pub use types::{
    Action, CachingPolicy, ExecutionResult, ImageSource, RemoteHit, ResourceUsage, SnapshotId,
    SnapshotLabel,
};
