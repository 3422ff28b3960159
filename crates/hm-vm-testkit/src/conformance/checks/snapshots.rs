//! Snapshots and forks. Runs on the fake as well.

use anyhow::{Result, ensure};
use hm_vm_core::Error;

use crate::conformance::context::{Context, not_applicable};

/// B2, V9: a fork never sees what its parent writes later.
pub(crate) async fn a_fork_never_sees_later_writes(ctx: &Context<'_>) -> Result<()> {
    let mut parent = ctx.create().await?;
    parent
        .sh("mkdir -p /d; echo old > /d/kept; echo old > /d/changed; echo old > /d/gone")
        .await?;
    let id = parent.snapshot().await?;
    let mut early = ctx.restore(&id).await?;
    parent
        .sh("echo new > /d/changed; echo new >> /d/kept; rm /d/gone; echo new > /d/new")
        .await?;
    let mut late = ctx.restore(&id).await?;
    for fork in [&mut early, &mut late] {
        fork.expect("cat /d/kept /d/changed /d/gone", "old\nold\nold")
            .await?;
        fork.sh("test ! -e /d/new").await?;
    }
    early.sh("echo fork > /d/changed").await?;
    late.expect("cat /d/changed", "old").await?;
    parent
        .expect("cat /d/changed /d/kept /d/new", "new\nold\nnew\nnew")
        .await?;
    parent.destroy().await?;
    late.expect("cat /d/gone", "old").await?;
    late.destroy().await?;
    early.destroy().await
}

/// B2, B8: two forks of one snapshot at once, each of them a parent again.
pub(crate) async fn two_forks_go_their_own_ways(ctx: &Context<'_>) -> Result<()> {
    let mut root = ctx.create().await?;
    root.sh("echo root > /who").await?;
    let id = root.snapshot().await?;
    root.destroy().await?;
    let branch = async |name: &str| {
        let mut vm = ctx.restore(&id).await?;
        for step in 0..5 {
            vm.sh(&format!("echo {name}{step} >> /who")).await?;
        }
        let id = vm.snapshot().await?;
        vm.destroy().await?;
        anyhow::Ok(id)
    };
    let (left, right) = tokio::try_join!(branch("left"), branch("right"))?;
    for (id, name) in [(left, "left"), (right, "right")] {
        let mut vm = ctx.restore(&id).await?;
        let lines: Vec<String> = (0..5).map(|step| format!("{name}{step}")).collect();
        vm.expect("cat /who", &format!("root\n{}", lines.join("\n")))
            .await?;
        vm.destroy().await?;
    }
    let mut vm = ctx.restore(&id).await?;
    vm.expect("cat /who", "root").await?;
    vm.destroy().await
}

/// V9: snapshot, go on, snapshot again: each keeps its own moment.
pub(crate) async fn snapshot_go_on_snapshot_again(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let mut ids = Vec::new();
    for moment in 0..6 {
        vm.sh(&format!(
            "echo {moment} >> /log; echo {moment} > /now; touch /f{moment}"
        ))
        .await?;
        if moment == 3 {
            vm.sh("rm /f1").await?;
        }
        ids.push(vm.snapshot().await?);
    }
    vm.expect("cat /now", "5").await?;
    vm.destroy().await?;
    for (moment, id) in ids.iter().enumerate().rev() {
        let mut fork = ctx.restore(id).await?;
        let log: Vec<String> = (0..=moment).map(|line| line.to_string()).collect();
        fork.expect("cat /log", &log.join("\n")).await?;
        fork.expect("cat /now", &moment.to_string()).await?;
        let there = fork.run("test -e /f1").await?.code == 0;
        ensure!(
            there == (1..3).contains(&moment),
            "V9: /f1 at moment {moment}: {there}"
        );
        fork.destroy().await?;
    }
    Ok(())
}

/// V9: snapshots of a VM that nothing changed are snapshots of their own.
pub(crate) async fn an_unchanged_vm_can_be_snapshotted(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let fresh = vm.snapshot().await?;
    vm.sh("echo x > /file").await?;
    let one = vm.snapshot().await?;
    let two = vm.snapshot().await?;
    ensure!(fresh != one && one != two, "V9: two snapshots have one id");
    vm.destroy().await?;
    ctx.remove(&one).await?;
    let mut fork = ctx.restore(&two).await?;
    let three = fork.snapshot().await?;
    ensure!(
        two != three,
        "V9: the snapshot of a fork has its parent's id"
    );
    fork.destroy().await?;
    ctx.remove(&two).await?;
    if ctx.capabilities.remove_parent {
        let mut fork = ctx.restore(&three).await?;
        fork.expect("cat /file", "x").await?;
        fork.destroy().await?;
    }
    let mut fork = ctx.restore(&fresh).await?;
    fork.sh("test ! -e /file").await?;
    fork.destroy().await
}

/// V9: a command that failed leaves a state that can be kept.
pub(crate) async fn a_failed_command_can_be_snapshotted(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let ran = vm.run("echo half > /file; exit 3").await?;
    ensure!(ran.code == 3, "V1: exit 3 came back as {}", ran.code);
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&id).await?;
    fork.expect("cat /file", "half").await?;
    fork.destroy().await
}

