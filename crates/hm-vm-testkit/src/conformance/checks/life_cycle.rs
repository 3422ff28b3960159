//! Life of a VM, and of a snapshot's id. Runs on the fake as well.

use anyhow::{Result, ensure};
use hm_vm_core::{Error, NullSink, SnapshotId, SnapshotLabel, VmConfig};

use super::errors::expect_error;
use crate::conformance::context::Context;

/// B1: an image that does not exist.
pub(crate) async fn unknown_image_is_refused(ctx: &Context<'_>) -> Result<()> {
    for image in ["hmvm-no-such-image:0", "", "../..", "no such\nimage"] {
        let result = ctx.backend.create(image, &ctx.config()).await;
        expect_error(result, &format!("create of {image:?}"), |error| {
            matches!(
                error,
                Error::ImageNotFound { .. } | Error::InvalidInput { .. }
            ) && (!image.starts_with("hmvm") || matches!(error, Error::ImageNotFound { .. }))
        })?;
    }
    Ok(())
}

/// B1: a snapshot that does not exist, or not any more.
pub(crate) async fn unknown_snapshot_is_refused(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    ctx.remove(&id).await?;
    for id in [id, SnapshotId::new("hmvm-no-such-snapshot")] {
        let result = ctx.backend.restore(&id, &ctx.config()).await;
        expect_error(
            result,
            &format!("restore of {id}"),
            |error| matches!(error, Error::SnapshotNotFound { snapshot } if *snapshot == id),
        )?;
    }
    Ok(())
}

/// B1, B3, B4: ids of any form that no snapshot has.
pub(crate) async fn malformed_ids_are_absent(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let real = vm.snapshot().await?;
    vm.destroy().await?;
    let long = "x".repeat(100_000);
    let path = format!("../{real}");
    let padded = format!("{real} ");
    let cut = real
        .chars()
        .take(real.chars().count() - 1)
        .collect::<String>();
    let ids = [
        "",
        ".",
        "..",
        "/",
        "../x",
        "../../etc",
        "a/../../b",
        "0",
        "-1",
        "latest",
        "a\nb",
        "a\0b",
        "*",
        "%",
        "' OR 1=1 --",
        "ünï©ode 🦀",
        "sha256:",
        &long,
        &path,
        &padded,
        &cut,
    ];
    for id in ids {
        let shown: String = id.chars().take(40).collect();
        let id = SnapshotId::new(id);
        let exists = ctx.backend.snapshot_exists(&id).await;
        ensure!(
            matches!(exists, Ok(false)),
            "B3: snapshot_exists of {shown:?} is {exists:?}, not false"
        );
        let removed = ctx.backend.remove_snapshot(&id).await;
        ensure!(
            removed.is_ok(),
            "B4: remove_snapshot of {shown:?}: {removed:?}"
        );
        let restored = ctx.backend.restore(&id, &ctx.config()).await;
        expect_error(restored, &format!("restore of {shown:?}"), |error| {
            matches!(error, Error::SnapshotNotFound { .. })
        })?;
    }
    let exists = ctx.backend.snapshot_exists(&real).await?;
    ensure!(exists, "B4: removing other ids removed {real}");
    Ok(())
}

/// B3, B4: `snapshot_exists` follows a snapshot through its life.
pub(crate) async fn snapshot_exists_follows_its_life(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let id = vm.snapshot().await?;
    let exists = ctx.backend.snapshot_exists(&id).await?;
    ensure!(exists, "B3: a snapshot that was just taken does not exist");
    vm.destroy().await?;
    let exists = ctx.backend.snapshot_exists(&id).await?;
    ensure!(
        exists,
        "B3: a snapshot is gone with the VM that it was taken of"
    );
    ctx.restore(&id).await?.destroy().await?;
    for _ in 0..2 {
        ctx.remove(&id).await?;
        let exists = ctx.backend.snapshot_exists(&id).await?;
        ensure!(!exists, "B3: a removed snapshot still exists");
    }
    Ok(())
}

/// V7: files stay between commands.
pub(crate) async fn files_stay_between_commands(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /kept/deep; echo one > /kept/deep/file; echo two >> /kept/deep/file")
        .await?;
    vm.expect("cat /kept/deep/file", "one\ntwo").await?;
    vm.sh("mv /kept/deep /kept/moved; chmod 600 /kept/moved/file")
        .await?;
    vm.expect(
        "stat -c %a /kept/moved/file; cat /kept/moved/file",
        "600\none\ntwo",
    )
    .await?;
    vm.sh("rm -r /kept").await?;
    vm.sh("test ! -e /kept").await?;
    vm.destroy().await
}

/// B2: VMs of one image do not see each other.
pub(crate) async fn vms_do_not_see_each_other(ctx: &Context<'_>) -> Result<()> {
    let mut one = ctx.create().await?;
    let mut two = ctx.create().await?;
    one.sh("echo one > /mine; echo one > /tmp/mine").await?;
    two.sh("test ! -e /mine && test ! -e /tmp/mine").await?;
    two.sh("echo two > /mine").await?;
    one.expect("cat /mine", "one").await?;
    one.destroy().await?;
    two.expect("cat /mine", "two").await?;
    let mut three = ctx.create().await?;
    three.sh("test ! -e /mine").await?;
    three.destroy().await?;
    two.destroy().await
}

