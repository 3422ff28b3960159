//! Injects into containers, and back again by outputs: what is brought is what the host has.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hm_vm_core::{
    InjectSource, NullSink, OutputRequest, ProgressState, ProgressUnit, SnapshotLabel, Vm,
    VmBackend, VmConfig,
};
use hm_vm_docker::DockerBackend;
use hm_vm_store::inject::{StatCache, scan, scan_source};
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;
use support::{open, owner, remove_all};

/// A backend of a test's own on an engine.
struct Fixture<'a> {
    engine: &'a TestEngine,
    backend: DockerBackend,
    root: TestRoot,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Fixture<'a> {
    fn new(engine: &'a TestEngine) -> Self {
        let root = TestRoot::new().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        fs::create_dir(root.join("source")).unwrap();
        Self {
            engine,
            backend: open(engine.socket(), &root.join("state")),
            root,
            runtime: runtime.unwrap(),
        }
    }

    /// Nothing here may take for ever.
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(Duration::from_secs(300), work).await };
        self.runtime.block_on(limited).expect("an end")
    }

    fn source(&self) -> PathBuf {
        self.root.join("source")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn vm(&self) -> Box<dyn Vm> {
        self.wait(self.backend.create(IMAGE, &VmConfig::default()))
            .unwrap()
    }

    fn inject(&self, vm: &dyn Vm, to: &str) -> String {
        self.wait(vm.inject_from(&InjectSource::directory(self.source()), to))
            .unwrap()
            .unwrap()
    }

    fn sh(&self, vm: &dyn Vm, command: &str) {
        let code = self.wait(vm.exec(command, &[], "/", &NullSink)).unwrap();
        assert_eq!(code, 0, "{command}");
    }

    /// Digest of what a VM has at a place, copied to the host.
    fn digest_in(&self, vm: &mut Box<dyn Vm>, place: &str) -> String {
        let id = self.wait(vm.snapshot(&SnapshotLabel::Ephemeral)).unwrap();
        let to = tempfile::tempdir().unwrap();
        let request = OutputRequest {
            patterns: vec![".".into()],
            base: place.into(),
            to: to.path().into(),
        };
        self.wait(self.backend.copy_outputs(&id, &request)).unwrap();
        let all = InjectSource {
            ignore_files: false,
            ..InjectSource::directory(to.path())
        };
        let tree = scan_source(&all, &StatCache::disabled()).unwrap();
        tree.digest().to_owned()
    }
}

