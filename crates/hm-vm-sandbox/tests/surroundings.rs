//! Users, caches, secrets and shared networks: what the conformance suite cannot reach.
#![expect(
    clippy::expect_used,
    reason = "a backend that cannot be built is a failed test"
)]

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use hm_vm_core::{
    Cancellation, Error, ExecRequest, Limit, Mount, NetworkPolicy, OutputSink, PrivateNetwork,
    PrivateNetworkRequest, Protection, Secret, SnapshotLabel, Terminal, TerminalSize, Vm,
    VmBackend, VmConfig,
};
use hm_vm_testkit::skip::Skip;
use tokio::io::AsyncReadExt;

use support::{Lines, Machine};

impl Machine {
    /// The test's own directory, which the store lies in.
    fn root(&self) -> &Path {
        let store = self.backend.store().root();
        store.parent().expect("a directory")
    }

    async fn vm(&self) -> Box<dyn Vm> {
        self.vm_with(&VmConfig::default()).await
    }

    async fn vm_with(&self, config: &VmConfig) -> Box<dyn Vm> {
        self.backend.create("busybox", config).await.expect("a VM")
    }

    fn has_many_users(&self) -> bool {
        self.backend.capabilities().many_user_ids
    }
}

macro_rules! machine {
    () => {
        match Machine::new() {
            Ok(machine) => machine,
            Err(skip) => return skip.report(),
        }
    };
}

/// Exit code and output.
async fn try_run(
    vm: &dyn Vm,
    cmd: &str,
    user: Option<&str>,
    network: Option<&Arc<dyn PrivateNetwork>>,
) -> anyhow::Result<(i32, String)> {
    let stop = Cancellation::new();
    let request = ExecRequest {
        user,
        network,
        ..ExecRequest::new(cmd, &stop)
    };
    let lines = Lines::default();
    let outcome = vm.exec_with(&request, &lines).await?;
    let lines = lines.0.into_inner().expect("not poisoned");
    Ok((outcome.exit_code, lines.join("\n")))
}

/// Output of a command that must succeed.
async fn run(vm: &dyn Vm, cmd: &str) -> String {
    let (code, out) = try_run(vm, cmd, None, None).await.expect("runs");
    assert_eq!(code, 0, "{cmd}: {out}");
    out
}

async fn run_mounted(vm: &dyn Vm, cmd: &str, user: Option<&str>, mounts: &[Mount]) -> String {
    let stop = Cancellation::new();
    let request = ExecRequest {
        user,
        mounts,
        ..ExecRequest::new(cmd, &stop)
    };
    let lines = Lines::default();
    let outcome = vm.exec_with(&request, &lines).await.expect("runs");
    let out = lines.0.into_inner().expect("not poisoned").join("\n");
    assert_eq!(outcome.exit_code, 0, "{cmd}: {out}");
    out
}

fn is_invalid(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::InvalidInput { .. }))
}

fn secret(target: &str, content: &str) -> Mount {
    Mount::Secret {
        target: target.into(),
        content: Secret::new(content.into()),
    }
}

fn cache(name: &str, target: &str) -> Mount {
    Mount::Cache {
        name: name.into(),
        target: target.into(),
    }
}

const ADD_USER: &str = "echo 'app:x:1000:1001:An app:/home/app:/bin/sh' >> /etc/passwd; \
    echo 'tools:x:2000:x,app' >> /etc/group; mkdir -p /home/app; chown 1000:1001 /home/app";

