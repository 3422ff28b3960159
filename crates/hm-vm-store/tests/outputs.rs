//! Bringing the results of a command to the host, also of commands that want to harm it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hm_vm_core::{OutputReport, OutputRequest, SnapshotId};
use hm_vm_store::{StoreError, VmFiles};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::common::{Fixture, upper, write};

/// A VM whose files are brought to a host directory.
struct Outputs {
    fixture: Fixture,
    vm: VmFiles,
    root: PathBuf,
    to: PathBuf,
}

impl Outputs {
    fn new() -> Self {
        let fixture = Fixture::new();
        let vm = fixture.vm();
        let root = upper(&fixture.store, &vm);
        fs::create_dir(root.join("src")).unwrap();
        let to = fixture.directory.path().join("host/to");
        Self {
            fixture,
            vm,
            root,
            to,
        }
    }

    fn write(&self, path: &str, content: &str) {
        write(&self.fixture.store, &self.vm, path, content);
    }

    fn commit(&self) -> SnapshotId {
        self.vm.commit(None).unwrap()
    }

    fn copy(&self, snapshot: &SnapshotId, patterns: &[&str]) -> Result<OutputReport, StoreError> {
        let request = OutputRequest {
            patterns: patterns.iter().map(ToString::to_string).collect(),
            base: "/src".into(),
            to: self.to.clone(),
        };
        self.fixture.store.copy_outputs(snapshot, &request)
    }

