//! What a backend must do.
//!
//! # Terms
//!
//! A *backend* makes *VMs*. A VM starts from an *image* or from a *snapshot*; commands change its
//! files; a snapshot keeps them. Between commands a VM is at rest: nothing runs in it.
//!
//! # Life of a VM
//!
//! ```text
//!  create ──┐            ┌─ inject ─┐
//!           ├─▶ at rest ─┼─ exec ───┼─▶ at rest ── destroy ─▶ gone
//!  restore ─┘            └─ snapshot┘      └────── drop ────▶ gone
//! ```
//!
//! # Rules
//!
//! Each is checked by `hm_vm_testkit::conformance`, which cites it by number. A rule that names a
//! capability holds for backends that declare it; the others must refuse.
//!
//! Backend:
//!
//! * **B1** `create` of an image that does not exist fails with [`Error::ImageNotFound`];
//!   `restore` of a snapshot that does not exist with [`Error::SnapshotNotFound`]. Neither leaves
//!   anything behind.
//! * **B2** VMs do not see each other's files, processes or later changes, nor those of the
//!   snapshot's own VM after the snapshot was taken.
//! * **B3** `snapshot_exists` tells what `restore` would find; an unknown or malformed id is
//!   `false`, not an error.
//! * **B4** `remove_snapshot` of what does not exist succeeds: after it the snapshot is gone.
//! * **B5** (`remove_parent`) Removing a snapshot leaves snapshots forked from it, and VMs that run
//!   on it, whole.
//! * **B6** A limit or network policy that is not declared is refused by `create` and `restore`
//!   with an error, before anything runs. What is declared holds.
//! * **B7** Dropping the future of any method leaves nothing behind that the backend does not
//!   collect by itself.
//! * **B8** Many VMs at once, in one process and in several, do not disturb each other.
//!
//! VM:
//!
//! * **V1** `exec` returns the command's own exit code, 0 to 255; 128 + N when signal N ended it.
//!   127 when the guest has no shell that can be started. An unknown status is an error.
//! * **V2** When `exec` returns, fails or is dropped, nothing that it started is alive, whatever
//!   it did to escape.
//! * **V3** All output arrives before `exec` returns, in order within each stream, split as
//!   [`LineSplitter`](crate::LineSplitter) says; nothing is dropped, memory stays bounded.
//! * **V4** The command gets standard input at its end, a session of its own, the declared
//!   environment over a default one with `PATH`, `HOME`, `USER` and `LANG`, and nothing of the
//!   host's environment.
//! * **V5** A command line and environment of a mebibyte together arrive whole.
//! * **V6** A working directory that does not exist is [`Error::InvalidInput`], and the command
//!   does not run. It must be absolute.
//! * **V7** Files written by one `exec` are there in the next one of the same VM.
//! * **V8** `inject` copies the contents of the host directory: modes, symbolic links (as links),
//!   and empty directories are kept, owners become the guest's root; ignore files are honoured.
//!   What an earlier `inject` to the same place brought, and the directory no longer has, is gone.
//!   A host path that is not a directory is [`Error::InvalidInput`].
//! * **V9** `snapshot` keeps all files as they are at rest. Afterwards the VM goes on; a further
//!   `snapshot` is a new one, and the first does not change.
//! * **V10** (`faithful_files`, `xattrs`) A snapshot keeps modes, set-user-id bits, symbolic and
//!   hard links, fifos, sparse files, extended attributes, names that are not UTF-8, deletions. A backend whose layers are
//!   archives keeps the content of sparse files and not their holes, nothing about the root directory itself, and no names that begin
//!   with `.wh.`.
//! * **V11** (`deep_chains`) A chain of a thousand snapshots can be made and restored.
//! * **V12** `destroy` frees everything. A second call succeeds. Other calls after it fail.
//!   Dropping a VM without `destroy` frees it as well.
//! * **V13** On a stop request, `exec_with` sends SIGTERM to the command's processes, SIGKILL after
//!   the grace period (at once on a kill), and returns [`Error::Cancelled`] or
//!   [`Error::TimedOut`] when all are dead. The VM remains usable.
//! * **V14** (`users`) A command runs as the user that is asked for, and what it writes belongs to
//!   them. One that the guest does not have is [`Error::InvalidInput`], and nothing runs.
//! * **V15** (`cache_mounts`) What a command writes to a cache is there for the next VM that mounts
//!   it, and in no snapshot.
//! * **V16** (`secret_mounts`) A secret is readable for the command, and in no snapshot.
//! * **V17** (`inject_patterns`) `inject_from` brings what the patterns say, and its digest changes with
//!   that alone.
//! * **V18** (`outputs`) `copy_outputs` brings what the patterns name, and never writes outside of its
//!   destination.
//! * **V19** (`private_networks`) Commands on one private network reach each other and nobody else's
//!   VM reaches them.
//! * **V20** (`image_defaults`) Environment, user and working directory that an image names are those of a
//!   command which names none, in VMs made from the image and in those forked from their snapshots.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

