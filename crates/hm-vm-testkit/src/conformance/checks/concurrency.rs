//! Many VMs at once. Runs on the fake as well.

use std::sync::Arc;

use anyhow::{Result, ensure};
use hm_vm_core::{NullSink, SnapshotId, SnapshotLabel, Vm, VmBackend, VmConfig};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::conformance::context::Context;

async fn run(vm: &mut Box<dyn Vm>, cmd: &str) -> Result<()> {
    let code = vm.exec(cmd, &[], "/", &NullSink).await?;
    ensure!(code == 0, "B8: {cmd:?} ended with {code}");
    Ok(())
}

/// One of many: writes its number where all write theirs, while all are alive.
async fn one_of_many(
    backend: Arc<dyn VmBackend>,
    image: String,
    config: VmConfig,
    (number, count): (usize, usize),
    all: Arc<Barrier>,
) -> Result<SnapshotId> {
    let created = backend.create(&image, &config).await;
    // Everybody waits for everybody, so nobody may leave before.
    all.wait().await;
    let mut vm = created?;
    run(
        &mut vm,
        &format!("echo {number} > /number; echo {number} > /tmp/n{number}"),
    )
    .await?;
    all.wait().await;
    let other = (number + 1) % count;
    run(
        &mut vm,
        &format!("test -e /tmp/n{number} && test ! -e /tmp/n{other}"),
    )
    .await?;
    let label = SnapshotLabel::Cached(format!("n{number}"));
    let id = vm.snapshot(&label).await?;
    run(&mut vm, "echo later > /number").await?;
    if number.is_multiple_of(2) {
        vm.destroy().await?;
    }
    drop(vm);
    Ok(id)
}

/// B8: 64 VMs alive at once, all working and snapshotting.
pub(crate) async fn sixty_four_vms_at_once(ctx: &Context<'_>) -> Result<()> {
    let count = ctx.scale.vms;
    let all = Arc::new(Barrier::new(count));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let backend = Arc::clone(&ctx.backend);
        let image = ctx.harness.image().to_owned();
        let (config, all) = (ctx.config(), Arc::clone(&all));
        tasks.spawn(async move {
            let id = one_of_many(backend, image, config, (number, count), all).await?;
            anyhow::Ok((number, id))
        });
    }
    let mut snapshots = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (number, id) = done??;
        ctx.record.keep(&id);
        snapshots.push((number, id));
    }
    for (number, id) in &snapshots {
        let mut fork = ctx.restore(id).await?;
        fork.expect("cat /number", &number.to_string()).await?;
        fork.destroy().await?;
    }
    Ok(())
}

/// B2, B8: many forks of one snapshot at once, from several tasks, with removals going on.
pub(crate) async fn many_forks_of_one_snapshot(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    vm.sh("echo base > /base").await?;
    let base = vm.snapshot().await?;
    vm.destroy().await?;
    let mut tasks = JoinSet::new();
    for number in 0..ctx.scale.vms.min(16) {
        let (backend, base, config) = (Arc::clone(&ctx.backend), base.clone(), ctx.config());
        tasks.spawn(async move {
            let mut parent = base;
            for step in 0..4 {
                let mut vm = backend.restore(&parent, &config).await?;
                let cmd = format!("test -e /base && echo {step} > /own{number}-{step}");
                run(&mut vm, &cmd).await?;
                let id = vm.snapshot(&SnapshotLabel::Ephemeral).await?;
                vm.destroy().await?;
                if step > 0 {
                    backend.remove_snapshot(&parent).await?;
                }
                parent = id;
            }
            anyhow::Ok((number, parent))
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (number, id) = done??;
        ctx.record.keep(&id);
        // A fork of one that was removed meanwhile is whole, where that is promised.
        if ctx.capabilities.remove_parent {
            let mut fork = ctx.restore(&id).await?;
            fork.expect(&format!("cat /own{number}-0 /own{number}-3"), "0\n3")
                .await?;
            fork.destroy().await?;
        }
    }
    Ok(())
}
