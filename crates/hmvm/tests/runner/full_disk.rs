//! A disk that is full: one clear error, the store whole, and all is well when there is room again.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use hm_vm_testkit::require;
use hm_vm_testkit::skip::Skip;
use serde_json::{Value, json};

use crate::env::{Run, TestEnv};

/// Makes the disk, says how that went, and keeps it until its input ends, whatever ends that.
const TMPFS: &str = "mount -t tmpfs -o size=8m none disk && echo ready && cat";
const EXT4: &str = "truncate -s 16M disk.img && mkfs.ext4 -q -m 0 -b 4096 disk.img \
    && mount -o loop disk.img disk && echo ready && cat";

const NO_ROOM: &str = "head -c 40M /dev/zero > /big";

/// A store on a file system of a few MiB, in a mount namespace of its own.
struct SmallDisk {
    env: TestEnv,
    holder: Child,
}

impl SmallDisk {
    fn new(make: &str) -> Result<Self, Skip> {
        if !rustix::process::geteuid().is_root() {
            return Err(Skip::new("only root can mount a small disk"));
        }
        let env = TestEnv::machine()?;
        fs::create_dir(env.path().join("disk")).expect("a directory");
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", make])
            .current_dir(env.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let disk = Self { env, holder };
        if line != "ready\n" {
            return Err(Skip::new("no small disk can be mounted here"));
        }
        Ok(disk)
    }

    /// A command that sees the disk.
    fn inside(&self, inner: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .arg("--mount")
            .arg(format!("--wdns={}", self.env.path().display()))
            .arg("--")
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear()
            .stdin(Stdio::null());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("HMVM_STORE", self.env.path().join("disk/store"));
        command
    }

    fn hmvm(&self, arguments: &[&str]) -> Run {
        let mut command = self.inside(&self.env.command(arguments));
        self.env.run(&mut command)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.hmvm(arguments).success().stdout).expect("JSON")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        self.shell("head -c 40M /dev/zero > disk/filler 2>/dev/null; true");
    }

    /// Takes a little, which can be given back when everything else is full.
    fn reserve(&self) {
        self.shell("head -c 1M /dev/zero > disk/filler");
    }

    /// Gives it back.
    fn make_room(&self) {
        self.shell("rm -f disk/filler");
    }

    #[track_caller]
    fn shell(&self, script: &str) {
        let mut inner = Command::new("sh");
        inner.args(["-c", script]);
        let mut command = self.inside(&inner);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        assert!(command.status().expect("sh runs").success(), "{script}");
    }

    /// Keys and snapshots.
    fn state(&self) -> Value {
        json!([
            self.json(&["cache", "ls", "--json"]),
            self.json(&["snapshot", "ls", "--json"]),
            self.json(&["image", "ls", "--json"]),
        ])
    }

    /// Either there is a snapshot, which is removed again when there is room, or the error is told.
    #[track_caller]
    fn assert_kept_or_told(&self, what: &str, run: &Run) {
        self.make_room();
        let last = TestEnv::last_event(run);
        if run.code == 0 {
            let id = last["snapshot"].as_str().expect("a snapshot");
            self.hmvm(&["snapshot", "rm", id]).success();
        } else {
            assert_no_space(what, run);
            assert_eq!(last["event"], "error", "{what}");
        }
    }

    /// Nothing is left over, nothing was lost, and commands run and are cached.
    #[track_caller]
    fn assert_whole(&self, what: &str, before: &Value) {
        let report: Value = serde_json::from_str(&self.hmvm(&["doctor", "--json"]).stdout)
            .expect("what doctor says");
        assert_eq!(report["store_error"], Value::Null, "{what}");
        assert_eq!(report["leftovers"], json!([]), "{what}");
        assert_eq!(&self.state(), before, "{what}");
        let run = self.hmvm(&["exec", "--cache", "probe", "--", "echo works"]);
        assert_eq!(run.success().stdout, "works\n", "{what}");
        let run = self.hmvm(&["exec", "--cache", "probe", "--", "echo works"]);
        assert!(run.success().stderr.contains(", cached, "), "{what}");
        self.hmvm(&["cache", "rm", "probe"]).success();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its input ends, so it does, and the mount with it.
        drop(self.holder.stdin.take());
        let _ended = self.holder.wait();
    }
}