use crate::cancel::Cancellation;
use crate::capabilities::Capabilities;
use crate::config::VmConfig;
use crate::error::Error;
use crate::progress::Progress;
use crate::setup::{
    self, InjectEntry, InjectSource, Mount, OutputReport, OutputRequest, PrivateNetwork,
    PrivateNetworkRequest,
};
use crate::sink::OutputSink;
use crate::terminal::Terminal;
use crate::types::{ResourceUsage, SnapshotId, SnapshotLabel};

/// Makes VMs, and keeps their snapshots. See the [module](self) for the rules.
#[async_trait]
pub trait VmBackend: Send + Sync + fmt::Debug {
    /// Boots a VM from an image.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`], [`Error::LimitNotEnforceable`], [`Error::ProtectionUnavailable`],
    /// [`Error::Unsupported`], or a failure of the backend.
    async fn create(&self, image: &str, config: &VmConfig) -> Result<Box<dyn Vm>>;

    /// Forks a VM from a snapshot. The snapshot does not change, and may be forked any number of
    /// times at once.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotNotFound`]; otherwise as [`create`](Self::create).
    async fn restore(&self, snapshot: &SnapshotId, config: &VmConfig) -> Result<Box<dyn Vm>>;

    /// Whether the snapshot can be restored. Called on every cache hit: it must be quick.
    ///
    /// # Errors
    ///
    /// A failure of the backend, never a missing snapshot.
    async fn snapshot_exists(&self, snapshot: &SnapshotId) -> Result<bool>;

    /// Removes a snapshot and frees what nothing else uses. Does nothing when it is gone already.
    ///
    /// # Errors
    ///
    /// A failure of the backend.
    async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<()>;

    /// Name of the backend in messages and options.
    fn name(&self) -> &str {
        "unnamed"
    }

    /// What this backend can do here, beyond the minimum. The default declares nothing.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Digest of the content that `image` stands for now, for use in a cache key. `None` where
    /// the backend cannot tell: no key can be derived then.
    ///
    /// # Errors
    ///
    /// [`Error::ImageNotFound`], or a failure of the backend.
    async fn image_digest(&self, image: &str) -> Result<Option<String>> {
        let _ = image;
        Ok(None)
    }

    /// Digest of what [`Vm::inject`] of this host directory would bring, for use in a cache key.
    /// `None` where the backend cannot tell.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when it is not a directory, or a failure to read it.
    async fn inject_digest(&self, host_path: &Path) -> Result<Option<String>> {
        let _ = host_path;
        Ok(None)
    }

    /// Like [`inject_digest`](Self::inject_digest), for what [`Vm::inject_from`] would bring.
    ///
    /// # Errors
    ///
    /// As `inject_digest`; [`Error::InvalidInput`] also for a pattern that cannot be read, and
    /// [`Error::Unsupported`] for patterns without the `inject_patterns` capability.
    async fn inject_digest_of(&self, source: &InjectSource) -> Result<Option<String>> {
        self.inject_digest(setup::plain_directory(source)?).await
    }

    /// What [`Vm::inject_from`] would bring, sorted by path. Empty where the backend cannot tell.
    ///
    /// # Errors
    ///
    /// As [`inject_digest_of`](Self::inject_digest_of).
    async fn inject_entries(&self, source: &InjectSource) -> Result<Vec<InjectEntry>> {
        let _ = source;
        Ok(Vec::new())
    }

    /// Copies files of a snapshot to the host. What is there already with the same content and mode is
    /// not written again. Nothing is written through a symbolic link below the destination; what a
    /// guest made is trusted in nothing.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotNotFound`], [`Error::InvalidInput`] for a pattern that cannot be read or a
    /// destination that cannot be written to, [`Error::Unsupported`] without the `outputs` capability,
    /// or a failure to read or write. What was copied before stays.
    async fn copy_outputs(
        &self,
        snapshot: &SnapshotId,
        request: &OutputRequest,
    ) -> Result<OutputReport> {
        let _ = (snapshot, request);
        Err(Error::Unsupported {
            what: "copying files out of a snapshot".into(),
        }
        .into())
    }

    /// Makes a network for several VMs.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] without the `private_networks` capability, or for a policy that
    /// cannot be shared; or a failure of the backend.
    async fn private_network(
        &self,
        request: &PrivateNetworkRequest,
    ) -> Result<Arc<dyn PrivateNetwork>> {
        let _ = request;
        Err(Error::Unsupported {
            what: "a network shared by several VMs".into(),
        }
        .into())
    }

