//! Real namespaces. The "host" of these tests is a network namespace of their own, so that the
//! machine's network does not change: the outer test starts itself again inside one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use super::Pasta;

const USER: u32 = 54_321;

fn skip(reason: &str) {
    assert!(
        std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_none(),
        "{reason}"
    );
    eprintln!("SKIPPED: {reason}");
}

fn run(command: &str) -> Output {
    Command::new("sh").args(["-c", command]).output().unwrap()
}

/// Runs one of the ignored tests below in a host of its own.
fn in_own_host(test: &str) {
    if !rustix::process::geteuid().is_root() {
        return skip("making a network to test in needs root");
    }
    if Pasta::find().is_none() || !run("ip -V").status.success() {
        return skip("needs the programs pasta and ip (packages passt and iproute2)");
    }
    let set_up = "set -e; ip link set lo up; ip link add out type veth peer name out2; ip link set out2 up; \
        ip addr add 192.0.2.9/24 dev out; ip -6 addr add 2001:db8::9/64 dev out nodad; \
        ip link set out up; ip route add default via 192.0.2.1; \
        ip -6 route add default via 2001:db8::1; \
        ip link add far type veth peer name far2; ip link set far2 up; ip addr add 198.51.100.1/24 dev far; \
        ip -6 addr add 2001:db8:1::1/64 dev far nodad; ip link set far up; \
        echo nameserver 127.0.0.53 > /etc/resolv.conf.hm-vm; \
        mount -t tmpfs tmpfs /dev/net; mknod -m 666 /dev/net/tun c 10 200; \
        mount --bind /etc/resolv.conf.hm-vm /etc/resolv.conf; rm /etc/resolv.conf.hm-vm; \
        exec \"$0\" --exact \"$1\" --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", set_up])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("pasta::tests::{test}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A process in a user and a network namespace of its own, as a VM's init is.
struct Guest(Child);

impl Guest {
    fn start() -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "--net", "sh", "-c", "echo here; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = child.id();
        if rustix::process::geteuid().is_root() {
            fs::write(format!("/proc/{pid}/uid_map"), "0 1879113728 65536").unwrap();
            fs::write(format!("/proc/{pid}/gid_map"), "0 1879113728 65536").unwrap();
        } else {
            fs::write(format!("/proc/{pid}/setgroups"), "deny").unwrap();
            fs::write(format!("/proc/{pid}/uid_map"), format!("0 {USER} 1")).unwrap();
            fs::write(format!("/proc/{pid}/gid_map"), format!("0 {USER} 1")).unwrap();
        }
        Self(child)
    }

    /// What the shell inside prints; nothing when it fails.
    fn output(&self, script: &str) -> String {
        self.output_within("20", script)
    }

    /// Checks that nothing answers. What is dropped silently would take minutes to be noticed.
    fn is_refused(&self, script: &str, address: &str) {
        assert_eq!(self.output_within("1", script), "", "{address}");
    }

    fn output_within(&self, seconds: &str, script: &str) -> String {
        let output = Command::new("nsenter")
            .args([
                "-U",
                "-n",
                "--preserve-credentials",
                "-t",
                &self.0.id().to_string(),
            ])
            .args(["timeout", seconds, "bash", "-c", script])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Says hello to everybody who connects. Returns the port.
fn serve(address: &str) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.unwrap().write_all(b"hello\n"));
        }
    });
    port
}

fn connect(address: &str, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{address}/{port} && cat <&3")
}

fn the_network_is_as_promised() {
    let far = serve("198.51.100.1:0");
    let far6 = serve("[2001:db8:1::1]:0");
    let loopback = serve("127.0.0.1:0");
    let loopback6 = serve("[::1]:0");
    let everywhere = serve("0.0.0.0:0");
    let guest = Guest::start();
    let scratch = tempfile::tempdir().unwrap();
    guest.is_refused(&connect("198.51.100.1", far), "far");
    let mut guard = Pasta::find()
        .unwrap()
        .attach(guest.0.id(), scratch.path())
        .unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    // Out, with both protocols.
    assert_eq!(guest.output(&connect("198.51.100.1", far)), "hello\n");
    assert_eq!(guest.output(&connect("2001:db8:1::1", far6)), "hello\n");
    // Not to the host's loopback: not as the guest's own, the gateway, or the shared address.
    for address in ["127.0.0.1", "192.0.2.1", "192.0.2.9", "169.254.1.53"] {
        guest.is_refused(&connect(address, loopback), address);
        guest.is_refused(&connect(address, everywhere), address);
    }
    for address in ["::1", "2001:db8::1", "fe80::53"] {
        guest.is_refused(&connect(address, loopback6), address);
    }
    // Nobody gets in: what listens inside is not to be seen outside.
    assert!(
        run("ss -Htln")
            .stdout
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            == 5
    );
    let pid = guard.pid();
    guard.stop();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    guest.is_refused(&connect("198.51.100.1", far), "far");
}

