//! Scans of a part of a directory.

use std::fs;
use std::os::unix::fs::symlink;

use hm_vm_core::InjectSource;
use hm_vm_store::inject::{InjectError, StatCache, Tree, scan_source};

use super::support::{Host, paths, poison, set_mode, settle};

fn source(host: &Host, include: &[&str], exclude: &[&str]) -> InjectSource {
    let owned = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect();
    InjectSource {
        include: owned(include),
        exclude: owned(exclude),
        ..InjectSource::directory(&host.dir)
    }
}

fn scan(source: &InjectSource) -> Tree {
    scan_source(source, &StatCache::disabled()).unwrap()
}

#[track_caller]
fn assert_brought(host: &Host, include: &[&str], exclude: &[&str], expected: &[&str]) {
    let tree = scan(&source(host, include, exclude));
    assert_eq!(paths(&tree), expected, "{include:?} but {exclude:?}");
}

/// A small workspace.
fn workspace() -> Host {
    let host = Host::new();
    for path in [
        "Cargo.toml",
        "a/Cargo.toml",
        "a/src/main.rs",
        "a/src/gen/x.rs",
        "a/notes.md",
        "b/src/lib.rs",
        "docs/index.md",
    ] {
        host.write(path, path);
    }
    fs::create_dir(host.dir.join("empty")).unwrap();
    host
}

#[test]
fn the_digest_of_a_plain_source_is_what_it_always_was() {
    let host = Host::new();
    for (path, mode) in [("a-b", 0o644), ("a/x", 0o755)] {
        set_mode(&host.write(path, path), mode);
    }
    symlink("a/x", host.dir.join("link")).unwrap();
    set_mode(&host.dir.join("a"), 0o755);
    let digest = "848cb7a47e20343c4c4e14cf4f977f9fe97a81f093ae89cd822495cf0d3958eb";
    assert_eq!(host.scan().digest(), digest);
    assert_eq!(scan(&InjectSource::directory(&host.dir)).digest(), digest);
    // The same files, however they are named, have the same digest.
    for include in [&["*"][..], &["a", "a-b", "/link"], &["**"]] {
        assert_eq!(scan(&source(&host, include, &[])).digest(), digest);
    }
    assert_ne!(scan(&source(&host, &[], &["link"])).digest(), digest);
}

#[test]
fn a_pattern_brings_what_it_names_and_the_directories_on_the_way() {
    let host = workspace();
    let main = &["a", "a/src", "a/src/main.rs"][..];
    assert_brought(&host, &["/a/src/main.rs"], &[], main);
    assert_brought(&host, &["a/src/*.rs"], &[], main);
    assert_brought(&host, &["main.rs"], &[], main);
    assert_brought(
        &host,
        &["Cargo.toml"],
        &[],
        &["Cargo.toml", "a", "a/Cargo.toml"],
    );
    assert_brought(&host, &["/Cargo.toml"], &[], &["Cargo.toml"]);
    assert_brought(&host, &["/*.md"], &[], &[]);
    assert_brought(&host, &["nothing/like/it"], &[], &[]);
}

#[test]
fn a_directory_brings_what_is_in_it() {
    let host = workspace();
    let a = &["a", "a/src", "a/src/gen", "a/src/gen/x.rs", "a/src/main.rs"];
    assert_brought(&host, &["/a/src"], &[], a);
    assert_brought(&host, &["a/src/"], &[], a);
    assert_brought(&host, &["a/src/**"], &[], a);
    assert_brought(&host, &["empty"], &[], &["empty"]);
    // An empty one that only might lead to something is not brought.
    assert_brought(&host, &["index.md"], &[], &["docs", "docs/index.md"]);
}

#[test]
fn what_is_excluded_stays_out() {
    let host = workspace();
    assert_brought(
        &host,
        &["a", "docs/index.md"],
        &["gen/", "*.md"],
        &["a", "a/Cargo.toml", "a/src", "a/src/main.rs"],
    );
    assert_brought(
        &host,
        &[],
        &["/a", "/docs", "empty"],
        &["Cargo.toml", "b", "b/src", "b/src/lib.rs"],
    );
    // As in ignore files, a later pattern can take one back.
    assert_brought(
        &host,
        &["*.md"],
        &["*.md", "!index.md"],
        &["docs", "docs/index.md"],
    );
    assert_brought(
        &host,
        &["/a/src", "!gen"],
        &[],
        &["a", "a/src", "a/src/main.rs"],
    );
}

#[test]
fn directories_that_cannot_matter_are_not_walked() {
    let host = workspace();
    // Nobody may look into it; root may, and sees what it is not told.
    let forbidden = host.dir.join("b");
    set_mode(&forbidden, 0o000);
    let main = &["a", "a/src", "a/src/main.rs"][..];
    assert_brought(&host, &["/a/src/*.rs"], &[], main);
    assert_brought(&host, &["main.rs"], &["/b"], main);
    set_mode(&forbidden, 0o755);
}

#[test]
fn ignore_files_can_be_switched_off() {
    let host = Host::new();
    host.write(".git/config", "");
    host.write(".gitignore", "*.o\n");
    host.write(".hmvmignore", "tmp\n!.git\n");
    host.write("a.o", "");
    host.write("tmp/x", "");
    let mut all = source(&host, &[], &[]);
    all.ignore_files = false;
    assert_eq!(
        paths(&scan(&all)),
        [".gitignore", ".hmvmignore", "a.o", "tmp", "tmp/x"]
    );
    // A pattern does not overrule what the ignore files say.
    assert_brought(&host, &["a.o", "tmp"], &[], &[]);
}