/// B5: removing a parent leaves children whole, snapshots as well as running VMs.
pub(crate) async fn children_outlive_their_parent(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.remove_parent {
        return Err(not_applicable("remove_parent is not declared"));
    }
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /d; echo 1 > /d/one; echo 1 > /d/gone")
        .await?;
    let parent = vm.snapshot().await?;
    vm.sh("echo 2 > /d/two; rm /d/gone").await?;
    let child = vm.snapshot().await?;
    let mut running = ctx.restore(&parent).await?;
    let mut grandchild = ctx.restore(&child).await?;
    ctx.remove(&parent).await?;
    let exists = ctx.backend.snapshot_exists(&child).await?;
    ensure!(exists, "B5: a child went with its parent");
    let mut again = ctx.restore(&child).await?;
    again.expect("cat /d/one /d/two", "1\n2").await?;
    again.destroy().await?;
    running.expect("cat /d/one /d/gone", "1\n1").await?;
    vm.expect("cat /d/one /d/two", "1\n2").await?;
    ctx.remove(&child).await?;
    grandchild
        .sh("echo 3 > /d/three; test ! -e /d/gone")
        .await?;
    let last = grandchild.snapshot().await?;
    for vm in [running, grandchild, vm] {
        vm.destroy().await?;
    }
    let mut fork = ctx.restore(&last).await?;
    fork.expect("cat /d/one /d/two /d/three", "1\n2\n3").await?;
    fork.sh("test ! -e /d/gone").await?;
    fork.destroy().await
}

/// B5, V9: many snapshots of one lineage removed in odd order; the rest stays right.
pub(crate) async fn removal_in_any_order_keeps_the_rest(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.remove_parent {
        return Err(not_applicable("remove_parent is not declared"));
    }
    let mut vm = ctx.create().await?;
    let mut ids = Vec::new();
    for step in 0..12 {
        vm.sh(&format!("echo {step} > /step; echo {step} > /s{step}"))
            .await?;
        ids.push((step, vm.snapshot().await?));
    }
    vm.destroy().await?;
    for index in [5, 0, 9, 3, 2, 1, 4, 0, 2, 1] {
        let (_, id) = ids.remove(index % ids.len());
        ctx.remove(&id).await?;
        for (step, id) in &ids {
            let mut fork = ctx.restore(id).await?;
            fork.expect("cat /step /s0", &format!("{step}\n0")).await?;
            fork.destroy().await?;
        }
    }
    Ok(())
}

/// V11: a chain of a thousand snapshots, restored from each time.
pub(crate) async fn a_chain_of_a_thousand_snapshots(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.deep_chains {
        return Err(not_applicable("deep_chains is not declared"));
    }
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /d; echo first > /d/first; echo x > /d/gone")
        .await?;
    let mut last = vm.snapshot().await?;
    vm.destroy().await?;
    let depth = ctx.scale.chain;
    let mut middle = None;
    for step in 1..depth {
        let mut vm = ctx.restore(&last).await?;
        let gone = if step == depth / 3 { "rm /d/gone;" } else { "" };
        vm.sh(&format!(
            "{gone} echo {step} >> /log; echo {step} > /d/last"
        ))
        .await?;
        last = vm.snapshot().await?;
        vm.destroy().await?;
        if step == depth / 2 {
            middle = Some((step, last.clone()));
        }
    }
    let at = [Some((depth - 1, last)), middle];
    for (step, id) in at.into_iter().flatten() {
        let mut vm = ctx.restore(&id).await?;
        let log: Vec<String> = (1..=step).map(|line| line.to_string()).collect();
        vm.expect("cat /log", &log.join("\n")).await?;
        vm.expect("cat /d/first /d/last", &format!("first\n{step}"))
            .await?;
        vm.sh("test ! -e /d/gone").await?;
        vm.destroy().await?;
    }
    Ok(())
}

/// B3: a second handle on the same root sees the same snapshots.
pub(crate) async fn snapshots_are_seen_by_other_handles(ctx: &Context<'_>) -> Result<()> {
    let Some(other) = ctx.harness.reopen().await else {
        return Err(not_applicable("the backend cannot be opened twice"));
    };
    let mut vm = ctx.create().await?;
    vm.sh("echo x > /file").await?;
    let id = vm.snapshot().await?;
    ensure!(
        other.snapshot_exists(&id).await?,
        "B3: another handle does not see {id}"
    );
    let mut fork = other.restore(&id, &ctx.config()).await?;
    let code = fork
        .exec("test -e /file", &[], "/", &hm_vm_core::NullSink)
        .await?;
    ensure!(code == 0, "B3: another handle restores something else");
    // While this VM runs on it through the other handle, the snapshot goes.
    if ctx.capabilities.remove_parent {
        ctx.remove(&id).await?;
        ensure!(
            !other.snapshot_exists(&id).await?,
            "B3: another handle still sees {id}"
        );
        let code = fork
            .exec("test -e /file", &[], "/", &hm_vm_core::NullSink)
            .await?;
        ensure!(
            code == 0,
            "B5: removal through another handle broke a running VM"
        );
    }
    fork.destroy().await?;
    vm.destroy().await
}

/// B4, B8: forks race with the removal of their snapshot. Each is whole, or is told that the
/// snapshot is gone.
pub(crate) async fn forks_race_with_removal(ctx: &Context<'_>) -> Result<()> {
    for _ in 0..8 {
        let mut vm = ctx.create().await?;
        vm.sh("echo x > /file").await?;
        let id = vm.snapshot().await?;
        vm.destroy().await?;
        let fork = async || match ctx.restore(&id).await {
            Ok(mut fork) => {
                fork.expect("cat /file", "x").await?;
                fork.destroy().await
            }
            Err(error) => match error.downcast_ref() {
                Some(Error::SnapshotNotFound { .. }) => Ok(()),
                _ => Err(error),
            },
        };
        if !ctx.capabilities.remove_parent {
            return Err(not_applicable("remove_parent is not declared"));
        }
        tokio::try_join!(fork(), fork(), ctx.remove(&id), fork(), ctx.remove(&id))?;
    }
    Ok(())
}