    /// Things that the user should know about this backend on this machine: a weaker form of a
    /// protection that is in use, for instance. Shown once.
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What to run in a VM.
#[derive(Clone, Copy, Debug)]
pub struct ExecRequest<'a> {
    /// The command, for the guest's `sh -c`.
    pub cmd: &'a str,
    /// Environment over the image's, and that over the backend's default. Of two with one name, the later one counts.
    pub env: &'a [(String, String)],
    /// Absolute guest directory. Empty for the one that the image names, or `/` where it names none.
    pub working_dir: &'a str,
    /// Ends the command early.
    pub stop: &'a Cancellation,
    /// Time between SIGTERM and SIGKILL when stopped.
    pub grace: Duration,
    /// Who runs the command: `NAME`, `UID`, or either with `:GROUP`. Without, the user that the image names, or
    /// root where it names none. Names are
    /// those of the guest's `/etc/passwd` and `/etc/group`. `HOME` and `USER` are the user's.
    pub user: Option<&'a str>,
    /// What the command sees in its file tree beside the VM's files.
    pub mounts: &'a [Mount],
    /// A network to join, in place of the one that the VM's configuration asks for.
    pub network: Option<&'a Arc<dyn PrivateNetwork>>,
}

impl<'a> ExecRequest<'a> {
    /// A command in the guest's root directory, with nothing declared. Ten seconds of grace.
    pub fn new(cmd: &'a str, stop: &'a Cancellation) -> Self {
        Self {
            cmd,
            env: &[],
            working_dir: "/",
            stop,
            grace: Duration::from_secs(10),
            user: None,
            mounts: &[],
            network: None,
        }
    }

    /// Fails when this asks for more than plain [`Vm::exec`] has.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub fn check_plain(&self) -> Result<(), Error> {
        let what = if self.user.is_some() {
            "running as another user"
        } else if !self.mounts.is_empty() {
            "mounting caches and secrets"
        } else if self.network.is_some() {
            "a network shared by several VMs"
        } else {
            return Ok(());
        };
        Err(Error::Unsupported { what: what.into() })
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code, as rule V1 says.
    pub exit_code: i32,
    /// What it used.
    pub usage: ResourceUsage,
}

/// One isolated machine. See the [module](self) for the rules.
#[async_trait]
pub trait Vm: Send {
    /// Copies the *contents* of a host directory into a guest directory, creating that.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when `host_path` is not a directory or `guest_path` is not an
    /// absolute directory path, [`Error::NoSpace`], or a failure to read or write.
    async fn inject(&self, host_path: &Path, guest_path: &str) -> Result<()>;

    /// Runs `cmd` with the guest's `sh -c`, streams its output, and returns its exit code.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`], [`Error::LimitExceeded`], [`Error::NoSpace`], [`Error::VmLost`],
    /// or a failure of the backend. Not a non-zero exit code.
    async fn exec(
        &self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
        sink: &dyn OutputSink,
    ) -> Result<i32>;

    /// Keeps the state of the VM.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], or a failure of the backend. Nothing half-made remains.
    async fn snapshot(&mut self, label: &SnapshotLabel) -> Result<SnapshotId>;

    /// Ends the VM and frees everything that it held. A second call does nothing.
    ///
    /// # Errors
    ///
    /// A failure to free something; all else is freed nevertheless.
    async fn destroy(&mut self) -> Result<()>;