#[test]
fn rules_of_parent_directories_can_be_switched_off() {
    let host = Host::new();
    host.write(".git/config", "");
    host.write(".gitignore", "*.o\n");
    host.write("sub/a.o", "");
    let mut below = InjectSource::directory(host.dir.join("sub"));
    assert_eq!(paths(&scan(&below)), [""; 0]);
    below.ignore_files = false;
    assert_eq!(paths(&scan(&below)), ["a.o"]);
}

#[test]
fn git_is_brought_when_a_pattern_names_it() {
    let host = Host::new();
    host.write(".git/HEAD", "ref");
    host.write(".git/config", "");
    host.write("sub/.git", "gitdir: elsewhere");
    host.write("sub/x", "");
    assert_brought(&host, &["*"], &[], &["sub", "sub/x"]);
    assert_brought(&host, &["**"], &[], &["sub", "sub/x"]);
    assert_brought(&host, &["/sub"], &[], &["sub", "sub/x"]);
    assert_brought(&host, &["/.git/HEAD"], &[], &[".git", ".git/HEAD"]);
    assert_brought(&host, &["/.git"], &["config"], &[".git", ".git/HEAD"]);
    assert_brought(&host, &["sub/.git"], &[], &["sub", "sub/.git"]);
}

#[test]
fn a_bad_pattern_is_named() {
    let host = workspace();
    for bad in ["a[z-b]", "", "  ", "# text", "{a,b"] {
        for source in [source(&host, &["ok", bad], &[]), source(&host, &[], &[bad])] {
            let error = scan_source(&source, &StatCache::disabled()).unwrap_err();
            match &error {
                InjectError::BadPattern { pattern, .. } => assert_eq!(pattern, bad),
                other => panic!("{other:?}"),
            }
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }
}

#[test]
fn links_and_special_files_are_chosen_as_files_are() {
    let host = workspace();
    symlink("a", host.dir.join("link")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(host.dir.join("fifo"))
        .status()
        .unwrap();
    assert!(made.success());
    assert_brought(&host, &["link"], &[], &["link"]);
    assert_brought(&host, &["link/"], &[], &[]);
    let tree = scan(&source(&host, &["link"], &[]));
    assert_eq!(tree.notices(), [""; 0], "the fifo was not asked for");
    assert_eq!(scan(&source(&host, &["fifo"], &[])).notices().len(), 1);
}

#[test]
fn names_that_are_no_utf8_are_matched() {
    use std::os::unix::ffi::OsStrExt;
    let host = Host::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.rs");
    fs::write(host.dir.join(name), "").unwrap();
    host.write("x.md", "");
    let tree = scan(&source(&host, &["*.rs"], &[]));
    assert!(tree.find(name.as_bytes()).is_some());
    assert_eq!(tree.len(), 1);
}

#[test]
fn what_one_source_has_read_another_one_does_not_read_again() {
    let host = Host::new();
    for path in ["a/main.rs", "b/lib.rs", "c.md"] {
        host.write(path, path);
    }
    settle(&host);
    let cache = StatCache::new(&host.caches);
    let rust = source(&host, &["*.rs"], &[]);
    let plain = InjectSource::directory(&host.dir);
    for (first, second) in [(&plain, &rust), (&rust, &plain)] {
        scan_source(first, &cache).unwrap();
        poison(&host, b"b/lib.rs");
        let tree = scan_source(second, &cache).unwrap();
        let known = tree.find(b"b/lib.rs").unwrap().kind;
        assert_ne!(known, scan(&plain).find(b"b/lib.rs").unwrap().kind);
        fs::remove_dir_all(&host.caches).unwrap();
    }
}

#[test]
fn no_source_throws_out_what_another_one_knows() {
    let host = Host::new();
    for path in ["a/main.rs", "b/lib.rs", "c.md"] {
        host.write(path, path);
    }
    settle(&host);
    let cache = StatCache::new(&host.caches);
    let sources = [
        source(&host, &["*.rs"], &[]),
        source(&host, &["/a"], &["*.md"]),
        InjectSource::directory(&host.dir),
    ];
    let files = || -> Vec<(String, u64)> {
        use std::os::unix::fs::MetadataExt;
        let mut found: Vec<_> = fs::read_dir(&host.caches)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, entry.metadata().unwrap().ino())
            })
            .collect();
        found.sort();
        found
    };
    let digests = || {
        sources
            .each_ref()
            .map(|source| scan_source(source, &cache).unwrap().digest().to_owned())
    };
    let first = digests();
    let before = files();
    assert_eq!(before.len(), 3);
    for _ in 0..3 {
        assert_eq!(digests(), first);
        assert_eq!(files(), before, "a cache was written again");
    }
}

#[test]
fn the_number_of_caches_of_a_directory_is_bounded() {
    let host = workspace();
    settle(&host);
    let cache = StatCache::new(&host.caches);
    for number in 0..40 {
        let pattern = format!("x{number}");
        scan_source(&source(&host, &[&pattern, "a"], &[]), &cache).unwrap();
    }
    let count = fs::read_dir(&host.caches).unwrap().count();
    assert!((2..=16).contains(&count), "{count}");
}