    /// Every path below the destination, sorted.
    fn brought(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.to.clone()];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                found.push(path.strip_prefix(&self.to).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    todo.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[track_caller]
    fn assert_brings(&self, snapshot: &SnapshotId, patterns: &[&str], expected: &[&str]) {
        let _ = fs::remove_dir_all(&self.to);
        let report = self.copy(snapshot, patterns).unwrap();
        assert_eq!(self.brought(), expected, "{patterns:?}");
        assert_eq!(report.unmatched, [""; 0], "{patterns:?}");
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    let error = result.unwrap_err();
    assert!(
        matches!(error, StoreError::InvalidInput { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn patterns_name_files_and_directories() {
    let outputs = Outputs::new();
    for path in [
        "src/app",
        "src/target/debug/app",
        "src/target/debug/deps/x.o",
        "src/target/release/app",
        "src/a.txt",
        "src/b.txt",
        "src/{odd",
        "opt/out/lib.so",
        "opt/lib.txt",
    ] {
        outputs.write(path, path);
    }
    fs::create_dir(outputs.root.join("src/target/empty")).unwrap();
    let snapshot = outputs.commit();
    let brings = |patterns: &[&str], expected: &[&str]| {
        outputs.assert_brings(&snapshot, patterns, expected);
    };
    brings(&["app"], &["app"]);
    brings(&["./app"], &["app"]);
    brings(&["/src/app"], &["app"]);
    brings(&["*.txt"], &["a.txt", "b.txt"]);
    brings(&["[b-z].txt", "?.txt"], &["a.txt", "b.txt"]);
    brings(&["{a,c}.txt"], &["a.txt"]);
    brings(&["\\{odd"], &["{odd"]);
    brings(
        &["target/*/app"],
        &[
            "target",
            "target/debug",
            "target/debug/app",
            "target/release",
            "target/release/app",
        ],
    );
    let debug = [
        "target",
        "target/debug",
        "target/debug/app",
        "target/debug/deps",
        "target/debug/deps/x.o",
    ];
    brings(&["target/debug"], &debug);
    brings(&["target/debug/"], &debug);
    brings(&["target/debug/**"], &debug);
    brings(&["target/debug", "target/debug/app", "target/d*"], &debug);
    brings(
        &["target/{debug/deps,nothing}/*.o"],
        &[
            "target",
            "target/debug",
            "target/debug/deps",
            "target/debug/deps/x.o",
        ],
    );
    brings(
        &["**/*.o"],
        &[
            "target",
            "target/debug",
            "target/debug/deps",
            "target/debug/deps/x.o",
        ],
    );
    brings(&["target/empty"], &["target", "target/empty"]);
    brings(&["/opt/out"], &["out", "out/lib.so"]);
    brings(&["/opt/**/*.so", "/opt/*.txt"], &["lib.so", "lib.txt"]);
    brings(
        &["target/**/deps"],
        &[
            "target",
            "target/debug",
            "target/debug/deps",
            "target/debug/deps/x.o",
        ],
    );
    let _ = fs::remove_dir_all(&outputs.to);
    outputs.copy(&snapshot, &["."]).unwrap();
    assert_eq!(outputs.brought().len(), 12);
    assert_eq!(
        fs::read_to_string(outputs.to.join("target/debug/app")).unwrap(),
        "src/target/debug/app"
    );
}

#[test]
fn what_is_not_there_is_told() {
    let outputs = Outputs::new();
    outputs.write("src/app", "");
    symlink("loop", outputs.root.join("src/loop")).unwrap();
    let snapshot = outputs.commit();
    let long = "x".repeat(5000);
    let missing = [
        "nothing",
        "*.so",
        "/no/where",
        "app/below",
        "app/",
        "loop/x",
        &long,
        "**/y",
    ];
    let report = outputs
        .copy(&snapshot, &[&missing[..], &["app"]].concat())
        .unwrap();
    assert_eq!(report.unmatched, missing);
    assert_eq!((report.files, report.unchanged), (1, 0));
    let elsewhere = OutputRequest {
        patterns: vec!["app".into()],
        base: "/nowhere".into(),
        to: outputs.to.clone(),
    };
    let report = outputs
        .fixture
        .store
        .copy_outputs(&snapshot, &elsewhere)
        .unwrap();
    assert_eq!(report.unmatched, ["app"]);
}

#[test]
fn wrong_requests_are_refused_before_anything_is_written() {
    let outputs = Outputs::new();
    outputs.write("src/app", "");
    let snapshot = outputs.commit();
    for (bad, reason) in [
        ("../etc/passwd", "`..`"),
        ("a/../../b", "`..`"),
        ("a[", "character class"),
        ("", "empty"),
        ("/", "whole file system"),
        ("a\0b", "NUL"),
    ] {
        assert_refused(outputs.copy(&snapshot, &["app", bad]), reason);
    }
    assert!(!outputs.to.exists());
    let mut request = OutputRequest {
        patterns: vec!["app".into()],
        base: "src".into(),
        to: outputs.to.clone(),
    };
    let store = &outputs.fixture.store;
    assert_refused(store.copy_outputs(&snapshot, &request), "absolute");
    request.base = "/src".into();
    let file = outputs.fixture.directory.path().join("file");
    fs::write(&file, "").unwrap();
    for to in [file.clone(), file.join("below")] {
        request.to = to;
        assert_refused(store.copy_outputs(&snapshot, &request), "not a directory");
    }
    let gone = SnapshotId::new("no-such-snapshot");
    assert!(matches!(
        store.copy_outputs(&gone, &request),
        Err(StoreError::SnapshotNotFound { .. })
    ));
}

#[test]
fn what_is_the_same_is_left_alone() {
    let outputs = Outputs::new();
    for path in ["src/out/a", "src/out/b", "src/out/c"] {
        outputs.write(path, path);
    }
    symlink("a", outputs.root.join("src/out/link")).unwrap();
    let snapshot = outputs.commit();
    let first = outputs.copy(&snapshot, &["out"]).unwrap();
    assert_eq!((first.files, first.unchanged, first.bytes), (4, 0, 27));
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let file = |name: &str| outputs.to.join("out").join(name);
    for name in ["a", "b", "c"] {
        fs::File::open(file(name))
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    fs::write(file("b"), "src/out/B").unwrap();
    fs::set_permissions(file("c"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(file("link")).unwrap();
    symlink("b", file("link")).unwrap();
    let began = SystemTime::now() - Duration::from_secs(1);
    let second = outputs.copy(&snapshot, &["out"]).unwrap();
    assert_eq!((second.files, second.unchanged, second.bytes), (3, 1, 18));
    let modified = |name: &str| fs::metadata(file(name)).unwrap().modified().unwrap();
    assert_eq!(modified("a"), old);
    assert!(modified("b") >= began && modified("c") >= began);
    assert_eq!(fs::read_to_string(file("b")).unwrap(), "src/out/b");
    let mode = |name: &str| fs::metadata(file(name)).unwrap().mode();
    assert_eq!(mode("c"), mode("a"));
    assert_eq!(fs::read_link(file("link")).unwrap(), Path::new("a"));
    let third = outputs.copy(&snapshot, &["out"]).unwrap();
    assert_eq!((third.files, third.unchanged, third.bytes), (0, 4, 0));
}

#[test]
fn nothing_harmful_comes_out() {
    let outputs = Outputs::new();
    outputs.write("src/out/setuid", "x");
    let setuid = outputs.root.join("src/out/setuid");
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o6755)).unwrap();
    fs::create_dir(outputs.root.join("src/out/closed")).unwrap();
    outputs.write("src/out/closed/file", "y");
    let closed = outputs.root.join("src/out/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o1055)).unwrap();
    mknodat(
        CWD,
        outputs.root.join("src/out/fifo"),
        FileType::Fifo,
        Mode::RWXU,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(outputs.root.join("src/s")).unwrap();
    symlink("/etc/passwd", outputs.root.join("src/out/passwd")).unwrap();
    let snapshot = outputs.commit();
    let report = outputs.copy(&snapshot, &["out", "s", "out/fifo"]).unwrap();
    assert_eq!(
        report.skipped,
        [Path::new("/src/out/fifo"), Path::new("/src/s")]
    );
    assert_eq!(report.unmatched, [""; 0]);
    let out = outputs.to.join("out");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&out.join("setuid")), 0o755);
    assert_eq!(
        mode(&out.join("closed")),
        0o755,
        "its owner could not write"
    );
    assert_eq!(fs::read_to_string(out.join("closed/file")).unwrap(), "y");
    let user = rustix::process::geteuid().as_raw();
    assert_eq!(fs::metadata(out.join("setuid")).unwrap().uid(), user);
    // As a link: what it leads to is nobody's business.
    assert_eq!(
        fs::read_link(out.join("passwd")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert!(!out.join("fifo").exists());
}

#[test]
fn links_of_the_guest_lead_nowhere_outside() {
    let outputs = Outputs::new();
    outputs.write("real/file", "in the guest");
    let victim = outputs.fixture.directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "of the host").unwrap();
    symlink(&victim, outputs.root.join("src/host")).unwrap();
    symlink("../real", outputs.root.join("src/dist")).unwrap();
    symlink("../../../../../../real", outputs.root.join("src/up")).unwrap();
    let snapshot = outputs.commit();
    // Names on the way are followed, inside the snapshot; a pattern's own match is not.
    outputs.assert_brings(&snapshot, &["dist/file"], &["dist", "dist/file"]);
    outputs.assert_brings(&snapshot, &["up/*"], &["up", "up/file"]);
    outputs.assert_brings(&snapshot, &["dist"], &["dist"]);
    assert!(
        fs::symlink_metadata(outputs.to.join("dist"))
            .unwrap()
            .is_symlink()
    );
    let report = outputs
        .copy(&snapshot, &["host/file", "**/victim/*"])
        .unwrap();
    assert_eq!(report.unmatched, ["host/file", "**/victim/*"]);
    assert_eq!(report.files, 0);
}

/// First the guest makes a link of an output's directory, then it is an output's parent.
#[test]
fn nothing_is_written_through_a_link_that_was_brought_before() {
    let outputs = Outputs::new();
    let victim = outputs.fixture.directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    symlink(&victim, outputs.root.join("src/dist")).unwrap();
    let first = outputs.commit();
    outputs.copy(&first, &["dist"]).unwrap();
    assert_eq!(fs::read_link(outputs.to.join("dist")).unwrap(), victim);
    let root = upper(&outputs.fixture.store, &outputs.vm);
    fs::create_dir(root.join("src")).unwrap();
    outputs.write("src/dist/evil", "guest");
    let second = outputs.commit();
    for pattern in ["dist", "dist/evil", "dist/*", "**"] {
        assert_refused(outputs.copy(&second, &[pattern]), "not a directory");
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn links_at_the_destination_are_replaced_and_not_followed() {
    let outputs = Outputs::new();
    outputs.write("src/out/sub/file", "guest");
    outputs.write("src/top", "guest");
    symlink("elsewhere", outputs.root.join("src/link")).unwrap();
    let snapshot = outputs.commit();
    let victim = outputs.fixture.directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["file", "linked"] {
        fs::write(victim.join(name), "precious").unwrap();
    }
    fs::create_dir_all(outputs.to.join("out")).unwrap();
    symlink(victim.join("file"), outputs.to.join("top")).unwrap();
    symlink(victim.join("file"), outputs.to.join("link")).unwrap();
    let report = outputs.copy(&snapshot, &["top", "link"]).unwrap();
    assert_eq!(report.files, 2);
    assert_eq!(fs::read_to_string(outputs.to.join("top")).unwrap(), "guest");
    assert!(
        !fs::symlink_metadata(outputs.to.join("top"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(
        fs::read_link(outputs.to.join("link")).unwrap(),
        Path::new("elsewhere")
    );
    // In place of a directory it is refused.
    symlink(&victim, outputs.to.join("out/sub")).unwrap();
    assert_refused(outputs.copy(&snapshot, &["out"]), "not a directory");
    assert_refused(
        outputs.copy(&snapshot, &["out/sub/file"]),
        "not a directory",
    );
    // A hard link keeps its content.
    fs::remove_file(outputs.to.join("top")).unwrap();
    fs::hard_link(victim.join("linked"), outputs.to.join("top")).unwrap();
    outputs.copy(&snapshot, &["top"]).unwrap();
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 2);
    for name in ["file", "linked"] {
        assert_eq!(fs::read_to_string(victim.join(name)).unwrap(), "precious");
    }
    // The destination itself may be a link: that is the caller's choice.
    let real = outputs.fixture.directory.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::remove_dir_all(&outputs.to).unwrap();
    symlink(&real, &outputs.to).unwrap();
    outputs.copy(&snapshot, &["top"]).unwrap();
    assert_eq!(fs::read_to_string(real.join("top")).unwrap(), "guest");
}

#[test]
fn what_stands_in_the_way_is_refused_and_the_rest_stays() {
    let outputs = Outputs::new();
    outputs.write("src/a", "a");
    outputs.write("src/b", "b");
    outputs.write("src/d/file", "d");
    let snapshot = outputs.commit();
    fs::create_dir_all(outputs.to.join("b/full")).unwrap();
    assert_refused(outputs.copy(&snapshot, &["a", "b"]), "is a directory");
    assert_eq!(outputs.brought(), ["a", "b", "b/full"]);
    fs::write(outputs.to.join("d"), "a file").unwrap();
    assert_refused(outputs.copy(&snapshot, &["d"]), "not a directory");
    fs::remove_file(outputs.to.join("d")).unwrap();
    fs::remove_file(outputs.to.join("a")).unwrap();
    mknodat(CWD, outputs.to.join("a"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_refused(outputs.copy(&snapshot, &["a"]), "not a regular file");
}

#[test]
fn two_files_cannot_go_to_one_place() {
    let outputs = Outputs::new();
    outputs.write("src/one/app", "1");
    outputs.write("src/two/app", "2");
    outputs.write("src/app", "3");
    let snapshot = outputs.commit();
    assert_refused(
        outputs.copy(&snapshot, &["/src/*/app"]),
        "both /src/one/app and",
    );
    assert_refused(outputs.copy(&snapshot, &["app", "/src/two/app"]), "both");
    outputs
        .copy(&snapshot, &["app", "/src/app", "/src/ap?"])
        .unwrap();
    assert_eq!(fs::read_to_string(outputs.to.join("app")).unwrap(), "3");
}

#[test]
fn names_are_any_bytes() {
    let outputs = Outputs::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 \n.bin");
    fs::write(outputs.root.join("src").join(name), "x").unwrap();
    let hidden = ".hmvm-0000000000000000-1";
    outputs.write(&format!("src/{hidden}"), "a guess at a temporary name");
    let snapshot = outputs.commit();
    assert_eq!(outputs.copy(&snapshot, &["*.bin"]).unwrap().files, 1);
    assert_eq!(fs::read_to_string(outputs.to.join(name)).unwrap(), "x");
    assert_eq!(outputs.copy(&snapshot, &["*"]).unwrap().files, 1);
    assert!(outputs.to.join(hidden).exists());
}

#[test]
fn trees_may_be_large_and_deep() {
    let outputs = Outputs::new();
    for number in 0..3000 {
        outputs.write(&format!("src/many/{}/{number}", number % 7), "");
    }
    // Longer than the longest path that the kernel takes.
    let name = "d".repeat(200);
    let mut directory = fs::File::open(outputs.root.join("src")).unwrap();
    for _ in 0..30 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let next = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap();
        directory = next.into();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&directory, "end", flags, Mode::RWXU).unwrap();
    let snapshot = outputs.commit();
    let report = outputs.copy(&snapshot, &["**"]).unwrap();
    assert_eq!(report.files, 3001);
    assert_eq!(outputs.copy(&snapshot, &["**"]).unwrap().unchanged, 3001);
    let report = outputs.copy(&snapshot, &["**/end", "many/3/*"]).unwrap();
    assert_eq!((report.unchanged, report.unmatched.len()), (1 + 429, 0));
    // What stands in the way of the removal of the fixture: its paths are too long.
    std::process::Command::new("rm")
        .arg("-rf")
        .arg(&outputs.to)
        .status()
        .unwrap();
}
