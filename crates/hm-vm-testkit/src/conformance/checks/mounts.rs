//! Caches and secrets.

use anyhow::{Result, ensure};
use hm_vm_core::{Cancellation, Error, ExecRequest, Mount, Secret, Terminal, TerminalSize};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::errors::{expect_error, expect_invalid};
use crate::conformance::context::{Context, not_applicable};
use crate::conformance::guest::Guest;
use crate::conformance::host::marker;

fn cache(name: &str, target: &str) -> Mount {
    Mount::Cache {
        name: name.into(),
        target: target.into(),
    }
}

fn secret(target: &str, content: &str) -> Mount {
    Mount::Secret {
        target: target.into(),
        content: Secret::new(content.into()),
    }
}

/// Runs a command that must succeed, with these mounts.
async fn with(vm: &mut Guest, cmd: &str, mounts: &[Mount]) -> Result<String> {
    let stop = Cancellation::new();
    let request = ExecRequest {
        mounts,
        ..ExecRequest::new(cmd, &stop)
    };
    vm.ask_for(&request).await
}

/// B6, V15, V16: mounts that are not declared are refused, and nothing runs.
pub(crate) async fn undeclared_mounts_are_refused(ctx: &Context<'_>) -> Result<()> {
    let declared = &ctx.capabilities;
    if declared.cache_mounts && declared.secret_mounts {
        return Err(not_applicable(
            "cache_mounts and secret_mounts are declared",
        ));
    }
    let mut vm = ctx.create().await?;
    for (is_declared, rule, mount) in [
        (declared.cache_mounts, "V15", cache("hmvm-test", "/cache")),
        (declared.secret_mounts, "V16", secret("/secret", "x")),
    ] {
        if is_declared {
            continue;
        }
        let stop = Cancellation::new();
        let request = ExecRequest {
            mounts: &[mount],
            ..ExecRequest::new("echo x > /ran", &stop)
        };
        let doing = format!("{rule}: an undeclared mount");
        expect_error(vm.ask(&request).await, &doing, |error| {
            matches!(error, Error::Unsupported { .. })
        })?;
    }
    vm.expect_nothing_ran().await?;
    vm.destroy().await
}

/// V15, V16: targets that cannot be are told apart before anything runs.
pub(crate) async fn places_that_cannot_be_are_refused(ctx: &Context<'_>) -> Result<()> {
    type Make = fn(&str) -> Mount;
    let mut kinds: Vec<(&str, Make)> = Vec::new();
    if ctx.capabilities.cache_mounts {
        kinds.push(("V15", |target| cache("hmvm-test", target)));
    }
    if ctx.capabilities.secret_mounts {
        kinds.push(("V16", |target| secret(target, "x")));
    }
    if kinds.is_empty() {
        return Err(not_applicable(
            "no mounts are declared, and all are refused",
        ));
    }
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /data; echo x > /data/file").await?;
    for (rule, make) in kinds {
        for targets in [
            &["relative"][..],
            &[""],
            &["/"],
            &["/proc/x"],
            &["/dev"],
            &["/sys"],
            &["/data/../x"],
            &["/data/file/below"],
            &["/data/one", "/data/one"],
        ] {
            let mounts: Vec<Mount> = targets.iter().map(|target| make(target)).collect();
            let stop = Cancellation::new();
            let request = ExecRequest {
                mounts: &mounts,
                ..ExecRequest::new("echo x > /ran", &stop)
            };
            let doing = format!("{rule}: mounting at {targets:?}");
            expect_invalid(vm.ask(&request).await, &doing)?;
        }
    }
    vm.expect_nothing_ran().await?;
    vm.destroy().await
}

/// V15: what one VM writes to a cache, another one finds under its name, while and after the first lives, and
/// no snapshot has it. Other names are other caches.
pub(crate) async fn caches_outlive_their_vm(ctx: &Context<'_>) -> Result<()> {
    if !ctx.capabilities.cache_mounts {
        return Err(not_applicable(
            "cache_mounts is not declared, and is refused",
        ));
    }
    let (name, other) = (marker(), marker());
    let mut vm = ctx.create().await?;
    // In a directory that is not there, and over one that has something in it.
    vm.sh("mkdir -p /data; echo below > /data/below").await?;
    let mounts = [cache(&name, "/data"), cache(&other, "/new/place/cache")];
    let cmd = "! test -e /data/below && echo one > /data/file && mkdir /data/dir && \
        ln -s file /data/link && echo two > /new/place/cache/file";
    with(&mut vm, cmd, &mounts).await?;
    vm.expect("ls -A /data", "below").await?;
    let id = vm.snapshot().await?;
    let mut fork = ctx.restore(&id).await?;
    fork.expect("cat /data/below; ls -A /new/place/cache", "below")
        .await?;
    let mounts = [cache(&name, "/elsewhere"), cache(&other, "/data")];
    let got = with(&mut fork, "cat /elsewhere/link /data/file", &mounts).await?;
    ensure!(got == "one\ntwo", "V15: the caches have {got:?}");
    vm.destroy().await?;
    // Two at once see the same files.
    let mut second = ctx.create().await?;
    let mounts = [cache(&name, "/cache")];
    let (wrote, read) = tokio::join!(
        with(
            &mut fork,
            "echo ready > /cache/other; until test -e /cache/seen; do :; done",
            &mounts
        ),
        with(
            &mut second,
            "until test -s /cache/other; do :; done; cat /cache/other; echo > /cache/seen",
            &mounts
        ),
    );
    wrote?;
    let read = read?;
    ensure!(read == "ready", "V15: the other VM reads {read:?}");
    second.destroy().await?;
    fork.destroy().await
}