#[tokio::test]
async fn a_user_is_the_guests_own_and_has_no_rights() {
    let machine = machine!();
    let mut vm = machine.vm().await;
    if !machine.has_many_users() {
        let found = try_run(&*vm, "true", Some("nobody"), None).await;
        assert!(is_invalid(&found.expect_err("refused")));
        let found = try_run(&*vm, "id -u", Some("root:0"), None).await;
        assert_eq!(found.expect("runs"), (0, "0".into()));
        return;
    }
    assert_eq!(run(&*vm, "echo old > /dev/stdout").await, "old");
    run(&*vm, ADD_USER).await;
    let cmd = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; grep -E 'Cap(Eff|Prm|Inh|Amb)|NoNew|^Seccomp:' \
        /proc/self/status | tr -s '\\t\\n' '  '";
    let out = run_mounted(&*vm, cmd, Some("app"), &[]).await;
    assert_eq!(
        out,
        "1000\n1001\n1001 2000\n/home/app app app\nCapInh: 0000000000000000 CapPrm: 0000000000000000 \
         CapEff: 0000000000000000 CapAmb: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 "
    );
    // What it prints to can be opened anew, as with other containers.
    let out = run_mounted(
        &*vm,
        "echo new > /dev/stdout; (echo two > /dev/stderr) 2>&1",
        Some("app"),
        &[],
    );
    assert_eq!(out.await, "new\ntwo");
    let cmd = "touch /home/app/x && ! touch /root/y 2>/dev/null && ! cat /proc/1/environ 2>/dev/null && \
        { kill -9 1; true; } && stat -c %u:%g /home/app/x && touch /dev/shm/z";
    assert_eq!(run_mounted(&*vm, cmd, Some("app"), &[]).await, "1000:1001");
    // Declared variables win.
    let (_, out) = try_run(&*vm, "echo $HOME", Some("app"), None)
        .await
        .expect("runs");
    assert_eq!(out, "/home/app");
    let id = vm.snapshot(&SnapshotLabel::Ephemeral).await.expect("taken");
    let fork = machine
        .backend
        .restore(&id, &VmConfig::default())
        .await
        .expect("a fork");
    assert_eq!(
        run_mounted(&*fork, "id -u; cd; pwd", Some("1000"), &[]).await,
        "1000\n/home/app"
    );
}

#[tokio::test]
async fn a_users_file_that_leads_to_the_host_is_not_followed() {
    let machine = machine!();
    let vm = machine.vm().await;
    let host = machine.root().join("passwd");
    fs::write(&host, "spy:x:0:0::/:/bin/sh\n").expect("written");
    for trick in [
        format!("ln -sf {} /etc/passwd", host.display()),
        format!("ln -sf ../../../../../../..{} /etc/passwd", host.display()),
        "ln -sf /proc/self/root/etc/passwd /etc/passwd".into(),
        "rm /etc/passwd; mkfifo /etc/passwd".into(),
        "rm /etc/passwd; mkdir /etc/passwd".into(),
        "rmdir /etc/passwd; dd if=/dev/zero of=/etc/passwd bs=1M count=5 2>/dev/null".into(),
    ] {
        run(&*vm, &trick).await;
        let found = try_run(&*vm, "true", Some("spy"), None).await;
        assert!(is_invalid(&found.expect_err("refused")), "{trick}");
    }
}

#[tokio::test]
async fn signals_and_stops_reach_another_users_processes() {
    let machine = machine!();
    if !machine.has_many_users() {
        return Skip::new("needs several user ids").report();
    }
    let vm = machine.vm().await;
    let stop = Arc::new(Cancellation::new());
    let cmd = "trap 'echo bye; exit 3' TERM; (sleep 1000 & sleep 1000 & echo ready; wait)";
    struct StopWhenReady(Arc<Cancellation>, Lines);
    impl OutputSink for StopWhenReady {
        fn on_stdout(&self, line: &str) {
            self.1.on_stdout(line);
            if line == "ready" {
                self.0.cancel(hm_vm_core::CancelCause::User);
            }
        }
        fn on_stderr(&self, line: &str) {
            self.1.on_stdout(line);
        }
    }
    let sink = StopWhenReady(Arc::clone(&stop), Lines::default());
    let request = ExecRequest {
        user: Some("4242:77"),
        ..ExecRequest::new(cmd, &stop)
    };
    let error = vm.exec_with(&request, &sink).await.expect_err("stopped");
    assert!(matches!(
        error.downcast_ref(),
        Some(Error::Cancelled { .. })
    ));
    let lines = sink.1.0.into_inner().expect("not poisoned");
    assert!(lines.contains(&"bye".to_owned()), "{lines:?}");
    run(&*vm, "true").await;
}

