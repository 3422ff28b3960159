//! Limits that are declared hold. What is not declared is refused: see `refusals`.

use std::time::Duration;

use anyhow::{Result, ensure};
use hm_vm_core::{Cancellation, Error, Limit, NullSink};

use super::errors::expect_error;
use super::refusals::limited;
use crate::conformance::context::{Context, not_applicable, skipped};
use crate::conformance::guest::Guest;

fn need(ctx: &Context<'_>, limit: Limit) -> Result<()> {
    if ctx.capabilities.limits.contains(&limit) {
        Ok(())
    } else {
        Err(not_applicable("the limit is not declared, and is refused"))
    }
}

/// Doubles a string up to 512 MiB, so that a limit that does not hold is told from one that does
/// without harm to the machine.
const MEMORY_HOG: &str =
    "x=0123456789abcdef; i=0; while [ $i -lt 25 ]; do x=$x$x; i=$((i+1)); done; echo unharmed";

/// B6: a command that takes more memory than it may is ended, and the error says so.
pub(crate) async fn the_memory_limit_holds(ctx: &Context<'_>) -> Result<()> {
    need(ctx, Limit::Memory)?;
    let config = limited(ctx, Limit::Memory, 64);
    let exceeded = |error: &Error| {
        matches!(
            error,
            Error::LimitExceeded {
                limit: Limit::Memory,
                ..
            }
        )
    };
    let mut vm = ctx.create_with(&config).await?;
    expect_error(vm.run(MEMORY_HOG).await, "B6: a memory hog", exceeded)?;
    // A hog that is not the command itself: the whole VM counts. The command may go on without it.
    match vm.run(&format!("sh -c '{MEMORY_HOG}'; true")).await {
        Ok(ran) => ensure!(ran.out.is_empty(), "B6: a memory hog as a child: {ran:?}"),
        Err(error) => expect_error::<()>(Err(error), "B6: a memory hog as a child", exceeded)?,
    }
    vm.expect("echo ok > /file; cat /file", "ok").await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore_with(&id, &config).await?;
    expect_error(
        fork.run(MEMORY_HOG).await,
        "B6: a memory hog in a fork",
        exceeded,
    )?;
    fork.destroy().await?;
    // The limit was the VM's, not the snapshot's.
    let mut free = ctx.restore(&id).await?;
    free.expect(
        "head -c 100000000 /dev/zero | tr '\\0' x | wc -c | tr -d ' '",
        "100000000",
    )
    .await?;
    free.destroy().await
}

/// B6: files in the page cache are not taken for a memory hog.
pub(crate) async fn writing_files_is_no_memory_hog(ctx: &Context<'_>) -> Result<()> {
    need(ctx, Limit::Memory)?;
    let mut vm = ctx.create_with(&limited(ctx, Limit::Memory, 64)).await?;
    vm.sh("head -c 200000000 /dev/zero > /big; cat /big > /dev/null")
        .await?;
    vm.destroy().await
}

/// B6: no more processes than the limit, a fork bomb included.
pub(crate) async fn the_pids_limit_holds(ctx: &Context<'_>) -> Result<()> {
    need(ctx, Limit::Pids)?;
    let config = limited(ctx, Limit::Pids, 32);
    let mut vm = ctx.create_with(&config).await?;
    vm.expect("(true) && sh -c 'echo ok'", "ok").await?;
    contains_many(&mut vm).await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore_with(&id, &config).await?;
    contains_many(&mut fork).await?;
    // Only now that the limit is known to hold.
    let bomb = fork
        .run("bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 0.3; exit 0")
        .await;
    if let Err(error) = bomb {
        let exceeded = |error: &Error| {
            matches!(
                error,
                Error::LimitExceeded {
                    limit: Limit::Pids,
                    ..
                }
            )
        };
        expect_error::<()>(Err(error), "B6: a fork bomb", exceeded)?;
    }
    fork.expect("echo ok", "ok").await?;
    fork.destroy().await
}

/// Starts 100 processes where 32 are allowed.
async fn contains_many(vm: &mut Guest) -> Result<()> {
    let cmd = "i=0; while [ $i -lt 100 ]; do (sleep 1000; :) & i=$((i+1)); done 2>/dev/null; echo started $i";
    match vm.run(cmd).await {
        Ok(ran) => ensure!(
            ran.out != ["started 100"],
            "B6: 100 processes with a limit of 32"
        ),
        Err(error) => expect_error::<()>(Err(error), "B6: 100 processes", |error| {
            matches!(
                error,
                Error::LimitExceeded {
                    limit: Limit::Pids,
                    ..
                }
            )
        })?,
    }
    vm.expect("echo ok", "ok").await
}

/// B6: processor time per wall time stays within the limit.
pub(crate) async fn the_cpu_limit_holds(ctx: &Context<'_>) -> Result<()> {
    need(ctx, Limit::Cpus)?;
    if !ctx.capabilities.usage {
        return Err(not_applicable(
            "usage is not declared, so the share cannot be measured",
        ));
    }
    if std::thread::available_parallelism()?.get() < 2 {
        return Err(skipped("this machine has a single processor"));
    }
    let mut vm = ctx.create_with(&limited(ctx, Limit::Cpus, 1)).await?;
    let spin = "for i in 1 2 3 4; do timeout 1 sh -c 'while :; do :; done' & done; wait; exit 0";
    let stop = Cancellation::new();
    let usage = vm
        .exec_with(spin, &stop, Duration::ZERO, &NullSink)
        .await?
        .usage;
    let cpu = usage.cpu.unwrap_or_default();
    ensure!(!cpu.is_zero(), "B6: no CPU time is measured: {usage:?}");
    // A share, not a speed: however slow the machine, no more than one processor's worth. Quotas
    // work in slices of 100 ms, of which one may be begun.
    let most = usage.wall.mul_f64(1.1) + Duration::from_millis(200);
    ensure!(
        cpu <= most,
        "B6: {cpu:?} of processor time in {:?}",
        usage.wall
    );
    vm.destroy().await
}

/// B6: writing more than the limit fails with "no space", and room that is freed can be used.
pub(crate) async fn the_disk_limit_holds(ctx: &Context<'_>) -> Result<()> {
    need(ctx, Limit::Disk)?;
    let config = limited(ctx, Limit::Disk, 1);
    let mut vm = ctx.create_with(&config).await?;
    disk_is_full(&mut vm).await?;
    vm.sh("rm -f /big; head -c 50000000 /dev/zero > /small; test -s /small")
        .await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore_with(&id, &config).await?;
    fork.expect("stat -c %s /small", "50000000").await?;
    disk_is_full(&mut fork).await?;
    fork.destroy().await
}

async fn disk_is_full(vm: &mut Guest) -> Result<()> {
    let cmd = "dd if=/dev/zero of=/big bs=1048576 count=1280 && echo unharmed";
    match vm.run(cmd).await {
        Ok(ran) => {
            let full = ran.err.iter().any(|line| line.contains("No space left"));
            ensure!(
                ran.code != 0 && full,
                "B6: 1.25 GiB with a limit of 1 GiB: {ran:?}"
            );
            Ok(())
        }
        Err(error) => expect_error::<()>(Err(error), "B6: a full disk", |error| {
            matches!(
                error,
                Error::NoSpace { .. }
                    | Error::LimitExceeded {
                        limit: Limit::Disk,
                        ..
                    }
            )
        }),
    }
}
