use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use hm_vm_store::inject::{EntryKind, InjectError, StatCache, Tree, scan};

use super::support::{Host, paths, poison, set_mode, settle};

#[test]
fn entries_come_sorted_by_the_bytes_of_their_paths() {
    let host = Host::new();
    host.write("a/x", "1");
    host.write("a-b", "2");
    host.write(".hidden", "3");
    fs::create_dir(host.dir.join("empty")).unwrap();
    symlink("nowhere", host.dir.join("link")).unwrap();
    assert_eq!(
        paths(&host.scan()),
        [".hidden", "a", "a-b", "a/x", "empty", "link"]
    );
}

#[test]
fn the_digest_tells_contents_modes_names_and_targets_but_not_times_or_places() {
    let build = |change: &dyn Fn(&Host)| {
        let host = Host::new();
        host.write("dir/file", "content");
        symlink("dir/file", host.dir.join("link")).unwrap();
        set_mode(&host.dir.join("dir/file"), 0o644);
        change(&host);
        host.scan().digest().to_owned()
    };
    let plain = build(&|_| {});
    let touched = build(&|host| {
        let file = File::options()
            .write(true)
            .open(host.dir.join("dir/file"))
            .unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        file.set_times(FileTimes::new().set_modified(old)).unwrap();
    });
    assert_eq!(plain, touched);
    let changes: [&dyn Fn(&Host); 6] = [
        &|host| drop(host.write("dir/file", "Content")),
        &|host| set_mode(&host.dir.join("dir/file"), 0o755),
        &|host| set_mode(&host.dir.join("dir"), 0o700),
        &|host| fs::rename(host.dir.join("dir/file"), host.dir.join("dir/file2")).unwrap(),
        &|host| fs::create_dir(host.dir.join("empty")).unwrap(),
        &|host| {
            fs::remove_file(host.dir.join("link")).unwrap();
            symlink("dir", host.dir.join("link")).unwrap();
        },
    ];
    let mut digests: Vec<String> = changes.iter().map(|change| build(*change)).collect();
    digests.push(plain);
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn names_need_not_be_utf8() {
    let host = Host::new();
    let name = OsStr::from_bytes(b"caf\xe9\n\xff");
    fs::write(host.dir.join(name), "x").unwrap();
    let tree = host.scan();
    assert!(tree.find(name.as_bytes()).is_some());
}

#[test]
fn links_are_taken_as_links_and_not_followed() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path(), host.dir.join("out")).unwrap();
    let tree = host.scan();
    assert_eq!(paths(&tree), ["out"]);
    let target = outside.path().as_os_str().as_bytes();
    let kind = tree.find(b"out").unwrap().kind;
    assert_eq!(kind, EntryKind::Symlink { target });
}

