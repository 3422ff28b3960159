//! How commands end, and that nothing survives them.

use anyhow::{Result, ensure};

use crate::conformance::context::{Context, not_applicable};
use crate::conformance::host::{marker, processes_with};

/// V1: death by a signal is 128 and its number.
pub(crate) async fn signals_are_128_plus_their_number(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    // Without SIGQUIT, which the shell of busybox ignores.
    for signal in [1, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 24, 31] {
        let ran = vm.run(&format!("kill -{signal} $$; sleep 60")).await?;
        ensure!(
            ran.code == 128 + signal,
            "V1: signal {signal} came back as {}",
            ran.code
        );
        let ran = vm
            .run(&format!("exec sh -c 'kill -{signal} $$; sleep 60'"))
            .await?;
        ensure!(
            ran.code == 128 + signal,
            "V1: exec'd, signal {signal}: {}",
            ran.code
        );
    }
    let ran = vm.run("sh -c 'kill -9 $$'; exit $?").await?;
    ensure!(
        ran.code == 137,
        "V1: a child's death by 9 came back as {}",
        ran.code
    );
    vm.destroy().await
}

/// V1: a guest without a shell, or with one that cannot be started, gives 127.
pub(crate) async fn a_missing_shell_is_127(ctx: &Context<'_>) -> Result<()> {
    let places = "/bin/sh /usr/bin/sh /usr/local/bin/sh /sbin/sh /usr/sbin/sh";
    let mut vm = ctx.create().await?;
    let removal = vm.run(&format!("echo x > /file; rm -f {places}")).await?;
    if removal.code != 0 {
        return Err(not_applicable("the image's shell cannot be removed"));
    }
    let ran = vm.run("exit 3").await?;
    ensure!(ran.code == 127, "V1: without a shell: {ran:?}");
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&id).await?;
    let ran = fork.run("exit 3").await?;
    ensure!(ran.code == 127, "V1: in a fork without a shell: {ran:?}");
    fork.destroy().await?;
    let mut vm = ctx.create().await?;
    vm.sh(&format!(
        "rm -f {places}; for sh in {places}; do echo x > $sh; chmod 644 $sh; done; :"
    ))
    .await?;
    let ran = vm.run("exit 3").await?;
    ensure!(
        ran.code == 127,
        "V1: with a shell that is no program: {ran:?}"
    );
    vm.destroy().await
}

/// V2: background processes end with the command, those that hold its output too.
pub(crate) async fn background_processes_end(ctx: &Context<'_>) -> Result<()> {
    let mark = marker();
    let keep = format!("sh -c 'while :; do sleep 1000; done' {mark}");
    let escapes = [
        format!("{keep} & exit 7"),
        format!("{keep} > /dev/null 2>&1 < /dev/null & exit 7"),
        format!("(trap '' HUP INT TERM QUIT; {keep}) & exit 7"),
        format!("nohup {keep} > /dev/null 2>&1 & sleep 0.05; exit 7"),
        format!("setsid {keep} > /dev/null 2>&1 & sleep 0.05; exit 7"),
        format!(
            "(({keep}) > /dev/null 2>&1 &) ; (setsid sh -c '(setsid {} &)' > /dev/null 2>&1 &); sleep 0.1; exit 7",
            keep.replace('\'', "\"")
        ),
        format!("(while :; do {keep} & sleep 0.01; done) > /dev/null 2>&1 & sleep 0.1; exit 7"),
    ];
    let mut vm = ctx.create().await?;
    for cmd in &escapes {
        let ran = vm.run(cmd).await?;
        ensure!(ran.code == 7, "V1: {cmd}: {ran:?}");
        let alive = processes_with(&mark);
        ensure!(alive.is_empty(), "V2: alive after {cmd}: {alive:#?}");
    }
    vm.destroy().await
}

/// V2: seen from within, too: a loop left behind writes no more, and the next command starts
/// among no strangers.
pub(crate) async fn left_over_loops_write_no_more(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let count = "wc -c < /beat | tr -d ' '";
    for start in ["", "setsid "] {
        vm.sh(&format!(
            "echo > /beat; {start}sh -c 'while :; do echo x >> /beat; done' > /dev/null 2>&1 & \
             while [ \"$({count})\" -lt 100 ]; do sleep 0.01; done"
        ))
        .await?;
        let one = vm.sh(count).await?;
        // A loop that lives writes thousands of lines in this time; none writes nothing.
        let two = vm.sh(&format!("sleep 0.1; {count}")).await?;
        ensure!(
            one == two,
            "V2: the file went on growing from {one} to {two}"
        );
    }
    let alive = vm
        .sh("for dir in /proc/[0-9]*; do cat $dir/comm 2>/dev/null; done | wc -l")
        .await?;
    let alive: u32 = alive.trim().parse()?;
    ensure!(alive <= 8, "B2: {alive} processes are visible to a command");
    vm.destroy().await
}

/// V2: orphans are reaped while the command runs.
pub(crate) async fn zombies_are_reaped(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let cmd = "i=0; while [ $i -lt 200 ]; do (true &); i=$((i+1)); done
        tries=0
        while :; do
            zombies=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ')
            [ $zombies -eq 0 ] && break
            tries=$((tries+1)); [ $tries -gt 200 ] && echo $zombies zombies && exit 1
            sleep 0.05
        done";
    vm.sh(cmd).await?;
    vm.destroy().await
}

/// B2: processes of one VM are invisible to another, and cannot be signalled from there.
pub(crate) async fn processes_do_not_see_other_vms(ctx: &Context<'_>) -> Result<()> {
    let mark = marker();
    let mut one = ctx.create().await?;
    let mut two = ctx.create().await?;
    let lines = crate::conformance::guest::Lines::default();
    let stop = hm_vm_core::Cancellation::new();
    let cmd = format!("echo ready; exec sh -c 'while [ ! -e /end ]; do sleep 0.02; done' {mark}");
    let running = one.exec_with(&cmd, &stop, std::time::Duration::ZERO, &lines);
    let looking = async {
        lines.wait_for("ready").await;
        let seen = two
            .sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
            .await;
        let killed = two.sh("kill -9 -1 2>/dev/null; true").await;
        stop.kill(hm_vm_core::CancelCause::User);
        (seen, killed)
    };
    let (ran, (seen, _killed)) = tokio::join!(running, looking);
    ensure!(ran.is_err(), "B2: the other VM ended the command: {ran:?}");
    let seen = seen?;
    ensure!(
        !seen.contains(&mark),
        "B2: another VM's processes are visible: {seen}"
    );
    let pid = std::process::id();
    two.sh(&format!(
        "test ! -e /proc/{pid}/cmdline || ! grep -q {} /proc/{pid}/cmdline",
        "hm_vm"
    ))
    .await?;
    one.destroy().await?;
    two.destroy().await
}
