//! Stopping a command: cancellation, time limit, kill. The first half runs on the fake as well.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hm_vm_core::{CancelCause, Cancellation, Error, ExecOutcome, OutputSink, Stream};
use tokio::sync::watch;

use super::errors::expect_error;
use crate::conformance::context::{Context, not_applicable};
use crate::conformance::guest::{Guest, Lines};
use crate::conformance::harness::Shell;
use crate::conformance::host::{marker, processes_with};

/// Longer than any check is allowed to take.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// Waits for the first output, and keeps nothing of what follows: some commands never cease.
#[derive(Debug, Default)]
struct Ready(watch::Sender<bool>);

impl Ready {
    async fn wait(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|ready| *ready).await;
    }
}

impl OutputSink for Ready {
    fn on_stdout(&self, _line: &str) {
        self.0.send_replace(true);
    }

    fn on_stderr(&self, _line: &str) {}

    fn wants_bytes(&self) -> bool {
        true
    }

    fn on_bytes(&self, stream: Stream, _bytes: &[u8]) {
        if stream == Stream::Stdout {
            self.0.send_replace(true);
        }
    }
}

/// Runs `cmd`, and acts on its token once it has printed `ready`.
async fn stopped(
    vm: &mut Guest,
    cmd: &str,
    grace: Duration,
    act: impl FnOnce(&Cancellation),
) -> Result<Result<ExecOutcome>> {
    let stop = Cancellation::new();
    let ready = Ready::default();
    let run = vm.exec_with(cmd, &stop, grace, &ready);
    tokio::pin!(run);
    tokio::select! {
        early = &mut run => bail!("{cmd:?} ended before it was ready: {early:?}"),
        () = ready.wait() => {}
    }
    act(&stop);
    Ok(run.await)
}

fn is_cancelled_by(cause: CancelCause) -> impl FnOnce(&Error) -> bool {
    move |error| *error == Error::Cancelled { cause }
}

/// V13: the error carries the cause, and the VM remains usable.
pub(crate) async fn a_stopped_command_tells_the_cause(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let cmd = "echo before > /before; echo ready; sleep 1000; echo after > /after";
    let limit = Duration::from_millis(1500);
    let causes = [
        CancelCause::User,
        CancelCause::Timeout(limit),
        CancelCause::Sibling("build".into()),
        CancelCause::Other("the house burns".into()),
    ];
    for cause in causes {
        let wanted = Error::from(cause.clone());
        let result = stopped(&mut vm, cmd, FOREVER, |stop| {
            stop.cancel(cause);
            stop.cancel(CancelCause::Other("a later cause".into()));
        });
        expect_error(result.await?, "V13: a stopped command", |error| {
            *error == wanted
        })?;
        vm.sh("test -e /before && test ! -e /after && rm /before")
            .await?;
    }
    vm.sh("echo x > /file").await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&id).await?;
    fork.expect("cat /file", "x").await?;
    fork.destroy().await
}

/// V13: a token that was cancelled before is honoured, and one that never is changes nothing.
pub(crate) async fn a_stop_before_or_after_the_command(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let sink = Lines::default();
    let stop = Cancellation::new();
    let ended = vm.exec_with("exit 5", &stop, FOREVER, &sink).await?;
    ensure!(ended.exit_code == 5, "V1: exec_with of exit 5: {ended:?}");
    stop.cancel(CancelCause::User);
    let result = vm.exec_with("sleep 1000", &stop, FOREVER, &sink).await;
    let fits = is_cancelled_by(CancelCause::User);
    expect_error(result, "V13: a command stopped before it began", fits)?;
    stop.kill(CancelCause::User);
    let result = vm
        .exec_with("trap '' TERM; sleep 1000", &stop, FOREVER, &sink)
        .await;
    let fits = is_cancelled_by(CancelCause::User);
    expect_error(result, "V13: a command killed before it began", fits)?;
    vm.expect("echo ok", "ok").await?;
    vm.destroy().await
}

/// V13: a command that ignores SIGTERM is killed when its grace period is over.
pub(crate) async fn the_grace_period_ends(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let cmd = "trap '' TERM; echo ready; sleep 1000; sleep 1000; echo after > /after";
    for grace in [Duration::ZERO, Duration::from_millis(100)] {
        let result = stopped(&mut vm, cmd, grace, |stop| stop.cancel(CancelCause::User));
        let fits = is_cancelled_by(CancelCause::User);
        expect_error(result.await?, "V13: a stubborn command", fits)?;
        vm.sh("test ! -e /after").await?;
    }
    vm.destroy().await
}

/// V13: a kill waits for no grace period, also when it comes after a first request.
pub(crate) async fn a_kill_is_at_once(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let cmd = "trap '' TERM; echo ready; sleep 1000; sleep 1000; echo after > /after";
    let result = stopped(&mut vm, cmd, FOREVER, |stop| stop.kill(CancelCause::User));
    let fits = is_cancelled_by(CancelCause::User);
    expect_error(result.await?, "V13: a killed command", fits)?;
    let result = stopped(&mut vm, cmd, FOREVER, |stop| {
        stop.cancel(CancelCause::Sibling("one".into()));
        stop.kill(CancelCause::User);
    });
    let fits = is_cancelled_by(CancelCause::Sibling("one".into()));
    expect_error(result.await?, "V13: a command stopped, then killed", fits)?;
    vm.sh("test ! -e /after").await?;
    vm.destroy().await
}