/// One error that says it, one hint, and at most notices beside them.
#[track_caller]
fn assert_no_space(what: &str, run: &Run) {
    assert_eq!(run.code, 125, "{what}: {}", run.stderr);
    let beginning = |word: &str| {
        run.stderr
            .lines()
            .filter(|line| line.starts_with(word))
            .count()
    };
    assert_eq!(
        (beginning("error: "), beginning("hint: ")),
        (1, 1),
        "{what}: {}",
        run.stderr
    );
    assert_eq!(beginning(" WARN"), 0, "{what}: {}", run.stderr);
    let error = run
        .stderr
        .lines()
        .find(|line| line.starts_with("error: "))
        .expect("an error");
    assert!(
        error.contains("no space left") || error.contains("disk is full"),
        "{what}: {error}"
    );
    assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
}

#[test]
fn a_full_tmpfs_is_told_and_the_store_stays_whole() {
    full_disk(&require!(SmallDisk::new(TMPFS)));
}

#[test]
fn a_full_ext4_is_told_and_the_store_stays_whole() {
    full_disk(&require!(SmallDisk::new(EXT4)));
}

fn full_disk(disk: &SmallDisk) {
    disk.env.write("big/file", vec![b'x'; 30 << 20]);
    let base = disk.hmvm(&[
        "exec",
        "--json",
        "--cache",
        "base",
        "--",
        "echo base > /base",
    ]);
    let base = TestEnv::last_event(&base.success());
    let base = base["snapshot"].as_str().expect("a snapshot").to_owned();
    disk.hmvm(&["image", "ls"]).success();
    let before = disk.state();

    let run = disk.hmvm(&["exec", "--inject", "big", "--", "true"]);
    assert_no_space("inject", &run);
    disk.assert_whole("inject", &before);

    let run = disk.hmvm(&["image", "import", "big", "big"]);
    assert_no_space("import", &run);
    disk.assert_whole("import", &before);

    // The command itself is told, and its own code passed on.
    let run = disk.hmvm(&["exec", "--", NO_ROOM]).exits_with(1);
    assert!(
        run.stderr.contains("No space left on device"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("error: no"), "{}", run.stderr);
    disk.assert_whole("exec", &before);

    // The command does not mind. Its state takes no more room by being kept, but the row of it may.
    let careless = format!("{NO_ROOM} 2>/dev/null; true");
    for cache in ["auto", "off", "mine"] {
        disk.reserve();
        let run = disk.hmvm(&["exec", "--json", "--cache", cache, "--", &careless]);
        disk.assert_kept_or_told("commit", &run);
        disk.assert_whole("commit", &before);
    }
    let failing = format!("{NO_ROOM} 2>/dev/null; exit 3");
    disk.reserve();
    let run = disk.hmvm(&["exec", "--json", "--keep-failed", "--", &failing]);
    disk.make_room();
    let result = TestEnv::last_event(&run.clone().exits_with(3));
    if let Some(kept) = result["kept"].as_str() {
        disk.hmvm(&["snapshot", "rm", kept]).success();
    } else {
        let note = "failed to keep the state of the failed command: no space left";
        assert!(run.stdout.contains(note), "{}", run.stdout);
    }
    disk.assert_whole("keep-failed", &before);

    // No room at all, not even for the database.
    disk.fill();
    let run = disk.hmvm(&["exec", "--json", "--cache", "off", "--", "true"]);
    disk.assert_kept_or_told("a full disk", &run);
    disk.assert_whole("a full disk", &before);
    let run = disk.hmvm(&[
        "exec",
        "-q",
        "--from",
        &base,
        "--cache",
        "off",
        "--",
        "cat /base",
    ]);
    assert_eq!(run.success().stdout, "base\n");
}

#[test]
fn a_kill_on_a_full_disk_leaves_nothing_once_there_is_room() {
    let disk = require!(SmallDisk::new(TMPFS));
    disk.hmvm(&["exec", "--cache", "base", "--", "true"])
        .success();
    disk.hmvm(&["image", "ls"]).success();
    let before = disk.state();
    disk.fill();
    disk.make_room();
    let command = "head -c 1M /dev/zero > /file; echo ready; sleep 1000";
    let mut child = disk
        .inside(&disk.env.command(["exec", "--cache", "off", "--", command]))
        .stdout(Stdio::piped())
        .spawn()
        .expect("hmvm starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    disk.fill();
    // nsenter became hmvm: it is the program itself that is killed.
    child.kill().expect("a kill");
    child.wait().expect("an end");
    disk.make_room();
    disk.assert_whole("kill", &before);
}
