//! A VM in the hands of a check.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hm_vm_core::{
    Cancellation, ExecOutcome, ExecRequest, InjectSource, OutputSink, SnapshotId, SnapshotLabel, Vm,
};
use tokio::sync::watch;

use super::context::Record;
use crate::lock::lock;

/// A VM that notes what is done with it. Methods take `&mut self` because a `Vm` is `Send`, not
/// `Sync`.
pub(super) struct Guest {
    pub(super) vm: Box<dyn Vm>,
    pub(super) record: Arc<Record>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: Vec<String>,
    pub(super) err: Vec<String>,
}

/// Collects lines, and lets others wait for one.
#[derive(Debug, Default)]
pub(super) struct Lines {
    out: Mutex<Vec<String>>,
    err: Mutex<Vec<String>>,
    count: watch::Sender<u64>,
}

impl OutputSink for Lines {
    fn on_stdout(&self, line: &str) {
        lock(&self.out).push(line.to_owned());
        self.count.send_modify(|count| *count += 1);
    }

    fn on_stderr(&self, line: &str) {
        lock(&self.err).push(line.to_owned());
        self.count.send_modify(|count| *count += 1);
    }
}

impl Lines {
    /// Waits until a line of standard output equals `wanted`.
    pub(super) async fn wait_for(&self, wanted: &str) {
        let mut count = self.count.subscribe();
        while !lock(&self.out).iter().any(|line| line == wanted) {
            // The sender lives in `self`, so the wait cannot fail.
            let _ = count.changed().await;
        }
    }

    /// Lines of both streams so far.
    pub(super) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    fn ran(&self, code: i32) -> Ran {
        Ran {
            code,
            out: lock(&self.out).clone(),
            err: lock(&self.err).clone(),
        }
    }
}

impl Guest {
    /// Runs a command at the root directory with no declared environment.
    pub(super) async fn run(&mut self, cmd: &str) -> Result<Ran> {
        self.run_at(cmd, &[], "/").await
    }

    pub(super) async fn run_at(
        &mut self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
    ) -> Result<Ran> {
        let lines = Lines::default();
        let result = self.exec(cmd, env, working_dir, &lines).await;
        result.map(|code| lines.ran(code))
    }

    pub(super) async fn exec(
        &mut self,
        cmd: &str,
        env: &[(String, String)],
        working_dir: &str,
        sink: &dyn OutputSink,
    ) -> Result<i32> {
        let result = self.vm.exec(cmd, env, working_dir, sink).await;
        self.record.note(format!("exec {cmd:?} => {result:?}"));
        result
    }

    /// Runs a command that must succeed, and returns its standard output without the last line
    /// end.
    pub(super) async fn sh(&mut self, cmd: &str) -> Result<String> {
        let ran = self
            .run(cmd)
            .await
            .with_context(|| format!("running {cmd:?}"))?;
        ensure!(ran.code == 0, "{cmd:?} failed: {ran:?}");
        Ok(ran.out.join("\n"))
    }

    /// Runs a command that must succeed and print exactly this.
    pub(super) async fn expect(&mut self, cmd: &str, out: &str) -> Result<()> {
        let got = self.sh(cmd).await?;
        ensure!(got == out, "{cmd:?} printed {got:?}, not {out:?}");
        Ok(())
    }

    /// Runs a command that can be stopped.
    pub(super) async fn exec_with(
        &mut self,
        cmd: &str,
        stop: &Cancellation,
        grace: Duration,
        sink: &dyn OutputSink,
    ) -> Result<ExecOutcome> {
        let request = ExecRequest {
            env: &[],
            working_dir: "/",
            grace,
            ..ExecRequest::new(cmd, stop)
        };
        let result = self.vm.exec_with(&request, sink).await;
        self.record.note(format!("exec_with {cmd:?} => {result:?}"));
        result
    }

    /// Runs a request that asks for more than a command.
    pub(super) async fn ask(&mut self, request: &ExecRequest<'_>) -> Result<Ran> {
        let lines = Lines::default();
        let result = self.vm.exec_with(request, &lines).await;
        let cmd = request.cmd;
        self.record.note(format!("exec_with {cmd:?} => {result:?}"));
        result.map(|outcome| lines.ran(outcome.exit_code))
    }

    /// As [`ask`](Self::ask), for a command that must succeed. Returns its standard output.
    pub(super) async fn ask_for(&mut self, request: &ExecRequest<'_>) -> Result<String> {
        let cmd = request.cmd;
        let ran = self.ask(request).await;
        let ran = ran.with_context(|| format!("running {cmd:?}"))?;
        ensure!(ran.code == 0, "{cmd:?} failed: {ran:?}");
        Ok(ran.out.join("\n"))
    }

    /// Checks that no command made the file `/ran`.
    pub(super) async fn expect_nothing_ran(&mut self) -> Result<()> {
        let found = self.run("test -e /ran").await?;
        ensure!(found.code == 1, "a command that was refused ran: {found:?}");
        Ok(())
    }

    pub(super) async fn inject(&mut self, host_path: &Path, guest_path: &str) -> Result<()> {
        let result = self.vm.inject(host_path, guest_path).await;
        self.record.note(format!(
            "inject {} to {guest_path:?} => {result:?}",
            host_path.display()
        ));
        result
    }

    /// Injects a part of a directory. Returns the digest that the backend tells.
    pub(super) async fn inject_from(
        &mut self,
        source: &InjectSource,
        guest_path: &str,
    ) -> Result<Option<String>> {
        let result = self.vm.inject_from(source, guest_path).await;
        self.record.note(format!(
            "inject_from {source:?} to {guest_path:?} => {result:?}"
        ));
        result
    }

    pub(super) async fn snapshot(&mut self) -> Result<SnapshotId> {
        self.snapshot_as(&SnapshotLabel::Ephemeral).await
    }

    /// Takes a snapshot that is removed at the end of the check.
    pub(super) async fn snapshot_as(&mut self, label: &SnapshotLabel) -> Result<SnapshotId> {
        let id = self.vm.snapshot(label).await.context("taking a snapshot")?;
        self.record.note(format!("snapshot => {id}"));
        self.record.keep(&id);
        Ok(id)
    }

    pub(super) async fn destroy(mut self) -> Result<()> {
        self.vm.destroy().await.context("destroying a VM")
    }
}
