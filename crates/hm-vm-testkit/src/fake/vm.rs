//! One fake VM.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use hm_vm_core::{
    Cancellation, Error, ExecOutcome, ExecRequest, OutputDecoder, OutputSink, ResourceUsage,
    SnapshotId, SnapshotLabel, Vm,
};

use super::backend::{Shared, StoredSnapshot};
use super::inject;
use super::journal::Call;
use super::shell::FakeExec;
use super::tree::{Node, Tree};
use crate::conformance::ImageConfiguration;
use crate::lock::lock;

/// What each `inject` to one place brought, by guest directory.
pub(super) type Injected = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug)]
pub(super) struct FakeVm {
    pub(super) number: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) tree: Mutex<Tree>,
    pub(super) injected: Mutex<Injected>,
    /// What its image says.
    pub(super) says: Arc<ImageConfiguration>,
    pub(super) busy: AtomicBool,
    pub(super) destroyed: bool,
}

/// Marks a VM as in use by one method.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A snapshot that nobody has got the id of yet. Removed again when dropped.
struct Unclaimed<'a> {
    shared: &'a Shared,
    id: Option<SnapshotId>,
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shared.state().snapshots.remove(&id);
        }
    }
}

impl FakeVm {
    fn turn(&self, method: &str) -> Result<Turn<'_>> {
        if self.destroyed {
            self.shared
                .violation(format!("{method} on VM {} after destroy", self.number));
            anyhow::bail!("VM {} was destroyed", self.number);
        }
        if self.busy.swap(true, Ordering::SeqCst) {
            self.shared
                .violation(format!("{method} on VM {} while it is in use", self.number));
            anyhow::bail!("VM {} is in use", self.number);
        }
        Ok(Turn(&self.busy))
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.tree)
    }

    fn apply(&self, found: Vec<(String, Node)>, guest_path: &str) -> Result<()> {
        let mut tree = self.tree();
        let invalid = |reason: &str| Error::InvalidInput {
            what: format!("guest directory {guest_path:?}"),
            reason: reason.to_owned(),
        };
        if !guest_path.starts_with('/') || guest_path.contains('\0') {
            return Err(invalid("not an absolute path").into());
        }
        let place = tree
            .resolve("/", guest_path, true)
            .ok_or_else(|| invalid("too many links"))?;
        tree.make_directories(&place)?;
        let full = |name: &str| format!("{}/{name}", place.trim_end_matches('/'));
        let mut injected = lock(&self.injected);
        let names: BTreeSet<String> = found.iter().map(|(name, _)| name.clone()).collect();
        // Children come after their parents, so they have to go first.
        let before = injected.remove(&place).unwrap_or_default();
        for gone in before.iter().rev().filter(|name| !names.contains(*name)) {
            if !tree.has_children(&full(gone)) {
                tree.remove(&full(gone));
            }
        }
        for (name, node) in found {
            let path = full(&name);
            let was_directory = tree.is_directory(&path);
            if was_directory != matches!(node, Node::Directory { .. }) {
                tree.remove(&path);
            }
            tree.put(&path, node).map_err(anyhow::Error::msg)?;
        }
        injected.insert(place, names);
        Ok(())
    }

    /// What is asked for, or what the image says.
    fn directory<'a>(&'a self, asked: &'a str) -> &'a str {
        match asked {
            "" if self.shared.capabilities().image_defaults => {
                self.says.working_dir.as_deref().unwrap_or("/")
            }
            asked => asked,
        }
    }

    fn environment(&self, env: &[(String, String)]) -> Result<BTreeMap<String, String>> {
        let defaults = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/root"),
            ("USER", "root"),
            ("LANG", "C.UTF-8"),
        ];
        let mut merged: BTreeMap<_, _> = defaults
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for (name, value) in self.says.env.iter().chain(env) {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(Error::InvalidInput {
                    what: format!("environment variable {name:?}"),
                    reason: "not a possible name or value".into(),
                }
                .into());
            }
            merged.insert(name.clone(), value.clone());
        }
        Ok(merged)
    }

    fn working_dir(&self, path: &str) -> Result<String> {
        let tree = self.tree();
        let found = path.starts_with('/').then(|| tree.resolve("/", path, true));
        match found.flatten() {
            Some(found) if tree.is_directory(&found) => Ok(found),
            _ => Err(Error::InvalidInput {
                what: format!("working directory {path:?}"),
                reason: "not a directory of the VM".into(),
            }
            .into()),
        }
    }

    async fn run(&self, request: &ExecRequest<'_>, sink: &dyn OutputSink) -> Result<i32> {
        let _turn = self.turn("exec")?;
        request.stop.check()?;
        request.check_plain()?;
        let env = self.environment(request.env)?;
        let asked = self.directory(request.working_dir);
        if request.working_dir.is_empty() {
            self.tree().make_directories(asked)?;
        }
        let working_dir = self.working_dir(asked)?;
        if request.cmd.contains('\0') {
            return Err(Error::InvalidInput {
                what: "the command".into(),
                reason: "contains a NUL".into(),
            }
            .into());
        }
        let trap = Mutex::new(None);
        let new_exec = || FakeExec {
            tree: &self.tree,
            env: env.clone(),
            working_dir: working_dir.clone(),
            sink,
            decoder: OutputDecoder::new(),
            trap: &trap,
            status: 0,
        };
        let command = self.command(new_exec(), request.cmd);
        tokio::pin!(command);
        let cause = tokio::select! {
            biased;
            code = &mut command => return code,
            cause = request.stop.cancelled() => cause,
        };
        let trapped = lock(&trap).take();
        if let Some(body) = trapped {
            let mut handler = new_exec();
            let end = async {
                if body.is_empty() {
                    let _ = command.await;
                } else {
                    handler.run(&body).await;
                }
            };
            tokio::select! {
                () = end => {}
                () = request.stop.killed() => {}
                () = tokio::time::sleep(request.grace) => {}
            }
        }
        Err(Error::from(cause).into())
    }

    async fn command(&self, mut exec: FakeExec<'_>, cmd: &str) -> Result<i32> {
        self.shared.failpoints.reach("exec").await?;
        let scripted = self.shared.scripted(cmd);
        let code = match scripted {
            Some(act) => act(&mut exec),
            None => exec.run(cmd).await,
        };
        exec.decoder.finish(exec.sink);
        self.shared.failpoints.reach("exec.done").await?;
        Ok(code)
    }
}

