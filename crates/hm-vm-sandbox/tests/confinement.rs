//! What a guest's root cannot do, tried by a guest's root.
#![expect(
    clippy::expect_used,
    reason = "a backend that cannot be built is a failed test"
)]

mod support;

use hm_vm_core::{NetworkPolicy, Protection, Vm, VmBackend, VmConfig};

use support::{Lines, Machine};

impl Machine {
    async fn vm(&self, config: &VmConfig) -> Box<dyn Vm> {
        self.backend.create("busybox", config).await.expect("a VM")
    }

    /// Exit code and output of a command in a VM of its own.
    async fn run(&self, cmd: &str) -> (i32, Vec<String>) {
        self.run_with(cmd, &VmConfig::default()).await
    }

    async fn run_with(&self, cmd: &str, config: &VmConfig) -> (i32, Vec<String>) {
        let mut vm = self.vm(config).await;
        let lines = Lines::default();
        let code = vm.exec(cmd, &[], "/", &lines).await.expect("runs");
        vm.destroy().await.expect("destroyed");
        (code, lines.0.into_inner().expect("not poisoned"))
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

#[tokio::test]
async fn mounting_and_device_nodes_are_refused() {
    let machine = machine!();
    for attempt in [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /sys",
        "umount /proc/sys",
        "mknod /disk b 8 0",
        "mknod /tmp/null c 1 3",
        "chroot / true && unshare -m true",
        "hostname other",
        "echo 1 > /proc/sys/kernel/hostname",
        "echo b > /proc/sysrq-trigger",
        "echo core > /proc/sys/kernel/core_pattern",
        "dmesg",
    ] {
        let (code, lines) = machine.run(attempt).await;
        assert_ne!(code, 0, "{attempt:?} worked: {lines:?}");
    }
}

#[tokio::test]
async fn the_hosts_processes_and_files_are_out_of_sight() {
    let machine = machine!();
    let mine = std::process::id();
    let (_, lines) = machine.run("ls /proc | grep -E '^[0-9]+$' | wc -l").await;
    let seen: usize = lines[0].trim().parse().expect("a number");
    assert!(seen < 10, "{seen} processes");
    let (code, _) = machine.run(&format!("kill -0 {mine}")).await;
    assert_ne!(code, 0);
    let (_, lines) = machine
        .run("cat /proc/self/mountinfo /proc/1/cmdline")
        .await;
    let store = machine.backend.store().root().display().to_string();
    assert!(!lines.join("\n").contains(&store), "{lines:?}");
    // Init is not traceable, so that nothing of it can be read or written.
    let (code, _) = machine
        .run("cat /proc/1/environ || cat /proc/1/maps || readlink /proc/1/exe")
        .await;
    assert_ne!(code, 0);
}

#[tokio::test]
async fn privileges_are_dropped_for_good() {
    let machine = machine!();
    let (_, lines) = machine
        .run("grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status")
        .await;
    let text = lines.join(" ").replace('\t', " ");
    assert!(text.contains("CapEff: 00000000a80425fb"), "{text}");
    assert!(text.contains("CapBnd: 00000000a80425fb"), "{text}");
    assert!(text.contains("NoNewPrivs: 1"), "{text}");
    assert!(text.contains("Seccomp: 2"), "{text}");
}

#[tokio::test]
async fn only_what_was_named_is_weakened() {
    let machine = machine!();
    let config = VmConfig {
        allow_weaker: vec![Protection::Seccomp],
        ..VmConfig::default()
    };
    let (_, lines) = machine
        .run_with(
            "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
            &config,
        )
        .await;
    let text = lines.join(" ").replace('\t', " ");
    assert!(text.contains("NoNewPrivs: 1"), "{text}");
    assert!(text.contains("Seccomp: 0"), "{text}");
}

#[tokio::test]
async fn without_translated_owners_there_is_still_a_user_namespace() {
    let machine = machine!();
    let config = VmConfig {
        allow_weaker: vec![Protection::IdMap],
        ..VmConfig::default()
    };
    let look = "stat -c %u /bin && cat /proc/self/uid_map && mount -t tmpfs none /tmp 2>&1";
    let (code, lines) = machine.run_with(look, &config).await;
    assert_ne!(code, 0, "{lines:?}");
    assert_eq!(lines[0], "0", "{lines:?}");
}

#[tokio::test]
async fn what_root_inside_makes_is_not_roots_outside() {
    let machine = machine!();
    let mut vm = machine.vm(&VmConfig::default()).await;
    let code = vm
        .exec(
            "cp /bin/busybox /mine && chmod 6755 /mine",
            &[],
            "/",
            &hm_vm_core::NullSink,
        )
        .await
        .expect("runs");
    assert_eq!(code, 0);
    vm.destroy().await.expect("destroyed");
    // Whoever is not the store's owner cannot come near what is in it.
    use std::os::unix::fs::PermissionsExt;
    let root = std::fs::metadata(machine.backend.store().root()).expect("the store");
    assert_eq!(root.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn abstract_sockets_of_the_host_are_not_reachable_without_its_network() {
    let machine = machine!();
    use std::os::linux::net::SocketAddrExt;
    let name = format!("hm-vm-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("an address");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a socket");
    let look = format!("grep -c {name} /proc/net/unix");
    assert_ne!(machine.run(&look).await.0, 0);
    let config = VmConfig {
        network: NetworkPolicy::Host,
        ..VmConfig::default()
    };
    // It is the network namespace that hides it: the check can fail.
    assert_eq!(machine.run_with(&look, &config).await.0, 0);
}