/// Whether any file below a directory has these bytes in its content or name.
fn is_anywhere(directory: &Path, wanted: &[u8]) -> bool {
    let has = |bytes: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
    fs::read_dir(directory)
        .expect("readable")
        .flatten()
        .any(|entry| {
            let kind = entry.file_type().expect("a type");
            has(entry.file_name().as_bytes())
                || (kind.is_dir()
                    && fs::read_dir(entry.path()).is_ok()
                    && is_anywhere(&entry.path(), wanted))
                || (kind.is_file() && fs::read(entry.path()).is_ok_and(|content| has(&content)))
        })
}

#[tokio::test]
async fn a_secret_is_on_no_disk() {
    let machine = machine!();
    let mut vm = machine.vm().await;
    let value = "correct-horse-battery-staple";
    let mounts = [
        secret("/run/secrets/TOKEN", value),
        secret("/run/secrets/OTHER", "x"),
    ];
    let cmd = "cat /run/secrets/TOKEN; ls /run/secrets; stat -c '%a %u' /run/secrets/TOKEN; \
        ! touch /run/secrets/new 2>/dev/null; ! chmod 777 /run/secrets/TOKEN 2>/dev/null; \
        ! cp /bin/true /run/secrets/ 2>/dev/null";
    let out = run_mounted(&*vm, cmd, None, &mounts).await;
    assert_eq!(out, format!("{value}OTHER\nTOKEN\n400 0"));
    // Elsewhere, one by one; also at the place of a file and behind a link of the guest's.
    run(
        &*vm,
        "mkdir /real; ln -s /real /link; echo old > /real/there",
    )
    .await;
    let mounts = [
        secret("/link/there", value),
        secret("/root/.deep/er/token", value),
    ];
    let out = run_mounted(&*vm, "cat /real/there /root/.deep/er/token", None, &mounts).await;
    assert_eq!(out, format!("{value}{value}"));
    assert_eq!(
        run(
            &*vm,
            "cat /real/there; wc -c < /root/.deep/er/token; ls -A /run/secrets"
        )
        .await,
        "old\n0"
    );
    vm.snapshot(&SnapshotLabel::Ephemeral).await.expect("taken");
    machine.backend.store().flush().expect("an idle store");
    assert!(!is_anywhere(machine.root(), value.as_bytes()));
}

#[tokio::test]
async fn a_secret_is_for_the_commands_user() {
    let machine = machine!();
    if !machine.has_many_users() {
        return Skip::new("needs several user ids").report();
    }
    let vm = machine.vm().await;
    for target in ["/run/secrets/TOKEN", "/srv/token"] {
        let mounts = [secret(target, "value")];
        let cmd = format!("cat {target}; stat -c ' %a %u:%g' {target}");
        let out = run_mounted(&*vm, &cmd, Some("1000:7"), &mounts).await;
        assert_eq!(out, "value 400 1000:7");
    }
}

#[tokio::test]
async fn places_that_cannot_be_are_refused() {
    let machine = machine!();
    let vm = machine.vm().await;
    run(
        &*vm,
        "echo x > /file; ln -s /nowhere/at/all /dangling; ln -s /proc/self/cwd /magic",
    )
    .await;
    for mounts in [
        vec![cache("c", "/")],
        vec![cache("c", "//.//")],
        vec![cache("c", "/proc/x")],
        vec![cache("c", "/dev")],
        vec![cache("c", "/sys/fs")],
        vec![cache("c", "relative")],
        vec![cache("c", "/a/../../b")],
        vec![cache("c", "")],
        vec![cache("", "/x")],
        vec![cache("c", "/file")],
        vec![cache("c", "/file/below")],
        vec![cache("c", "/dangling")],
        vec![cache("c", "/magic")],
        vec![secret("/magic/x", "y")],
        vec![secret("/root", "y")],
        vec![secret("/dangling", "y")],
        vec![cache("a", "/x"), cache("b", "/x/")],
        vec![cache("a", "/x"), secret("/x", "y")],
    ] {
        let stop = Cancellation::new();
        let request = ExecRequest {
            mounts: &mounts,
            ..ExecRequest::new("echo ran > /ran", &stop)
        };
        let result = vm.exec_with(&request, &Lines::default()).await;
        assert!(is_invalid(&result.expect_err("refused")), "{mounts:?}");
    }
    run(&*vm, "! test -e /ran").await;
}

