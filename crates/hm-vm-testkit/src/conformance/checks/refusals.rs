//! What a backend declares, and what it must refuse. Runs on the fake as well.

use anyhow::{Result, ensure};
use hm_vm_core::{
    Cancellation, Error, ExecRequest, Limit, NetworkPolicy, Terminal, TerminalSize, VmConfig,
};
use tokio::sync::watch;

use super::errors::{expect_error, expect_invalid};
use crate::conformance::context::{Context, not_applicable};

/// A small configuration with just this limit.
pub(crate) fn limited(ctx: &Context<'_>, limit: Limit, value: u32) -> VmConfig {
    let mut config = ctx.config();
    match limit {
        Limit::Cpus => config.cpus = Some(value),
        Limit::Memory => config.memory_mib = Some(u64::from(value)),
        Limit::Disk => config.disk_size_gb = Some(u64::from(value)),
        _ => config.pids = Some(value),
    }
    config
}

/// B6: the declaration is the same each time, and without repetition.
pub(crate) async fn capabilities_are_consistent(ctx: &Context<'_>) -> Result<()> {
    let declared = &ctx.capabilities;
    ensure!(
        *declared == ctx.backend.capabilities(),
        "B6: capabilities change"
    );
    let limits = &declared.limits;
    for (index, limit) in limits.iter().enumerate() {
        ensure!(
            !limits[..index].contains(limit),
            "B6: {limit:?} is declared twice"
        );
    }
    let networks = &declared.networks;
    ensure!(
        !networks.is_empty(),
        "B6: no network policy is declared, so no VM can be made"
    );
    for (index, policy) in networks.iter().enumerate() {
        ensure!(
            !networks[..index].contains(policy),
            "B6: {policy:?} is declared twice"
        );
    }
    ensure!(!ctx.backend.name().is_empty(), "the backend has no name");
    Ok(())
}

/// B6: limits that are not declared are refused, by `create` and by `restore`.
pub(crate) async fn undeclared_limits_are_refused(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    for limit in Limit::ALL {
        if ctx.capabilities.limits.contains(&limit) {
            continue;
        }
        let config = limited(ctx, limit, 64);
        let fits = |error: &Error| matches!(error, Error::LimitNotEnforceable { limit: named, .. } if *named == limit);
        let doing = format!("B6: create with an undeclared {} limit", limit.name());
        expect_error(ctx.create_with(&config).await, &doing, fits)?;
        let doing = format!("B6: restore with an undeclared {} limit", limit.name());
        expect_error(ctx.restore_with(&id, &config).await, &doing, fits)?;
    }
    Ok(())
}

/// B6: declared limits are accepted, each alone and all together.
pub(crate) async fn declared_limits_are_accepted(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.limits.is_empty() {
        return Err(not_applicable("no limit is declared"));
    }
    let mut all = ctx.config();
    for &limit in &ctx.capabilities.limits {
        let value = if limit == Limit::Memory { 256 } else { 64 };
        let config = limited(ctx, limit, value);
        all.cpus = all.cpus.or(config.cpus);
        all.memory_mib = all.memory_mib.or(config.memory_mib);
        all.disk_size_gb = all.disk_size_gb.or(config.disk_size_gb);
        all.pids = all.pids.or(config.pids);
        let mut vm = ctx.create_with(&config).await?;
        vm.expect("echo ok", "ok").await?;
        vm.destroy().await?;
    }
    let mut vm = ctx.create_with(&all).await?;
    vm.expect("echo ok > /file; cat /file", "ok").await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut vm = ctx.restore_with(&id, &all).await?;
    vm.expect("cat /file", "ok").await?;
    vm.destroy().await
}

/// B6: network policies that are not declared are refused, declared ones accepted.
pub(crate) async fn undeclared_networks_are_refused(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    for network in NetworkPolicy::ALL {
        let config = VmConfig {
            network,
            ..VmConfig::default()
        };
        if ctx.capabilities.networks.contains(&network) {
            let mut vm = ctx.create_with(&config).await?;
            vm.expect("echo ok", "ok").await?;
            vm.destroy().await?;
            continue;
        }
        let unsupported = |error: &Error| matches!(error, Error::Unsupported { .. });
        let doing = format!("B6: create with undeclared network {network}");
        expect_error(ctx.create_with(&config).await, &doing, unsupported)?;
        let doing = format!("B6: restore with undeclared network {network}");
        expect_error(ctx.restore_with(&id, &config).await, &doing, unsupported)?;
    }
    Ok(())
}

/// B6: a terminal that is not declared is refused.
pub(crate) async fn undeclared_terminal_is_refused(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.terminal {
        return Err(not_applicable("a terminal is declared"));
    }
    let guest = ctx.create().await?;
    let (_size, size) = watch::channel(TerminalSize::default());
    let terminal = Terminal {
        input: Box::pin(tokio::io::empty()),
        output: Box::pin(tokio::io::sink()),
        size,
    };
    let stop = Cancellation::new();
    let request = ExecRequest {
        env: &[],
        working_dir: "/",
        grace: std::time::Duration::ZERO,
        ..ExecRequest::new("true", &stop)
    };
    let result = guest.vm.terminal(&request, terminal).await;
    expect_error(result, "B6: an undeclared terminal", |error| {
        matches!(error, Error::Unsupported { .. })
    })?;
    guest.destroy().await
}

/// B1: digests of images are stable, and an unknown image has none.
pub(crate) async fn image_digests_are_stable(ctx: &Context<'_>) -> Result<()> {
    let image = ctx.harness.image();
    let mut seen = Vec::new();
    // An image may be a view of this machine, which somebody just changed.
    while seen.len() < 4 && !seen.windows(2).any(|pair| pair[0] == pair[1]) {
        let Some(digest) = ctx.backend.image_digest(image).await? else {
            return Err(not_applicable("the backend tells no image digests"));
        };
        seen.push(digest);
        let mut vm = ctx.create().await?;
        vm.sh("echo x > /changed").await?;
        vm.destroy().await?;
    }
    ensure!(
        seen.windows(2).any(|pair| pair[0] == pair[1]),
        "the digest is another one each time: {seen:?}"
    );
    let unknown = ctx.backend.image_digest("hmvm-no-such-image:0").await;
    expect_error(unknown, "B1: digest of an unknown image", |error| {
        matches!(error, Error::ImageNotFound { .. })
    })
}

/// V8: the digest of an inject follows the contents.
pub(crate) async fn inject_digests_follow_contents(ctx: &Context<'_>) -> Result<()> {
    let source = tempfile::tempdir()?;
    let file = source.path().join("file");
    std::fs::write(&file, "one")?;
    let backend = &ctx.backend;
    let digest = || async { backend.inject_digest(source.path()).await };
    let Some(one) = digest().await? else {
        return Err(not_applicable("the backend tells no inject digests"));
    };
    ensure!(
        digest().await?.as_ref() == Some(&one),
        "V8: the digest of the same tree changes"
    );
    std::fs::write(&file, "two")?;
    let two = digest().await?;
    ensure!(
        two.as_ref() != Some(&one),
        "V8: new contents have the old digest"
    );
    std::fs::create_dir(source.path().join("empty"))?;
    let three = digest().await?;
    ensure!(
        three != two,
        "V8: an empty directory does not enter the digest"
    );
    std::os::unix::fs::symlink("one", source.path().join("link"))?;
    let four = digest().await?;
    ensure!(four != three, "V8: a link does not enter the digest");
    expect_invalid(
        backend.inject_digest(&file).await,
        "V8: inject_digest of a file",
    )
}
