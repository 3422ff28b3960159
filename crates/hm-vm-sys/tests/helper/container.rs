//! The real helper as PID 1, in namespaces and a root directory like a container's.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use hm_vm_sys::helper::{Hello, MarkerScan, Nonce, PROGRAM, Report, ReportKind, Request};
use hm_vm_testkit::images::busybox_root;
use hm_vm_testkit::privilege::{need_program, need_root};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

/// Longer than anything here takes: a test that waits so long has found a hang.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Makes `/dev` and `/proc`, and becomes the helper with about the capabilities that Docker leaves.
const SCRIPT: &str = r#"set -e
cd "$1"
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mkdir -m 700 dev/hm-vm-secrets
: >dev/hm-vm-secrets/0
: >dev/hm-vm-secrets/1
chmod 400 dev/hm-vm-secrets/*
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/1 dev/stdout
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/tty c 5 0
mount -t proc proc proc
ip link set lo up
chroot . /bin/busybox nc -l -p 5555 </dev/null >/dev/null 2>&1 &
exec setpriv --inh-caps=-all --bounding-set=-sys_admin,-sys_ptrace,-sys_resource,-perfmon chroot . /helper
"#;

enum Piece {
    Out(Vec<u8>),
    Err(Vec<u8>),
    End,
}

/// A helper that runs.
pub(crate) struct Container {
    pub(crate) root: TestRoot,
    child: Child,
    input: Option<ChildStdin>,
    pieces: Receiver<Piece>,
    jobs: u8,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) report: Report,
}

impl Ended {
    pub(crate) fn kind(&self) -> ReportKind {
        self.report.kind
    }
}

fn pump(mut from: impl Read + Send + 'static, to: Sender<Piece>, piece: fn(Vec<u8>) -> Piece) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.send(piece(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
        let _ = to.send(Piece::End);
    });
}

impl Container {
    /// With a helper that has said hello.
    pub(crate) fn start() -> Result<Self, Skip> {
        need_root()?;
        for program in ["unshare", "setpriv", "busybox"] {
            need_program(program)?;
        }
        let root = TestRoot::new().expect("a root directory");
        busybox_root(root.path()).expect("busybox");
        std::fs::write(root.join("helper"), PROGRAM).expect("the helper");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.join("helper"), mode).expect("executable");
        let mut child = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--net",
                "--ipc",
                "--fork",
                "--kill-child",
            ])
            .args(["/bin/sh", "-c", SCRIPT, "sh"])
            .arg(root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare");
        let (to, pieces) = channel();
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut hello = [0; Hello::SIZE];
        if stdout.read_exact(&mut hello).is_err() {
            let mut why = String::new();
            let stderr = child.stderr.as_mut().expect("a pipe");
            stderr.read_to_string(&mut why).expect("text");
            panic!("no helper: {why}");
        }
        assert!(Hello::parse(&hello).expect("a hello").is_ours());
        pump(stdout, to.clone(), Piece::Out);
        pump(child.stderr.take().expect("a pipe"), to, Piece::Err);
        Ok(Self {
            root,
            input: child.stdin.take(),
            child,
            pieces,
            jobs: 0,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("open");
        input.write_all(bytes).expect("the helper reads");
    }

    pub(crate) fn nonce(&mut self) -> Nonce {
        self.jobs += 1;
        Nonce::new([self.jobs; Nonce::SIZE])
    }

    /// Asks for a command, and leaves it running.
    pub(crate) fn begin(&mut self, request: &Request) -> Nonce {
        let nonce = self.nonce();
        self.send(&request.encode(&nonce).expect("a request"));
        nonce
    }

    /// Waits until a job has ended. As soon as `word` is in its output, `act` is called, once.
    pub(crate) fn end_with(
        &mut self,
        nonce: &Nonce,
        word: &str,
        act: impl FnOnce(&mut Self),
    ) -> Ended {
        let mut act = Some(act).filter(|_| !word.is_empty());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut stdout = MarkerScan::stdout(nonce.clone());
        let mut stderr = MarkerScan::stderr(nonce.clone());
        while !(stdout.is_complete() && stderr.is_complete()) {
            match self.pieces.recv_timeout(LONG).expect("no hang") {
                Piece::Out(bytes) => stdout.push(&bytes, |bytes| out.extend_from_slice(bytes)),
                Piece::Err(bytes) => stderr.push(&bytes, |bytes| err.extend_from_slice(bytes)),
                Piece::End => panic!("the helper has ended"),
            }
            let mut windows = out.windows(word.len().max(1));
            let has_come = act.is_some() && windows.any(|window| window == word.as_bytes());
            if has_come && let Some(act) = act.take() {
                act(self);
            }
        }
        assert!(!stdout.has_surplus() && !stderr.has_surplus());
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended {
            out: text(out),
            err: text(err),
            report: stdout.report().expect("a report"),
        }
    }

    pub(crate) fn end(&mut self, nonce: &Nonce) -> Ended {
        self.end_with(nonce, "", |_| {})
    }

    pub(crate) fn run(&mut self, request: &Request) -> Ended {
        let nonce = self.begin(request);
        self.end(&nonce)
    }

    /// Runs a shell command, which must succeed, and returns what it prints.
    pub(crate) fn shell(&mut self, command: &str) -> String {
        let ended = self.run(&shell(command));
        assert_eq!(ended.kind(), ReportKind::Exited(0), "{command}: {ended:?}");
        ended.out
    }

    /// Closes the helper's input.
    pub(crate) fn close(&mut self) {
        self.input = None;
    }

    /// How the helper ended.
    pub(crate) fn exit(mut self) -> ExitStatus {
        loop {
            if let Piece::End = self.pieces.recv_timeout(LONG).expect("no hang") {
                return self.child.wait().expect("a status");
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn shell(command: &str) -> Request {
    Request::shell(command).default_variable("PATH", "/bin")
}