#[tokio::test]
async fn caches_are_shared_and_in_no_snapshot() {
    let machine = machine!();
    let mut vm = machine.vm().await;
    let mounts = [
        cache("deps", "/var/cache/deps"),
        secret("/var/cache/deps/token", "v"),
    ];
    let cmd = "cat /var/cache/deps/token; echo kept > /var/cache/deps/file; \
        grep -c ' /var/cache/deps .*nosuid,nodev' /proc/self/mountinfo";
    assert_eq!(run_mounted(&*vm, cmd, None, &mounts).await, "v1");
    run(
        &*vm,
        "! test -e /var/cache/deps/file && test -d /var/cache/deps",
    )
    .await;
    vm.snapshot(&SnapshotLabel::Ephemeral).await.expect("taken");
    let other = machine.vm().await;
    let mounts = [cache("deps", "/d")];
    assert_eq!(
        run_mounted(&*other, "cat /d/file", None, &mounts).await,
        "kept"
    );
    let mounts = [cache("other", "/d")];
    assert_eq!(run_mounted(&*other, "ls -A /d", None, &mounts).await, "");
    if machine.has_many_users() {
        let mounts = [cache("theirs", "/home/x/.cache/y")];
        let cmd = "echo mine > /home/x/.cache/y/f && touch /home/x/.cache/z";
        run_mounted(&*other, cmd, Some("1000"), &mounts).await;
        let out = run_mounted(&*vm, "stat -c %u /home/x/.cache/y/f", None, &mounts).await;
        assert_eq!(out, "1000");
    }
}

#[tokio::test]
async fn everything_works_on_a_limited_machine() {
    let machine = machine!();
    let limits = machine.backend.capabilities().limits;
    let config = VmConfig {
        disk_size_gb: limits.contains(&Limit::Disk).then_some(1),
        memory_mib: limits.contains(&Limit::Memory).then_some(256),
        ..VmConfig::default()
    };
    let vm = machine.vm_with(&config).await;
    if machine.has_many_users() {
        run(&*vm, ADD_USER).await;
    }
    let user = machine.has_many_users().then_some("app");
    let mounts = [cache("deps", "/c"), secret("/run/secrets/s", "v")];
    let out = run_mounted(
        &*vm,
        "cat /run/secrets/s; echo x > /c/x; id -u",
        user,
        &mounts,
    )
    .await;
    assert_eq!(out, if user.is_some() { "v1000" } else { "v0" });
}

async fn network(machine: &Machine, policy: NetworkPolicy) -> Arc<dyn PrivateNetwork> {
    let request = PrivateNetworkRequest {
        policy,
        names: vec!["db".into(), "cache".into()],
    };
    let made = machine.backend.private_network(&request).await;
    made.expect("a network")
}

#[tokio::test]
async fn an_outbound_network_is_shared() {
    let machine = machine!();
    let networks = machine.backend.capabilities().networks;
    if !networks.contains(&NetworkPolicy::Outbound) {
        return Skip::new("needs pasta and /dev/net/tun").report();
    }
    let shared = network(&machine, NetworkPolicy::Outbound).await;
    let (one, two) = (machine.vm().await, machine.vm().await);
    let count = "grep -c : /proc/net/dev; cat /etc/hosts";
    for vm in [&one, &two, &one] {
        let (_, out) = try_run(&**vm, count, None, Some(&shared))
            .await
            .expect("runs");
        assert!(
            out.starts_with("2\n") && out.contains("127.0.0.1\tdb\n"),
            "{out}"
        );
    }
    // The policy of the VM itself holds without it.
    assert_eq!(run(&*one, "grep -c : /proc/net/dev").await, "1");
}

