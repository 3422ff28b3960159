//! Futures dropped at any moment. Runs on the fake as well.

use std::task::Poll;
use std::time::Duration;

use anyhow::{Result, ensure};
use hm_vm_core::{NullSink, SnapshotLabel};

use super::inject::write;
use crate::conformance::context::Context;

/// When to give a future up.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Polls(u32),
    After(Duration),
}

/// Few polls find each await; short times find what happens on other threads meanwhile.
fn moments() -> impl Iterator<Item = Moment> {
    let polls = (1..8).map(Moment::Polls);
    // Not evenly spread: most of what matters happens early.
    let times =
        (0..24u32).map(|step| Moment::After(Duration::from_micros(u64::from(step * step * 17))));
    polls.chain(times)
}

/// Runs a future up to a moment. `None` when it was dropped.
async fn until<T>(moment: Moment, future: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(future);
    match moment {
        Moment::After(time) => tokio::select! {
            biased;
            done = &mut future => Some(done),
            () = tokio::time::sleep(time) => None,
        },
        Moment::Polls(most) => {
            let mut polls = 0;
            let few = std::future::poll_fn(|task| match future.as_mut().poll(task) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending => {
                    polls += 1;
                    if polls >= most {
                        Poll::Ready(None)
                    } else {
                        Poll::Pending
                    }
                }
            });
            // A future that waits for something that does not come is polled no more.
            tokio::select! {
                biased;
                done = few => done,
                () = tokio::time::sleep(Duration::from_millis(50)) => None,
            }
        }
    }
}

/// B7: `create` and `restore`, dropped at any moment.
pub(crate) async fn dropped_creates_leave_nothing(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    vm.sh("echo x > /file").await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let config = ctx.config();
    for moment in moments() {
        let created = until(moment, ctx.backend.create(ctx.harness.image(), &config)).await;
        drop(created.transpose()?);
        let restored = until(moment, ctx.backend.restore(&id, &config)).await;
        drop(restored.transpose()?);
    }
    let mut fork = ctx.restore(&id).await?;
    fork.expect("cat /file", "x").await?;
    fork.destroy().await
}

/// B7: `exec` and `inject`, dropped at any moment; the VM can be destroyed afterwards.
pub(crate) async fn dropped_work_leaves_nothing(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    for number in 0..50 {
        write(
            source.path(),
            &[(&format!("d{}/f{number}", number % 7), "x\n")],
        )?;
    }
    let dir = source.path();
    for moment in moments() {
        let vm = ctx.create().await?;
        let cmd = "echo 1 > /a; sleep 0.001; echo 2 > /b; sleep 1000";
        let ran = until(moment, vm.vm.exec(cmd, &[], "/", &NullSink)).await;
        ensure!(ran.is_none(), "V1: {cmd:?} ended: {ran:?}");
        vm.destroy().await?;
        let mut vm = ctx.create().await?;
        until(moment, vm.vm.inject(dir, "/work"))
            .await
            .transpose()?;
        // Whatever came of the first one, a second one is whole.
        vm.inject(dir, "/work").await?;
        vm.expect("cat /work/d0/f49 /work/d6/f48", "x\nx").await?;
        vm.destroy().await?;
    }
    Ok(())
}

/// B7: `snapshot`, dropped at any moment: no snapshot that nobody knows of remains, and the VM is
/// as it was.
pub(crate) async fn dropped_snapshots_leave_nothing(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    for (step, moment) in moments().enumerate() {
        vm.sh(&format!("echo {step} >> /log; echo {step} > /f{step}"))
            .await?;
        let label = SnapshotLabel::Cached("dropped".into());
        let id = until(moment, vm.vm.snapshot(&label)).await.transpose()?;
        let log: Vec<String> = (0..=step).map(|line| line.to_string()).collect();
        vm.expect("cat /log", &log.join("\n")).await?;
        if let Some(id) = id {
            ctx.record.keep(&id);
        }
    }
    vm.destroy().await
}

/// B7: `destroy` and `remove_snapshot`, dropped at any moment; called again, they finish.
pub(crate) async fn dropped_removals_can_be_repeated(ctx: &Context<'_>) -> Result<()> {
    for (step, moment) in moments().enumerate() {
        let mut vm = ctx.create().await?;
        vm.sh("echo x > /file").await?;
        let id = vm.snapshot().await?;
        until(moment, vm.vm.destroy()).await.transpose()?;
        // Both ways on: a second call, and the drop alone.
        if step % 2 == 0 {
            vm.vm.destroy().await?;
        }
        drop(vm);
        until(moment, ctx.backend.remove_snapshot(&id))
            .await
            .transpose()?;
        ctx.remove(&id).await?;
        let exists = ctx.backend.snapshot_exists(&id).await?;
        ensure!(!exists, "B4: {id} is still there after a second removal");
    }
    Ok(())
}