/// V13: the command's own handler of SIGTERM runs, and has its time.
pub(crate) async fn a_trap_sees_sigterm(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    // A real shell runs its trap between two commands: one that begins just after the signal must
    // not be long.
    let rest = match ctx.harness.shell() {
        Shell::Minimal => "sleep 1000",
        Shell::Posix => "while :; do sleep 0.02; done",
    };
    let cmd = format!("trap 'sleep 0.2; echo caught > /caught; exit 0' TERM; echo ready; {rest}");
    let result = stopped(&mut vm, &cmd, FOREVER, |stop| {
        stop.cancel(CancelCause::User)
    });
    let fits = is_cancelled_by(CancelCause::User);
    expect_error(result.await?, "V13: a command that handles SIGTERM", fits)?;
    vm.expect("cat /caught", "caught").await?;
    vm.destroy().await
}

/// V13: all processes of the command get SIGTERM, not the first alone, and all are dead when it
/// is over.
pub(crate) async fn all_processes_are_stopped(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let mark = marker();
    let cmd = format!(
        "sh -c 'trap \"echo child > /child; exit\" TERM; : > /set; while :; do sleep 0.02; done' {mark} & \
         setsid sh -c 'trap \"\" TERM; while :; do sleep 0.02; done' {mark} & \
         trap : TERM; while [ ! -e /set ]; do sleep 0.02; done; echo ready; \
         while [ ! -s /child ]; do sleep 0.02; done"
    );
    // The first process ends when the child has had its turn; the stubborn one then goes with it.
    let result = stopped(&mut vm, &cmd, FOREVER, |stop| {
        stop.cancel(CancelCause::User)
    });
    let fits = is_cancelled_by(CancelCause::User);
    expect_error(result.await?, "V13: a command with children", fits)?;
    let alive = processes_with(&mark);
    ensure!(alive.is_empty(), "V13: alive after the stop: {alive:#?}");
    vm.expect("cat /child", "child").await?;
    vm.destroy().await
}

/// V13: a stop while output flows, and while nobody reads it for a moment.
pub(crate) async fn a_stop_while_output_flows(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    for cmd in [
        "echo ready; yes",
        "echo ready; yes >&2",
        "trap '' TERM; echo ready; yes",
    ] {
        let grace = Duration::from_millis(50);
        let result = stopped(&mut vm, cmd, grace, |stop| stop.cancel(CancelCause::User));
        let fits = is_cancelled_by(CancelCause::User);
        expect_error(result.await?, "V13: a stop while output flows", fits)?;
    }
    vm.expect("echo ok", "ok").await?;
    vm.destroy().await
}

/// V2, B7: a dropped `exec` leaves no process. The end of the check finds other leaks.
pub(crate) async fn a_dropped_exec_leaves_no_process(ctx: &Context<'_>) -> Result<()> {
    let mark = marker();
    for trap in ["", "trap '' TERM HUP INT;"] {
        let mut vm = ctx.create().await?;
        let cmd = format!(
            "{trap} setsid sh -c 'while :; do sleep 0.05; done' {mark} & echo ready; sleep 1000"
        );
        let lines = Lines::default();
        {
            let run = vm.exec(&cmd, &[], "/", &lines);
            tokio::pin!(run);
            tokio::select! {
                early = &mut run => bail!("the command ended: {early:?}"),
                () = lines.wait_for("ready") => {}
            }
        }
        crate::conformance::host::until_none("V2: alive after a dropped exec", async || {
            processes_with(&mark)
        })
        .await?;
        vm.destroy().await?;
    }
    Ok(())
}

/// What a command used is told (`usage`).
pub(crate) async fn usage_is_measured(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.usage {
        return Err(not_applicable("usage is not declared"));
    }
    let mut vm = ctx.create().await?;
    let stop = Cancellation::new();
    let sink = Lines::default();
    let bytes = 48u64 << 20;
    let cmd = format!(
        "head -c {bytes} /dev/zero > /big; \
         i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; \
         x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ${{#x}}"
    );
    let usage = vm.exec_with(&cmd, &stop, FOREVER, &sink).await?.usage;
    ensure!(!usage.wall.is_zero(), "usage: no wall time: {usage:?}");
    let cpu = usage.cpu.unwrap_or_default();
    ensure!(
        cpu > Duration::from_millis(5),
        "usage: too little CPU time: {usage:?}"
    );
    let cores = std::thread::available_parallelism()?.get() as u32;
    let most = usage.wall * cores + Duration::from_millis(100);
    ensure!(
        cpu <= most,
        "usage: more CPU time than there was: {usage:?}"
    );
    let memory = usage.peak_memory_bytes.unwrap_or_default();
    ensure!(memory >= 16 << 20, "usage: too little memory: {usage:?}");
    let idle = vm.exec_with("true", &stop, FOREVER, &sink).await?.usage;
    ensure!(
        idle.cpu.is_some_and(|idle| idle < cpu),
        "usage: `true` used {idle:?} of {usage:?}"
    );
    if let Some(written) = usage.written_bytes {
        ensure!(
            written >= bytes / 2,
            "usage: too few bytes written: {usage:?}"
        );
    }
    vm.destroy().await
}