#[tokio::test]
async fn a_shared_network_takes_the_place_of_the_vms_own() {
    let machine = machine!();
    let shared = network(&machine, NetworkPolicy::None).await;
    for policy in machine.backend.capabilities().networks {
        let config = VmConfig {
            network: policy,
            ..VmConfig::default()
        };
        let vm = machine.vm_with(&config).await;
        let cmd = "grep -c : /proc/net/dev; ls /sys/class/net; cat /etc/resolv.conf; id -u";
        let user = machine.has_many_users().then_some("1000");
        let (_, out) = try_run(&*vm, cmd, user, Some(&shared)).await.expect("runs");
        let expected = if user.is_some() {
            "1\nlo\n1000"
        } else {
            "1\nlo\n0"
        };
        assert_eq!(out, expected, "{policy}");
        // Without it, as the policy says; another user changes nothing about that.
        let (_, out) = try_run(&*vm, "grep -c : /proc/net/dev", user, None)
            .await
            .expect("runs");
        assert_eq!(out == "1", policy == NetworkPolicy::None, "{policy}: {out}");
    }
}

#[tokio::test]
async fn a_terminal_has_all_of_it() {
    let machine = machine!();
    let vm = machine.vm().await;
    let shared = network(&machine, NetworkPolicy::None).await;
    let mounts = [cache("deps", "/c"), secret("/run/secrets/s", "value")];
    let (_keyboard, input) = tokio::io::duplex(64);
    let (output, mut screen) = tokio::io::duplex(4096);
    let (_size, size) = tokio::sync::watch::channel(TerminalSize::default());
    let terminal = Terminal {
        input: Box::pin(input),
        output: Box::pin(output),
        size,
    };
    let stop = Cancellation::new();
    let request = ExecRequest {
        user: machine.has_many_users().then_some("1000"),
        mounts: &mounts,
        network: Some(&shared),
        ..ExecRequest::new(
            "test -t 0 && echo tty > /dev/tty && touch /c/x && cat /run/secrets/s && grep -c db /etc/hosts && id -u",
            &stop,
        )
    };
    let mut seen = String::new();
    let session = vm.terminal(&request, terminal);
    let (ended, read) = tokio::join!(session, screen.read_to_string(&mut seen));
    read.expect("a screen");
    assert_eq!(ended.expect("runs").exit_code, 0, "{seen}");
    let user = if request.user.is_some() { "1000" } else { "0" };
    assert_eq!(seen, format!("tty\r\nvalue1\r\n{user}\r\n"));
}

#[tokio::test]
async fn a_network_is_for_vms_of_its_own_kind() {
    let machine = machine!();
    let shared = network(&machine, NetworkPolicy::None).await;
    let stranger = machine!();
    let vm = stranger.vm().await;
    let result = try_run(&*vm, "true", None, Some(&shared)).await;
    assert!(is_invalid(&result.expect_err("refused")));
    if rustix::process::geteuid().is_root() {
        let config = VmConfig {
            allow_weaker: vec![Protection::IdMap],
            ..VmConfig::default()
        };
        let vm = machine.vm_with(&config).await;
        let result = try_run(&*vm, "true", None, Some(&shared)).await;
        assert!(is_invalid(&result.expect_err("refused")));
        // Users and mounts need no translation.
        run(&*vm, ADD_USER).await;
        let mounts = [cache("deps", "/c"), secret("/run/secrets/s", "v")];
        let out = run_mounted(&*vm, "cat /run/secrets/s; id -u", Some("app"), &mounts).await;
        assert_eq!(out, "v1000");
    }
}