#[async_trait]
impl Vm for FakeVm {
    async fn inject(&self, host_path: &Path, guest_path: &str) -> Result<()> {
        self.shared.called(Call::Inject {
            vm: self.number,
            host_path: host_path.to_owned(),
            guest_path: guest_path.to_owned(),
        });
        let _turn = self.turn("inject")?;
        self.shared.failpoints.reach("inject").await?;
        let found = inject::read(host_path)?;
        tokio::task::yield_now().await;
        self.apply(found, self.directory(guest_path))?;
        self.shared.failpoints.reach("inject.done").await
    }

    async fn exec(
        &self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
        sink: &dyn OutputSink,
    ) -> Result<i32> {
        let stop = Cancellation::new();
        let request = ExecRequest {
            env,
            working_dir,
            grace: Duration::ZERO,
            ..ExecRequest::new(cmd, &stop)
        };
        Ok(self.exec_with(&request, sink).await?.exit_code)
    }

    async fn snapshot(&mut self, label: &SnapshotLabel) -> Result<SnapshotId> {
        self.shared.called(Call::Snapshot {
            vm: self.number,
            label: label.clone(),
        });
        let _turn = self.turn("snapshot")?;
        self.shared.failpoints.reach("snapshot").await?;
        tokio::task::yield_now().await;
        let snapshot = StoredSnapshot {
            tree: self.tree().clone(),
            injected: lock(&self.injected).clone(),
            label: label.clone(),
            says: Arc::clone(&self.says),
        };
        let mut unclaimed = Unclaimed {
            id: Some(self.shared.store(snapshot)),
            shared: &self.shared,
        };
        self.shared.failpoints.reach("snapshot.done").await?;
        tokio::task::yield_now().await;
        unclaimed
            .id
            .take()
            .ok_or_else(|| anyhow::anyhow!("claimed twice"))
    }

    async fn destroy(&mut self) -> Result<()> {
        self.shared.called(Call::Destroy { vm: self.number });
        if self.destroyed {
            return Ok(());
        }
        {
            let _turn = self.turn("destroy")?;
            self.shared.failpoints.reach("destroy").await?;
            tokio::task::yield_now().await;
        }
        self.destroyed = true;
        self.shared.state().live.remove(&self.number);
        self.shared.failpoints.reach("destroy.done").await
    }

    async fn exec_with(
        &self,
        request: &ExecRequest<'_>,
        sink: &dyn OutputSink,
    ) -> Result<ExecOutcome> {
        self.shared.called(Call::Exec {
            vm: self.number,
            cmd: request.cmd.to_owned(),
            env: request.env.to_vec(),
            working_dir: request.working_dir.to_owned(),
        });
        Ok(ExecOutcome {
            exit_code: self.run(request, sink).await?,
            usage: ResourceUsage::default(),
        })
    }
}

impl Drop for FakeVm {
    fn drop(&mut self) {
        if !self.destroyed {
            self.shared.called(Call::Dropped { vm: self.number });
            self.shared.state().live.remove(&self.number);
        }
    }
}