/// V16: secrets are there for the command that has them, by the bytes, not for writing, and in no snapshot.
pub(crate) async fn secrets_are_readable_and_not_kept(ctx: &Context<'_>) -> Result<()> {
    need_secrets(ctx)?;
    let value = marker();
    let mut vm = ctx.create().await?;
    vm.sh("mkdir -p /srv; echo old > /srv/file").await?;
    let odd = "\0\n'\"$ \u{e4}";
    let mounts = [
        secret("/run/secrets/one", &value),
        secret("/run/secrets/two", odd),
        secret("/run/secrets/empty", ""),
    ];
    let cmd = "cat /run/secrets/one; ls /run/secrets; wc -c < /run/secrets/two | tr -d ' '; \
        test -f /run/secrets/empty; ! test -s /run/secrets/empty; stat -c %a /run/secrets/one; \
        (echo x > /run/secrets/one) 2>/dev/null; env | grep -c 'hmvm[-]marker'; \
        tr '\\0' '\\n' < /proc/1/cmdline | grep -c 'hmvm[-]marker'; cat /run/secrets/one";
    let got = vm_output(&mut vm, cmd, &mounts).await?;
    let expected = format!("{value}empty\none\ntwo\n{}\n400\n0\n0\n{value}", odd.len());
    ensure!(got == expected, "V16: {got:?}, not {expected:?}");
    // Whatever the command did to it, the next one has the secret.
    let got = vm_output(&mut vm, cmd, &mounts).await?;
    ensure!(got == expected, "V16: again: {got:?}, not {expected:?}");
    // At other places, also where something is.
    let mounts = [
        secret("/srv/file", &value),
        secret("/srv/x/y/token", &value),
    ];
    let got = with(&mut vm, "cat /srv/file /srv/x/y/token", &mounts).await?;
    ensure!(got == format!("{value}{value}"), "V16: {got:?}");
    vm.expect("cat /srv/file", "old").await?;
    if ctx.capabilities.terminal {
        let mounts = [secret("/run/secrets/one", &value)];
        let seen = on_a_terminal(&vm, "cat /run/secrets/one", &mounts).await?;
        ensure!(seen.contains(&value), "V16: on a terminal: {seen:?}");
    }
    let id = vm.snapshot().await?;
    vm.destroy().await?;
    let mut fork = ctx.restore(&id).await?;
    let search = format!(
        "grep -r {value} /run /srv /etc /root /tmp /var; ! test -s /run/secrets/one && \
         ! test -s /srv/x/y/token"
    );
    let ran = fork.run(&search).await?;
    ensure!(
        ran.code == 0 && ran.out.is_empty(),
        "V16: the snapshot has the secret: {ran:?}"
    );
    fork.destroy().await
}

/// V14, V16: a secret is readable for the command's user, and for nobody else.
pub(crate) async fn secrets_belong_to_the_commands_user(ctx: &Context<'_>) -> Result<()> {
    need_secrets(ctx)?;
    if !ctx.capabilities.users || !ctx.capabilities.many_user_ids {
        return Err(not_applicable("there is one user only"));
    }
    let mut vm = ctx.create().await?;
    for target in ["/run/secrets/token", "/srv/token"] {
        let mounts = [secret(target, "value")];
        let stop = Cancellation::new();
        let cmd = format!("cat {target}; stat -c ' %a %u:%g' {target}");
        let request = ExecRequest {
            user: Some("4321:4322"),
            mounts: &mounts,
            ..ExecRequest::new(&cmd, &stop)
        };
        let got = vm.ask_for(&request).await?;
        ensure!(got == "value 400 4321:4322", "V16: {target}: {got:?}");
    }
    vm.destroy().await
}

fn need_secrets(ctx: &Context<'_>) -> Result<()> {
    if ctx.capabilities.secret_mounts {
        Ok(())
    } else {
        Err(not_applicable(
            "secret_mounts is not declared, and is refused",
        ))
    }
}

/// Standard output of a command, whatever its exit code.
async fn vm_output(vm: &mut Guest, cmd: &str, mounts: &[Mount]) -> Result<String> {
    let stop = Cancellation::new();
    let request = ExecRequest {
        mounts,
        ..ExecRequest::new(cmd, &stop)
    };
    Ok(vm.ask(&request).await?.out.join("\n"))
}

/// What a command shows on a terminal.
async fn on_a_terminal(vm: &Guest, cmd: &str, mounts: &[Mount]) -> Result<String> {
    let (output, mut screen) = tokio::io::duplex(4096);
    // Its end would end the session.
    let (_keyboard, input) = tokio::io::duplex(64);
    let (_size, size) = watch::channel(TerminalSize::default());
    let terminal = Terminal {
        input: Box::pin(input),
        output: Box::pin(output),
        size,
    };
    let stop = Cancellation::new();
    let request = ExecRequest {
        mounts,
        ..ExecRequest::new(cmd, &stop)
    };
    let mut seen = String::new();
    let session = vm.vm.terminal(&request, terminal);
    let (ended, read) = tokio::join!(session, screen.read_to_string(&mut seen));
    ended?;
    read?;
    Ok(seen)
}