    /// Like [`inject`](Self::inject), for a part of a directory. Returns the digest of what it brought, in the
    /// terms of [`VmBackend::inject_digest_of`], where the backend can tell: files may have changed since
    /// that was asked. Two injects to one place are not added up: the second one replaces what the
    /// first one brought. Written out for the same reason as [`exec_with`](Self::exec_with); an
    /// implementation writes `async fn`.
    ///
    /// # Errors
    ///
    /// As `inject`; [`Error::InvalidInput`] also for a pattern that cannot be read, and
    /// [`Error::Unsupported`] for patterns without the `inject_patterns` capability.
    fn inject_from<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        source: &'life1 InjectSource,
        guest_path: &'life2 str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<String>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        let inject = setup::plain_directory(source).map(|dir| self.inject(dir, guest_path));
        Box::pin(async {
            inject?.await?;
            Ok(None)
        })
    }

    /// Where [`inject`](Self::inject) and [`inject_from`](Self::inject_from) of this VM count what they
    /// bring, while they do. `None` where the backend does not count.
    fn inject_progress(&self) -> Option<Progress> {
        None
    }

    /// Like [`exec`](Self::exec), but can be stopped, and says what the command used. The default
    /// drops the future of `exec` when stopped.
    ///
    /// An implementation writes `async fn exec_with(&self, request: &ExecRequest<'_>, sink: &dyn
    /// OutputSink) -> Result<ExecOutcome>`. It is written out here because `async_trait` would
    /// demand `Self: Sync` for a default body, and `dyn Vm` is not.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] or [`Error::TimedOut`] when stopped; otherwise as `exec`.
    fn exec_with<'life0, 'life1, 'life2, 'life3, 'async_trait>(
        &'life0 self,
        request: &'life1 ExecRequest<'life2>,
        sink: &'life3 dyn OutputSink,
    ) -> Pin<Box<dyn Future<Output = Result<ExecOutcome>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
        Self: 'async_trait,
    {
        let run = self.exec(request.cmd, request.env, request.working_dir, sink);
        Box::pin(async move {
            request.check_plain()?;
            tokio::select! {
                biased;
                code = run => Ok(ExecOutcome { exit_code: code?, usage: ResourceUsage::default() }),
                cause = request.stop.cancelled() => Err(Error::from(cause).into()),
            }
        })
    }

    /// Runs a command on a pseudo-terminal, for a person. Ends when the command does. Written out
    /// for the same reason as [`exec_with`](Self::exec_with).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] without the `terminal` capability; otherwise as
    /// [`exec_with`](Self::exec_with).
    fn terminal<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        request: &'life1 ExecRequest<'life2>,
        terminal: Terminal,
    ) -> Pin<Box<dyn Future<Output = Result<ExecOutcome>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        let _ = (request, terminal);
        Box::pin(async {
            Err(Error::Unsupported {
                what: "an interactive terminal".into(),
            }
            .into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelCause;
    use crate::sink::NullSink;

    /// Written against the minimum of the contract, as the users' own backends are.
    #[derive(Debug)]
    struct Minimal;

    #[async_trait]
    impl Vm for Minimal {
        async fn inject(&self, _host_path: &Path, _guest_path: &str) -> Result<()> {
            Ok(())
        }

        async fn exec(
            &self,
            cmd: &str,
            _env: &[(String, String)],
            _working_dir: &str,
            _sink: &dyn OutputSink,
        ) -> Result<i32> {
            if cmd == "hang" {
                std::future::pending::<()>().await;
            }
            Ok(7)
        }

        async fn snapshot(&mut self, _label: &SnapshotLabel) -> Result<SnapshotId> {
            Ok(SnapshotId::new("s"))
        }

        async fn destroy(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// Overrides what has a default, with plain `async fn`.
    #[derive(Debug)]
    struct Full;

    #[async_trait]
    impl Vm for Full {
        async fn inject(&self, _host_path: &Path, _guest_path: &str) -> Result<()> {
            Ok(())
        }

        async fn exec(
            &self,
            _cmd: &str,
            _env: &[(String, String)],
            _working_dir: &str,
            _sink: &dyn OutputSink,
        ) -> Result<i32> {
            Ok(0)
        }

        async fn snapshot(&mut self, _label: &SnapshotLabel) -> Result<SnapshotId> {
            Ok(SnapshotId::new("s"))
        }

        async fn destroy(&mut self) -> Result<()> {
            Ok(())
        }

        async fn exec_with(
            &self,
            _request: &ExecRequest<'_>,
            _sink: &dyn OutputSink,
        ) -> Result<ExecOutcome> {
            Ok(ExecOutcome {
                exit_code: 3,
                ..ExecOutcome::default()
            })
        }

        async fn terminal(
            &self,
            _request: &ExecRequest<'_>,
            _terminal: Terminal,
        ) -> Result<ExecOutcome> {
            Ok(ExecOutcome::default())
        }
    }

    async fn exec_with(vm: Box<dyn Vm>, cmd: &str, stop: &Cancellation) -> Result<ExecOutcome> {
        let request = ExecRequest {
            grace: Duration::ZERO,
            ..ExecRequest::new(cmd, stop)
        };
        vm.exec_with(&request, &NullSink).await
    }

    #[tokio::test]
    async fn a_boxed_vm_can_be_stopped_from_a_task() {
        let stop = Cancellation::new();
        stop.cancel(CancelCause::User);
        let task = tokio::spawn(async move { exec_with(Box::new(Minimal), "hang", &stop).await });
        let error = task.await.unwrap().unwrap_err();
        let expected = Error::from(CancelCause::User);
        assert_eq!(error.downcast_ref(), Some(&expected));
    }

    #[tokio::test]
    async fn defaults_can_be_overridden_with_async_functions() {
        let stop = Cancellation::new();
        let code = |vm| async { exec_with(vm, "x", &stop).await.unwrap().exit_code };
        assert_eq!(code(Box::new(Minimal) as Box<dyn Vm>).await, 7);
        assert_eq!(code(Box::new(Full)).await, 3);
    }
}
