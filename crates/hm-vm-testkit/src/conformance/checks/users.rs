//! Who runs a command.

use anyhow::{Result, ensure};
use hm_vm_core::{Cancellation, Error, ExecRequest};

use super::errors::{expect_error, expect_invalid};
use crate::conformance::context::{Context, not_applicable};
use crate::conformance::guest::Guest;

fn need_users(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.users {
        Ok(())
    } else {
        Err(not_applicable("users is not declared, and is refused"))
    }
}

/// B6, V14: where users are not declared, none is accepted, and nothing runs.
pub(crate) async fn undeclared_users_are_refused(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.users {
        return Err(not_applicable("users is declared"));
    }
    let mut vm = ctx.create().await?;
    let stop = Cancellation::new();
    let request = ExecRequest {
        user: Some("root"),
        ..ExecRequest::new("echo x > /ran", &stop)
    };
    expect_error(vm.ask(&request).await, "V14: an undeclared user", |error| {
        matches!(error, Error::Unsupported { .. })
    })?;
    vm.expect_nothing_ran().await?;
    vm.destroy().await
}

/// V14: a user that the guest does not have, or that makes no sense, is told apart before anything runs.
pub(crate) async fn unknown_users_are_refused(ctx: &Context<'_>) -> Result<()> {
    need_users(ctx)?;
    let mut vm = ctx.create().await?;
    for user in [
        "hmvm-no-such-user",
        "0:hmvm-no-such-group",
        "",
        ":",
        ":0",
        "0:",
        "-1",
        "4294967295",
        "4294967296",
        "root\n",
    ] {
        let stop = Cancellation::new();
        let request = ExecRequest {
            user: Some(user),
            ..ExecRequest::new("echo x > /ran", &stop)
        };
        expect_invalid(vm.ask(&request).await, &format!("V14: the user {user:?}"))?;
    }
    vm.expect_nothing_ran().await?;
    vm.destroy().await
}

/// V14: a command runs as its user: ids, groups, environment, rights, and what it writes. The VM's other commands
/// go on as root.
pub(crate) async fn commands_run_as_their_user(ctx: &Context<'_>) -> Result<()> {
    need_users(ctx)?;
    let mut vm = ctx.create().await?;
    let stop = Cancellation::new();
    let request = |cmd, user| ExecRequest {
        user: Some(user),
        ..ExecRequest::new(cmd, &stop)
    };
    let root = vm.ask_for(&request("id -u; id -g", "0:0")).await?;
    ensure!(root == "0\n0", "V14: 0:0 is {root:?}");
    if !ctx.capabilities.many_user_ids {
        expect_invalid(
            vm.ask(&request("echo x > /ran", "1000")).await,
            "V14: a user id that does not exist inside",
        )?;
        vm.expect_nothing_ran().await?;
        return vm.destroy().await;
    }
    several_users(&mut vm).await?;
    // Files belong to their user in the snapshot too, and other commands are root's.
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&id).await?;
    fork.expect("id -u; stat -c %u:%g /srv/home/file", "0\n4321:4322")
        .await?;
    fork.destroy().await
}

/// Where several users exist.
async fn several_users(vm: &mut Guest) -> Result<()> {
    let stop = Cancellation::new();
    let request = |cmd, user| ExecRequest {
        user: Some(user),
        ..ExecRequest::new(cmd, &stop)
    };
    // The account is the guest's own, made by a command of it. Some guests show the host's files, which do not
    // change.
    vm.sh("mkdir -p /srv/home /srv/closed; chown 4321:4322 /srv/home; chmod 700 /srv/closed")
        .await?;
    let account = "echo 'hmvmtest:x:4321:4322::/srv/home:/bin/sh' >> /etc/passwd && \
        echo 'hmvmgroup:x:4400:hmvmtest' >> /etc/group";
    let has_account = vm.run(account).await?.code == 0;
    for (user, ids, needs_account) in [
        ("hmvmtest", "4321 4322 4322 4400", true),
        ("4321", "4321 4322 4322 4400", true),
        ("hmvmtest:hmvmgroup", "4321 4400 4400", true),
        ("hmvmtest:4500", "4321 4500 4500", true),
        ("5000:5001", "5000 5001 5001", false),
        ("5000", "5000 0 0", false),
    ] {
        if needs_account && !has_account {
            continue;
        }
        let cmd = "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)";
        let got = vm.ask_for(&request(cmd, user)).await?;
        ensure!(got == ids, "V14: {user:?} has ids {got:?}, not {ids:?}");
    }
    let (user, home) = match has_account {
        true => ("hmvmtest", "/srv/home hmvmtest"),
        false => ("4321:4322", "/ 4321"),
    };
    let cmd = "echo $HOME $USER; ! touch /srv/closed/file 2>/dev/null && ! test -r /etc/shadow && \
        echo mine > /srv/home/file && grep -E '^Cap(Eff|Prm|Amb):' /proc/self/status | tr -d '\\n0 \\t'";
    let got = vm.ask_for(&request(cmd, user)).await?;
    ensure!(
        got == format!("{home}\nCapPrm:CapEff:CapAmb:"),
        "V14: {got:?}"
    );
    let env = [("HOME".to_owned(), "/declared".to_owned())];
    let declared = ExecRequest {
        env: &env,
        ..request("echo $HOME", user)
    };
    let got = vm.ask_for(&declared).await?;
    ensure!(got == "/declared", "V14: the declared HOME became {got:?}");
    Ok(())
}