impl Drop for Fixture<'_> {
    fn drop(&mut self) {
        self.backend.flush();
        remove_all(self.engine, &owner(&self.root.join("state")));
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn odd_source(fixture: &Fixture<'_>) {
    let root = fixture.source();
    for (name, text) in [
        ("plain", "1"),
        ("run.sh", "2"),
        (".hidden", "3"),
        ("new\nline", "4"),
        ("deep/er/file", "5"),
        ("private/key", "6"),
    ] {
        fixture.write(name, text);
    }
    let long = "n".repeat(255);
    fixture.write(&format!("{long}/{long}/{long}"), "7");
    fs::create_dir_all(root.join("empty/below")).unwrap();
    symlink("deep/er/file", root.join("link")).unwrap();
    symlink("no/where", root.join("dangling")).unwrap();
    symlink("t".repeat(500), root.join("far")).unwrap();
    mode(&root.join("run.sh"), 0o755);
    mode(&root.join("private"), 0o700);
    mode(&root.join("private/key"), 0o400);
}

fn trees_arrive_as_they_are(engine: &TestEngine) {
    let fixture = Fixture::new(engine);
    odd_source(&fixture);
    let expected = scan(&fixture.source(), &StatCache::disabled()).unwrap();
    let asked = fixture
        .wait(fixture.backend.inject_digest(&fixture.source()))
        .unwrap();
    assert_eq!(asked.as_deref(), Some(expected.digest()));
    let mut vm = fixture.vm();
    assert_eq!(fixture.inject(&*vm, "/new/place"), expected.digest());
    assert_eq!(fixture.digest_in(&mut vm, "/new/place"), expected.digest());
    // Another tree to the same place, in a VM of the snapshot.
    fs::remove_dir_all(fixture.source().join("deep")).unwrap();
    fs::remove_file(fixture.source().join("link")).unwrap();
    fixture.write("link/now/a/directory", "8");
    fixture.write(".gitignore", "*.log\n/out/\n");
    fixture.write("x.log", "ignored");
    fixture.write("out/x", "ignored");
    let digest = fixture.inject(&*vm, "/new/place");
    assert_ne!(digest, expected.digest());
    assert_eq!(fixture.digest_in(&mut vm, "/new/place"), digest);
    fixture.wait(vm.destroy()).unwrap();
}

fn an_unchanged_tree_is_not_sent_again(engine: &TestEngine) {
    let fixture = Fixture::new(engine);
    fixture.write("kept", "1");
    fixture.write("other", "2");
    let mut vm = fixture.vm();
    let state = |done, total| ProgressState {
        unit: ProgressUnit::Files,
        done,
        total: Some(total),
    };
    let progress = vm.inject_progress().unwrap();
    fixture.inject(&*vm, "/work");
    assert_eq!(progress.now(), state(2, 2));
    fixture.inject(&*vm, "/work");
    assert_eq!(progress.now(), state(0, 0));
    // The snapshot's own VMs know it as well.
    let id = fixture
        .wait(vm.snapshot(&SnapshotLabel::Ephemeral))
        .unwrap();
    let config = VmConfig::default();
    let mut fork = fixture.wait(fixture.backend.restore(&id, &config)).unwrap();
    fixture.inject(&*fork, "/work");
    assert_eq!(fork.inject_progress().unwrap().now(), state(0, 0));
    // A command may have changed every file.
    fixture.sh(&*fork, "echo changed > /work/kept");
    fixture.inject(&*fork, "/work");
    assert_eq!(fork.inject_progress().unwrap().now(), state(2, 2));
    fixture.sh(&*fork, "test \"$(cat /work/kept)\" = 1");
    fixture.wait(fork.destroy()).unwrap();
    fixture.wait(vm.destroy()).unwrap();
}

fn a_dropped_inject_is_repaired(engine: &TestEngine) {
    let fixture = Fixture::new(engine);
    for number in 0..3000 {
        fixture.write(&format!("{}/{number}", number % 10), &"x".repeat(10_000));
    }
    let mut vm = fixture.vm();
    let progress = vm.inject_progress().unwrap();
    let source = InjectSource::directory(fixture.source());
    fixture.wait(async {
        let mut inject = vm.inject_from(&source, "/work");
        // Until something of it was sent.
        std::future::poll_fn(|context| {
            let ended = inject.as_mut().poll(context).is_ready();
            context.waker().wake_by_ref();
            match ended || progress.now().done > 0 {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    });
    for number in 0..2000 {
        let name = format!("{}/{number}", number % 10);
        fs::remove_file(fixture.source().join(name)).unwrap();
    }
    let digest = fixture.inject(&*vm, "/work");
    assert_eq!(fixture.digest_in(&mut vm, "/work"), digest);
    fixture.wait(vm.destroy()).unwrap();
}

fn outputs_are_brought_from_odd_places(engine: &TestEngine) {
    let fixture = Fixture::new(engine);
    let mut vm = fixture.vm();
    fixture.sh(
        &*vm,
        "mkdir -p /real/out /base; echo 1 > /real/out/a.o; ln /real/out/a.o /real/out/b.x; ln -s /real/out /base/out; \
         ln -s nowhere /base/dangling; ln -s out /base/again; echo 2 > /base/file; mkfifo /base/fifo",
    );
    let id = fixture
        .wait(vm.snapshot(&SnapshotLabel::Ephemeral))
        .unwrap();
    fixture.wait(vm.destroy()).unwrap();
    let copy = |patterns: &[&str], base: &str| {
        let to = tempfile::tempdir().unwrap();
        let request = OutputRequest {
            patterns: patterns.iter().map(ToString::to_string).collect(),
            base: base.into(),
            to: to.path().join("to"),
        };
        let copied = fixture.wait(fixture.backend.copy_outputs(&id, &request));
        (to, copied.unwrap())
    };
    let read = |to: &tempfile::TempDir, name: &str| {
        fs::read_to_string(to.path().join("to").join(name)).ok()
    };
    // Through links, by a name whose file has another one outside of what is asked for.
    let (to, report) = copy(&["out/*.x", "again/a.o", "file"], "/base");
    assert_eq!(
        (report.files, &report.unmatched),
        (3, &vec![]),
        "{report:?}"
    );
    assert_eq!(read(&to, "out/b.x").as_deref(), Some("1\n"));
    assert_eq!(read(&to, "again/a.o").as_deref(), Some("1\n"));
    // Links themselves, also those to nowhere.
    let (to, report) = copy(&["out", "dangling", "fifo"], "/base");
    assert_eq!((report.files, report.skipped.len()), (2, 1), "{report:?}");
    let link = |name: &str| fs::read_link(to.path().join("to").join(name)).unwrap();
    assert_eq!(link("out"), Path::new("/real/out"));
    assert_eq!(link("dangling"), Path::new("nowhere"));
    // What is not there, or below a file.
    let (_, report) = copy(&["none/x", "file/x", "file/*", "/no/such/**"], "/base");
    assert_eq!((report.files, report.unmatched.len()), (0, 4), "{report:?}");
    let (_, report) = copy(&["*"], "/none");
    assert_eq!(report.unmatched, ["*"]);
}

fn ten_thousand_files(engine: &TestEngine) {
    let fixture = Fixture::new(engine);
    for number in 0..10_000 {
        fixture.write(
            &format!("{}/{}/{number}", number % 7, number % 31),
            &format!("{number}\n"),
        );
    }
    let mut vm = fixture.vm();
    let digest = fixture.inject(&*vm, "/work");
    assert_eq!(fixture.digest_in(&mut vm, "/work"), digest);
    fixture.wait(vm.destroy()).unwrap();
}

const CHECKS: [fn(&TestEngine); 5] = [
    trees_arrive_as_they_are,
    an_unchanged_tree_is_not_sent_again,
    a_dropped_inject_is_repaired,
    outputs_are_brought_from_odd_places,
    ten_thousand_files,
];

#[test]
fn docker() {
    let engine = require!(TestEngine::docker());
    CHECKS.iter().for_each(|check| check(&engine));
}

#[test]
fn podman() {
    let engine = require!(TestEngine::podman());
    CHECKS.iter().for_each(|check| check(&engine));
}

/// A measurement: the most memory that this process had, before and after a gigabyte went through it.
#[test]
#[ignore = "a measurement"]
fn a_gigabyte_takes_no_memory() {
    let engine = require!(TestEngine::docker());
    let fixture = Fixture::new(&engine);
    for number in 0..16 {
        let file = fs::File::create(fixture.source().join(number.to_string())).unwrap();
        for part in 0..64u64 {
            let bytes: Vec<u8> = (0..1u64 << 17)
                .flat_map(|at| (at * 7 + part + number).to_le_bytes())
                .collect();
            std::io::Write::write_all(&mut &file, &bytes).unwrap();
        }
    }
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap()
    };
    let mut vm = fixture.vm();
    let source = fixture.source();
    fixture
        .wait(fixture.backend.inject_digest(&source))
        .unwrap();
    let before = peak();
    let start = std::time::Instant::now();
    fixture.inject(&*vm, "/work");
    println!(
        "1 GiB in {:?}; most memory {before} kB before, {} kB after",
        start.elapsed(),
        peak()
    );
    assert!(peak() < before + 32 * 1024);
    fixture.wait(vm.destroy()).unwrap();
}
