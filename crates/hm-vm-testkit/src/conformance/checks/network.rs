//! Network policies that are declared hold.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use hm_vm_core::{NetworkPolicy, VmConfig};

use crate::conformance::context::{Context, not_applicable};
use crate::conformance::guest::Guest;

async fn with_network(ctx: &Context<'_>, network: NetworkPolicy) -> Result<Guest> {
    if !ctx.capabilities.networks.contains(&network) {
        return Err(not_applicable("the policy is not declared, and is refused"));
    }
    let config = VmConfig {
        network,
        ..VmConfig::default()
    };
    ctx.create_with(&config).await
}

/// Names of the interfaces in the text of `/proc/net/dev`.
fn interfaces(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

/// B6: without network there is the loopback interface alone, it is up, and it is not the host's.
pub(crate) async fn no_network_is_loopback_only(ctx: &Context<'_>) -> Result<()> {
    let mut vm = with_network(ctx, NetworkPolicy::None).await?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    for _ in 0..2 {
        let found = interfaces(&vm.sh("cat /proc/net/dev").await?);
        ensure!(
            found.len() == 1 && found.contains("lo"),
            "B6: interfaces {found:?}"
        );
        let table = vm.sh("cat /proc/net/fib_trie").await?;
        ensure!(
            table.contains("127.0.0.1"),
            "B6: the loopback interface is down: {table}"
        );
        let routes = vm.sh("cat /proc/net/route | wc -l | tr -d ' '").await?;
        ensure!(
            routes.trim() == "1" || routes.trim() == "0",
            "B6: there are routes"
        );
        let sockets = vm.sh("cat /proc/net/unix").await?;
        ensure!(
            !sockets.contains('@'),
            "B6: abstract sockets of the host: {sockets}"
        );
        let listening = vm.sh("cat /proc/net/tcp").await?;
        let shown = format!("0100007F:{port:04X}");
        ensure!(
            !listening.contains(&shown),
            "B6: the host's loopback is the guest's"
        );
        let id = vm.snapshot().await?;
        vm.destroy().await?;
        vm = ctx.restore(&id).await?;
    }
    vm.destroy().await
}

/// B6: the host's network is the host's own.
pub(crate) async fn host_network_is_the_hosts(ctx: &Context<'_>) -> Result<()> {
    let mut vm = with_network(ctx, NetworkPolicy::Host).await?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let here = interfaces(&std::fs::read_to_string("/proc/net/dev")?);
    let there = interfaces(&vm.sh("cat /proc/net/dev").await?);
    // Interfaces of other tests may come and go.
    let common: Vec<&String> = here.intersection(&there).collect();
    ensure!(
        common.iter().any(|name| *name == "lo"),
        "B6: {there:?}, not {here:?}"
    );
    let listening = vm.sh("cat /proc/net/tcp").await?;
    let shown = format!("0100007F:{port:04X}");
    ensure!(
        listening.contains(&shown),
        "B6: the host's sockets are not there: {listening}"
    );
    vm.destroy().await
}

/// B6: with the outside there is an interface beside loopback, a route, and still not the host's
/// loopback.
pub(crate) async fn outbound_network_is_another(ctx: &Context<'_>) -> Result<()> {
    let mut vm = with_network(ctx, NetworkPolicy::Outbound).await?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    for _ in 0..2 {
        let found = interfaces(&vm.sh("cat /proc/net/dev").await?);
        ensure!(
            found.contains("lo") && found.len() >= 2,
            "B6: interfaces {found:?}"
        );
        vm.sh("cat /etc/resolv.conf > /dev/null").await?;
        let listening = vm.sh("cat /proc/net/tcp").await?;
        let shown = format!("0100007F:{port:04X}");
        ensure!(
            !listening.contains(&shown),
            "B6: the host's loopback is the guest's"
        );
        let sockets = vm.sh("cat /proc/net/unix").await?;
        ensure!(
            !sockets.contains('@'),
            "B6: abstract sockets of the host: {sockets}"
        );
    }
    vm.destroy().await
}

/// V9: files that a backend provides for name resolution do not enter the snapshot.
pub(crate) async fn provided_files_stay_out_of_snapshots(ctx: &Context<'_>) -> Result<()> {
    let mut vm = ctx.create().await?;
    let hosts = vm.run("cat /etc/hosts").await?;
    if hosts.code == 0 && !hosts.out.is_empty() {
        let text = hosts.out.join("\n");
        ensure!(
            text.contains("127.0.0.1"),
            "the guest's /etc/hosts has no loopback: {text}"
        );
    }
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&id).await?;
    let again = fork.run("cat /etc/hosts").await?;
    ensure!(
        again.code == hosts.code,
        "V9: /etc/hosts comes or goes with a snapshot"
    );
    fork.destroy().await
}