#[test]
fn sockets_and_fifos_are_left_out_with_a_notice() {
    let host = Host::new();
    host.write("file", "x");
    let _socket = UnixListener::bind(host.dir.join("socket")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(host.dir.join("fifo"))
        .status()
        .unwrap();
    assert!(made.success());
    let tree = host.scan();
    assert_eq!(paths(&tree), ["file"]);
    assert_eq!(tree.notices().len(), 2);
    assert!(tree.notices()[0].contains("fifo"));
}

#[test]
fn a_path_that_is_no_directory_is_invalid_input() {
    let host = Host::new();
    let file = host.write("file", "x");
    for path in [file, host.dir.join("missing")] {
        let error = scan(&path, &StatCache::disabled()).unwrap_err();
        assert!(
            matches!(error, InjectError::InvalidInput { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn gitignore_holds_without_a_repository_and_below_itself_only() {
    let host = Host::new();
    host.write(".gitignore", "*.o\n/build\nlogs/\n!keep.o\n");
    host.write("a.o", "");
    host.write("keep.o", "");
    host.write("build/x", "");
    host.write("sub/build", "");
    host.write("sub/logs/x", "");
    host.write("sub/.gitignore", "!b.o\n*.tmp\n");
    host.write("sub/b.o", "");
    host.write("c.tmp", "");
    host.write("sub/c.tmp", "");
    assert_eq!(
        paths(&host.scan()),
        [
            ".gitignore",
            "c.tmp",
            "keep.o",
            "sub",
            "sub/.gitignore",
            "sub/b.o",
            "sub/build"
        ]
    );
}

#[test]
fn hmvmignore_has_precedence_over_gitignore_at_any_depth() {
    let host = Host::new();
    host.write(".hmvmignore", "!dist\n*.bin\n");
    host.write(".gitignore", "dist\n");
    host.write("sub/.gitignore", "!*.bin\ndist\n");
    host.write("dist/x", "");
    host.write("sub/dist", "");
    host.write("sub/a.bin", "");
    assert_eq!(
        paths(&host.scan()),
        [
            ".gitignore",
            ".hmvmignore",
            "dist",
            "dist/x",
            "sub",
            "sub/.gitignore",
            "sub/dist"
        ]
    );
}

#[test]
fn git_directories_are_left_out_unless_asked_for() {
    let host = Host::new();
    host.write(".git/config", "");
    host.write("module/.git", "gitdir: elsewhere\n");
    host.write(".gitignore", "!.git\n");
    assert_eq!(paths(&host.scan()), [".gitignore", "module"]);
    host.write(".hmvmignore", "!.git\n");
    let all = paths(&host.scan());
    assert!(all.contains(&".git/config".to_owned()), "{all:?}");
    assert!(all.contains(&"module/.git".to_owned()), "{all:?}");
}

#[test]
fn rules_of_parents_count_up_to_the_top_of_the_repository() {
    let host = Host::new();
    host.write(".gitignore", "*.outside\n");
    host.write("repo/.git/config", "");
    host.write("repo/.gitignore", "*.o\n/sub/exact\nsub2/\n");
    host.write("repo/sub/a.o", "");
    host.write("repo/sub/exact", "");
    host.write("repo/sub/b.outside", "");
    host.write("repo/sub/deep/exact", "");
    let tree = scan(&host.dir.join("repo/sub"), &StatCache::disabled()).unwrap();
    assert_eq!(paths(&tree), ["b.outside", "deep", "deep/exact"]);
}

#[test]
fn what_is_in_an_ignored_directory_is_not_read() {
    let host = Host::new();
    host.write(".gitignore", "target\n");
    host.write("target/x", "");
    set_mode(&host.dir.join("target"), 0o000);
    assert_eq!(paths(&host.scan()), [".gitignore"]);
    set_mode(&host.dir.join("target"), 0o755);
}

#[test]
fn a_link_in_place_of_an_ignore_file_is_not_followed() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("rules"), "*\n").unwrap();
    symlink(outside.path().join("rules"), host.dir.join(".gitignore")).unwrap();
    host.write("file", "");
    assert_eq!(paths(&host.scan()), [".gitignore", "file"]);
}

#[test]
fn an_ignore_file_that_is_no_utf8_still_holds() {
    let host = Host::new();
    host.write(".gitignore", b"\xff\n*.o\n");
    host.write("a.o", "");
    assert_eq!(paths(&host.scan()), [".gitignore"]);
}

fn hash_of(tree: &Tree, path: &str) -> [u8; 32] {
    match tree.find(path.as_bytes()).unwrap().kind {
        EntryKind::File { hash, .. } => hash,
        kind => panic!("{kind:?}"),
    }
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let host = Host::new();
    host.write("file", "content");
    settle(&host);
    let real = *blake3::hash(b"content").as_bytes();
    assert_eq!(hash_of(&host.scan_cached(), "file"), real);
    poison(&host, b"content");
    assert_ne!(hash_of(&host.scan_cached(), "file"), real);
}

#[test]
fn a_file_changed_with_its_size_and_mtime_kept_is_read_again() {
    let host = Host::new();
    let path = host.write("file", "content");
    settle(&host);
    host.scan_cached();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "CONTENT").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(FileTimes::new().set_modified(modified))
        .unwrap();
    let tree = host.scan_cached();
    assert_eq!(hash_of(&tree, "file"), *blake3::hash(b"CONTENT").as_bytes());
}

#[test]
fn a_file_as_young_as_the_scan_is_not_trusted() {
    let host = Host::new();
    host.write("old", "old");
    settle(&host);
    // Each round writes again within the same tick of the clock as the scan before it.
    for round in 0..200 {
        let content = format!("{round:03}");
        host.write("young", &content);
        let tree = host.scan_cached();
        let expected = *blake3::hash(content.as_bytes()).as_bytes();
        assert_eq!(hash_of(&tree, "young"), expected, "round {round}");
    }
}

#[test]
fn a_damaged_cache_is_made_anew() {
    let host = Host::new();
    host.write("file", "content");
    settle(&host);
    let digest = host.scan_cached().digest().to_owned();
    let path = host.cache_file();
    let good = fs::read(&path).unwrap();
    for damage in [&b""[..], b"garbage", &good[..good.len() / 2], &good[1..]] {
        fs::write(&path, damage).unwrap();
        assert_eq!(host.scan_cached().digest(), digest);
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

#[test]
fn a_cache_is_written_only_when_something_changed() {
    use std::os::unix::fs::MetadataExt;
    let host = Host::new();
    host.write("file", "content");
    settle(&host);
    host.scan_cached();
    let inode = |host: &Host| fs::metadata(host.cache_file()).unwrap().ino();
    let first = inode(&host);
    host.scan_cached();
    assert_eq!(inode(&host), first);
    fs::remove_file(host.dir.join("file")).unwrap();
    host.scan_cached();
    assert_ne!(inode(&host), first);
}

#[test]
fn a_cache_that_cannot_be_written_does_not_matter() {
    let host = Host::new();
    host.write("file", "content");
    fs::write(&host.caches, "a file").unwrap();
    assert_eq!(host.scan_cached(), host.scan());
}

#[test]
fn a_manifest_survives_encoding() {
    let host = Host::new();
    host.write("a/b/c", "1");
    host.write("a/b/d", "22");
    symlink("a/b", host.dir.join("link")).unwrap();
    let tree = host.scan();
    let bytes = tree.encode();
    let back = Tree::decode(&bytes).unwrap();
    assert_eq!(back.digest(), tree.digest());
    assert_eq!(paths(&back), paths(&tree));
    assert_eq!(back.total_bytes(), 3);
}

#[test]
fn a_damaged_manifest_is_refused() {
    let host = Host::new();
    host.write("a/b/c", "1");
    symlink("a/b", host.dir.join("link")).unwrap();
    let bytes = host.scan().encode();
    for cut in 0..bytes.len() {
        assert!(Tree::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        assert!(Tree::decode(&damaged).is_err(), "changed at {at}");
    }
}

#[test]
fn a_deep_and_wide_tree_is_found_whole() {
    let host = Host::new();
    for wide in 0..40 {
        for deep in 0..10 {
            let path = format!("w{wide}/{}", "d/".repeat(deep) + "file");
            host.write(&path, format!("{wide} {deep}"));
        }
    }
    let tree = host.scan();
    let files = tree
        .entries()
        .filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
    assert_eq!(files.count(), 400);
    assert_eq!(tree.len(), 400 + 40 * 10);
    assert_eq!(tree, host.scan_cached());
}
