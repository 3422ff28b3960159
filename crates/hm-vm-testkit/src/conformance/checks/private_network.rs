//! Networks that several VMs share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hm_vm_core::{
    CancelCause, Cancellation, Error, ExecRequest, NetworkPolicy, PrivateNetwork,
    PrivateNetworkRequest,
};

use super::errors::{expect_error, expect_invalid};
use crate::conformance::context::{Context, not_applicable, skipped};
use crate::conformance::guest::{Guest, Lines};

type Network = Arc<dyn PrivateNetwork>;

fn asking(policy: NetworkPolicy, names: &[&str]) -> PrivateNetworkRequest {
    PrivateNetworkRequest {
        policy,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

async fn network(ctx: &Context<'_>, names: &[&str]) -> Result<Network> {
    if !ctx.capabilities.private_networks {
        return Err(not_applicable(
            "private_networks is not declared, and is refused",
        ));
    }
    let request = asking(NetworkPolicy::None, names);
    ctx.backend.private_network(&request).await
}

/// B6, V19: where private networks are not declared, there are none; the host's network cannot be one, and
/// a name cannot be anything.
pub(crate) async fn undeclared_private_networks_are_refused(ctx: &Context<'_>) -> Result<()> {
    let unsupported = |error: &Error| matches!(error, Error::Unsupported { .. });
    let make = |policy| async move {
        let request = asking(policy, &["db"]);
        ctx.backend.private_network(&request).await
    };
    let host = make(NetworkPolicy::Host).await;
    expect_error(host, "V19: sharing the host's network", unsupported)?;
    if ctx.capabilities.private_networks {
        let request = asking(NetworkPolicy::None, &["db\n10.0.0.1 other"]);
        let made = ctx.backend.private_network(&request).await;
        return expect_invalid(made, "V19: a name of two lines");
    }
    let none = make(NetworkPolicy::None).await;
    expect_error(none, "V19: an undeclared private network", unsupported)
}

/// Any port: the network has nothing else on it.
const PORT: u16 = 7777;

/// A server that says "hello" once for each connection, and a client that prints it: with what there
/// is in the guest.
struct Tools {
    server: String,
    client: String,
}

impl Tools {
    async fn find(vm: &mut Guest) -> Result<Self> {
        for (probe, server, client) in [
            (
                "nc -h 2>&1 | grep -q BusyBox",
                format!("while echo hello | nc -l -p {PORT}; do :; done"),
                format!("nc 127.0.0.1 {PORT} < /dev/null"),
            ),
            (
                "perl -MIO::Socket::INET -e 1",
                format!(
                    "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1\", \
                     LocalPort => {PORT}, Listen => 5) or die $!; while ($c = $s->accept) {{ print $c \"hello\\n\"; \
                     close $c }}'"
                ),
                format!(
                    "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(PeerAddr => \"127.0.0.1:{PORT}\") \
                     or exit 1; print <$s>'"
                ),
            ),
        ] {
            if vm.run(probe).await?.code == 0 {
                return Ok(Self { server, client });
            }
        }
        Err(skipped(
            "the guest has neither busybox's nc nor perl with IO::Socket",
        ))
    }
}

/// Asks until the answer is this one. The suite's patience ends it.
async fn until_accepts(network: &Network, wanted: bool) -> Result<()> {
    for _ in 0..1500 {
        if network.accepts(PORT).await? == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("V19: accepts does not become {wanted}")
}

fn on<'a>(network: &'a Network, cmd: &'a str, stop: &'a Cancellation) -> ExecRequest<'a> {
    ExecRequest {
        network: Some(network),
        grace: Duration::ZERO,
        ..ExecRequest::new(cmd, stop)
    }
}

/// V19: a command on a network reaches a server on it, by its names too; a VM that is not on it, or on another one,
/// does not. The VM's own network is as before afterwards.
pub(crate) async fn members_reach_each_other_alone(ctx: &Context<'_>) -> Result<()> {
    let shared = network(ctx, &["db", "my-cache"]).await?;
    let other = network(ctx, &[]).await?;
    let (server, mut client) = (ctx.create().await?, ctx.create().await?);
    let tools = Tools::find(&mut client).await?;
    ensure!(!shared.accepts(PORT).await?, "V19: nobody listens yet");
    let (stop, never) = (Cancellation::new(), Cancellation::new());
    let lines = Lines::default();
    let serving = on(&shared, &tools.server, &stop);
    let work = async {
        until_accepts(&shared, true).await?;
        ensure!(
            !other.accepts(PORT).await?,
            "V19: the other network accepts"
        );
        let got = client.ask_for(&on(&shared, &tools.client, &never)).await?;
        ensure!(got == "hello", "V19: the server says {got:?}");
        for name in ["db", "my-cache"] {
            let cmd = format!("grep -E '^127[.]0[.]0[.]1[[:space:]].*{name}$' /etc/hosts");
            client.ask_for(&on(&shared, &cmd, &never)).await?;
        }
        until_accepts(&shared, true).await?;
        let outside = client.run(&tools.client).await?;
        ensure!(
            outside.out.is_empty(),
            "V19: reached from outside: {outside:?}"
        );
        let outside = client.ask(&on(&other, &tools.client, &never)).await?;
        ensure!(
            outside.out.is_empty(),
            "V19: reached from another network: {outside:?}"
        );
        client.sh("! grep -q my-cache /etc/hosts").await?;
        stop.cancel(CancelCause::User);
        anyhow::Ok(())
    };
    // A failure of the work must end the server too.
    let work = async {
        let result = work.await;
        stop.cancel(CancelCause::User);
        result
    };
    let (served, worked) = tokio::join!(server.vm.exec_with(&serving, &lines), work);
    worked?;
    expect_error(served, "V19: the stopped server", |error| {
        matches!(error, Error::Cancelled { .. })
    })?;
    until_accepts(&shared, false).await?;
    let id = client.snapshot().await?;
    let mut fork = ctx.restore(&id).await?;
    fork.sh("! grep -q my-cache /etc/hosts").await?;
    for vm in [server, client, fork] {
        vm.destroy().await?;
    }
    Ok(())
}

/// B7, V19: a network leaves nothing behind, be it used, unused, or dropped while it is made.
pub(crate) async fn networks_leave_nothing_behind(ctx: &Context<'_>) -> Result<()> {
    let shared = network(ctx, &[]).await?;
    let mut vm = ctx.create().await?;
    let stop = Cancellation::new();
    vm.ask_for(&on(&shared, "echo x > /file", &stop)).await?;
    drop(shared);
    vm.expect("cat /file", "x").await?;
    for policy in [NetworkPolicy::None, NetworkPolicy::Outbound] {
        if !ctx.capabilities.networks.contains(&policy) {
            continue;
        }
        let request = asking(policy, &["a"]);
        drop(ctx.backend.private_network(&request).await?);
        // Polled once, then dropped.
        let making = ctx.backend.private_network(&request);
        drop(tokio::time::timeout(Duration::ZERO, making).await);
    }
    vm.destroy().await
}