#[test]
fn a_guest_of_root_gets_out_and_nowhere_else() {
    in_own_host("as_root");
}

#[test]
#[ignore = "runs in a host of its own"]
fn as_root() {
    the_network_is_as_promised();
}

#[test]
fn a_guest_of_an_ordinary_user_gets_out_and_nowhere_else() {
    in_own_host("as_user");
}

#[test]
#[ignore = "runs in a host of its own"]
fn as_user() {
    if rustix::process::geteuid().is_root() {
        let status = Command::new("/proc/self/exe")
            .args([
                "--exact",
                "pasta::tests::as_user",
                "--ignored",
                "--nocapture",
            ])
            .uid(USER)
            .gid(USER)
            .status()
            .unwrap();
        assert!(status.success());
    } else {
        the_network_is_as_promised();
    }
}

#[test]
fn names_are_resolved_by_a_server_on_the_hosts_loopback() {
    in_own_host("forwarded_names");
}

#[test]
#[ignore = "runs in a host of its own"]
fn forwarded_names() {
    let server = UdpSocket::bind("127.0.0.53:53").unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        loop {
            let (length, from) = server.recv_from(&mut bytes).unwrap();
            server.send_to(&bytes[..length], from).unwrap();
        }
    });
    let guest = Guest::start();
    let scratch = tempfile::tempdir().unwrap();
    let guard = Pasta::find()
        .unwrap()
        .attach(guest.0.id(), scratch.path())
        .unwrap();
    assert_eq!(guard.resolver().resolv_conf(), "nameserver 169.254.1.53\n");
    let ask = "exec 3<>/dev/udp/169.254.1.53/53; echo a question >&3; head -n 1 <&3";
    assert_eq!(guest.output(ask), "a question\n");
}

#[test]
fn pasta_ends_when_our_process_is_killed() {
    in_own_host("killed");
}

#[test]
#[ignore = "runs in a host of its own"]
fn killed() {
    const CHILD: &str = "HMVM_TEST_PASTA_CHILD";
    if let Ok(init) = std::env::var(CHILD) {
        let scratch = tempfile::tempdir().unwrap();
        let guard = Pasta::find()
            .unwrap()
            .attach(init.parse().unwrap(), scratch.path())
            .unwrap();
        drop(scratch);
        eprintln!("pasta is {}", guard.pid());
        loop {
            std::thread::park();
        }
    }
    let guest = Guest::start();
    let mut child = Command::new("/proc/self/exe")
        .args([
            "--exact",
            "pasta::tests::killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, guest.0.id().to_string())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let pid: i32 = lines
        .find_map(|line| line.unwrap().strip_prefix("pasta is ")?.parse().ok())
        .unwrap();
    let pasta = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut fds = [rustix::event::PollFd::new(
        &pasta,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
}

#[test]
fn a_failure_says_what_pasta_said() {
    let Some(pasta) = Pasta::find() else {
        return skip("needs the program pasta (package passt)");
    };
    let scratch = tempfile::tempdir().unwrap();
    // No process has this number.
    let error = pasta.attach(4_194_305, scratch.path()).unwrap_err();
    assert!(error.to_string().contains("4194305"), "{error}");
    assert!(!error.to_string().contains("end of file"), "{error}");
    let error = Pasta::at("/nowhere/pasta")
        .attach(1, scratch.path())
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/pasta"), "{error}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let scratch = tempfile::tempdir().unwrap();
    let mut times: Vec<_> = (0..11)
        .map(|_| {
            let guest = Guest::start();
            let start = Instant::now();
            let mut guard = Pasta::find()
                .unwrap()
                .attach(guest.0.id(), scratch.path())
                .unwrap();
            let attached = start.elapsed();
            let start = Instant::now();
            guard.stop();
            (attached, start.elapsed())
        })
        .collect();
    times.sort_unstable();
    println!("attach, stop: median {:?}", times[5]);
}