/// V1: exit codes, all of them.
pub(crate) async fn exit_codes_come_back(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    for code in 0..=255 {
        let ran = vm.run(&format!("exit {code}")).await?;
        ensure!(
            ran.code == code,
            "V1: `exit {code}` came back as {}",
            ran.code
        );
    }
    for (cmd, code) in [
        ("true", 0),
        ("false", 1),
        ("hmvm-no-such-command", 127),
        ("", 0),
    ] {
        let ran = vm.run(cmd).await?;
        ensure!(ran.code == code, "V1: {cmd:?} came back as {}", ran.code);
    }
    vm.destroy().await
}

/// V12: `destroy` twice succeeds, and other calls fail after it.
pub(crate) async fn calls_after_destroy_fail(ctx: &Context<'_>) -> Result<()> {
    let mut guest = ctx.create().await?;
    guest.sh("echo x > /file").await?;
    let vm = &mut guest.vm;
    for _ in 0..2 {
        let destroyed = vm.destroy().await;
        ensure!(destroyed.is_ok(), "V12: destroy: {destroyed:?}");
    }
    let source = tempfile::tempdir()?;
    let exec = vm.exec("true", &[], "/", &NullSink).await.map(drop);
    let inject = vm.inject(source.path(), "/x").await;
    let snapshot = vm.snapshot(&SnapshotLabel::Ephemeral).await.map(drop);
    for (method, result) in [("exec", exec), ("inject", inject), ("snapshot", snapshot)] {
        ensure!(result.is_err(), "V12: {method} succeeds after destroy");
    }
    let destroyed = vm.destroy().await;
    ensure!(
        destroyed.is_ok(),
        "V12: destroy after failed calls: {destroyed:?}"
    );
    Ok(())
}

/// V12: a VM that is dropped, used or not, is freed. The end of the check finds leaks.
pub(crate) async fn dropped_vms_are_freed(ctx: &Context<'_>) -> Result<()> {
    drop(ctx.create().await?);
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /d; echo x > /d/file").await?;
    let id = vm.snapshot().await?;
    vm.sh("echo y > /d/file").await?;
    drop(vm);
    drop(ctx.restore(&id).await?);
    let mut vm = ctx.restore(&id).await?;
    vm.expect("cat /d/file", "x").await?;
    vm.destroy().await
}

/// V12: destroying VMs in any state and order frees everything. The end of the check finds leaks.
pub(crate) async fn destroyed_vms_are_freed(ctx: &Context<'_>) -> Result<()> {
    let mut vms = Vec::new();
    for number in 0..8 {
        let mut vm = ctx.create().await?;
        for _ in 0..number % 4 {
            vm.sh("echo x >> /file").await?;
        }
        vms.push(vm);
    }
    for index in [3, 0, 5, 2, 0, 1, 0, 0] {
        let vm = vms.remove(index % vms.len());
        vm.destroy().await?;
    }
    Ok(())
}

/// V9: labels are any string.
pub(crate) async fn labels_are_any_string(ctx: &Context<'_>) -> Result<()> {
    let long = "k".repeat(10_240);
    let labels = [
        "",
        "UPPER Case",
        "with spaces ",
        "ünï©ode 🦀",
        "/",
        "..",
        "../../etc/passwd",
        "a/b:c@d",
        "-flag",
        "new\nline",
        "nul\0byte",
        "sha256:00",
        "'quote\"",
        &long,
    ];
    let mut seen = std::collections::HashSet::new();
    let mut vm = ctx.create().await?;
    for (number, label) in labels.into_iter().enumerate() {
        let shown: String = label.chars().take(40).collect();
        vm.sh(&format!("echo {number} > /number")).await?;
        let label = SnapshotLabel::Cached(label.to_owned());
        // The same label twice: a label is no identity.
        for _ in 0..2 {
            let id = vm.snapshot_as(&label).await?;
            ensure!(
                seen.insert(id.clone()),
                "label {shown:?} gave a known id {id}"
            );
            let mut fork = ctx.restore(&id).await?;
            fork.expect("cat /number", &number.to_string()).await?;
            fork.destroy().await?;
        }
    }
    vm.destroy().await
}

/// B1: failures on the way leave nothing behind. The end of the check finds leaks.
pub(crate) async fn failures_leave_nothing_behind(ctx: &Context<'_>) -> Result<()> {
    let missing = std::path::Path::new("/hmvm/no/such/directory");
    for _ in 0..4 {
        let config = VmConfig::default();
        let none = SnapshotId::new("hmvm-no-such-snapshot");
        ensure!(
            ctx.backend.restore(&none, &config).await.is_err(),
            "restored nothing"
        );
        let none = "hmvm-no-such-image:0";
        ensure!(
            ctx.backend.create(none, &config).await.is_err(),
            "created nothing"
        );
        let mut vm = ctx.create().await?;
        ensure!(vm.inject(missing, "/x").await.is_err(), "injected nothing");
        ensure!(
            vm.run_at("true", &[], "/no/such/dir").await.is_err(),
            "ran nowhere"
        );
        vm.sh("true").await?;
        drop(vm);
    }
    Ok(())
}
