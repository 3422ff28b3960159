//! Layers in overlayfs's own form.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use hm_vm_store::import::LayerOptions;
use tar::EntryType;

use super::layer_support::{
    CAPABILITY, Entry, Layers, archive, directory, file, link, options, symlink, xattrs,
};
use super::support::is_root;

/// What a case shows of a path: `None` for nothing.
type Shown = (&'static str, Option<&'static str>);

fn shows(name: &str, layers: Vec<Vec<Entry>>, expected: &[Shown]) {
    let archives: Vec<Vec<u8>> = layers.into_iter().map(archive).collect();
    let merged = Layers::of(&archives).merged();
    for &(path, begin) in expected {
        let found = merged.get(path).map(String::as_str);
        let fits = match (found, begin) {
            (Some(found), Some(begin)) => found.starts_with(begin),
            (None, None) => true,
            _ => false,
        };
        assert!(fits, "{name}: {path} is {found:?}, not {begin:?}");
    }
}

/// What Docker 20.10 shows of the same layers with overlay2.
#[test]
fn several_layers_show_what_docker_shows() {
    if !is_root("several_layers_show_what_docker_shows") {
        return;
    }
    let old = || vec![directory("foo"), file("foo/old")];
    let new = || file("foo/new");
    let marker = |path: &str| file(path);
    shows(
        "whiteout before a file",
        vec![old(), vec![marker(".wh.foo"), file("foo").content("x")]],
        &[("foo", Some("file of 1 "))],
    );
    shows(
        "whiteout before a directory",
        vec![old(), vec![marker(".wh.foo"), directory("foo"), new()]],
        &[("foo/old", Some("file")), ("foo/new", Some("file"))],
    );
    // Docker refuses the next two; here a whiteout does not concern its own layer.
    shows(
        "whiteout after a directory",
        vec![old(), vec![directory("foo"), new(), marker(".wh.foo")]],
        &[("foo/old", None), ("foo/new", Some("file"))],
    );
    shows(
        "whiteout after a file",
        vec![old(), vec![file("foo").content("x"), marker(".wh.foo")]],
        &[("foo", Some("file of 1 "))],
    );
    shows(
        "opaque before the directory",
        vec![
            old(),
            vec![
                marker("foo/.wh..wh..opq"),
                directory("foo").mode(0o700),
                new(),
            ],
        ],
        &[
            ("foo", Some("directory 700 0:0 1000000000.")),
            ("foo/old", None),
            ("foo/new", Some("file")),
        ],
    );
    shows(
        "opaque at the end",
        vec![
            vec![
                directory("foo"),
                file("foo/old"),
                directory("foo/sub"),
                file("foo/sub/old"),
            ],
            vec![
                directory("foo"),
                new(),
                directory("foo/sub"),
                marker("foo/.wh..wh..opq"),
            ],
        ],
        &[
            ("foo/old", None),
            ("foo/sub", Some("directory 755 0:0 1000000000.")),
            ("foo/sub/old", None),
        ],
    );
    shows(
        "opaque root",
        vec![vec![file("old")], vec![marker(".wh..wh..opq"), file("new")]],
        &[("old", Some("file")), ("new", Some("file"))],
    );
    shows(
        "link to a whiteout",
        vec![vec![file("a")], vec![marker(".wh.a"), link("b", "a")]],
        &[("a", None), ("b", None)],
    );
    shows(
        "AUFS's own",
        vec![vec![
            directory(".wh..wh.plnk"),
            file(".wh..wh.plnk/1.2"),
            file(".wh..wh.aufs"),
            file("x"),
        ]],
        &[
            (".wh..wh.plnk", None),
            (".wh.aufs", None),
            ("x", Some("file")),
        ],
    );
    shows(
        "replaced kinds",
        vec![
            vec![
                directory("d2f"),
                file("d2f/x"),
                file("f2d"),
                symlink("l2d", "d2f"),
                directory("d2l"),
                file("d2l/x"),
            ],
            vec![
                file("d2f").content("f"),
                directory("f2d"),
                file("f2d/y"),
                directory("l2d"),
                file("l2d/z"),
                symlink("d2l", "f2d"),
            ],
        ],
        &[
            ("d2f", Some("file of 1 ")),
            ("f2d/y", Some("file")),
            ("l2d", Some("directory")),
            ("l2d/z", Some("file")),
            ("l2d/x", None),
            ("d2l", Some("link to f2d")),
        ],
    );
}

#[test]
fn directories_that_are_not_told_of_are_as_dockers() {
    if !is_root("directories_that_are_not_told_of_are_as_dockers") {
        return;
    }
    shows(
        "implied",
        vec![
            vec![
                directory("tmp").mode(0o1777),
                directory("o").owner(1000, 1000),
            ],
            vec![file("tmp/x"), file("o/y"), file("n/e/w")],
        ],
        &[
            ("tmp", Some("directory 755 0:0 ")),
            ("o", Some("directory 755 0:0 ")),
            ("n", Some("directory 755 0:0 ")),
            ("n/e", Some("directory 755 0:0 ")),
        ],
    );
    shows(
        "set-group-id",
        vec![vec![
            directory("s").mode(0o2775).owner(0, 50),
            file("s/f"),
            directory("s/d"),
            symlink("s/l", "f"),
            file("s/i/x"),
            file("s/own").owner(7, 7),
        ]],
        &[
            ("s", Some("directory 2775 0:50 1000000000.")),
            ("s/d", Some("directory 755 0:0 1000000000.")),
            ("s/l", Some("link to f 777 0:0 1000000000.")),
            ("s/i", Some("directory 2755 0:0 ")),
            ("s/own", Some("file of 0 af1349b9f5f9a1a6 644 7:7 ")),
        ],
    );
}

#[test]
fn attributes_are_kept() {
    if !is_root("attributes_are_kept") {
        return;
    }
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    shows(
        "attributes",
        vec![vec![
            directory("d")
                .mode(0o1700)
                .owner(1, 2)
                .mtime("1234567890.123456789"),
            file("d/f")
                .mode(0o4751)
                .owner(3, 4)
                .mtime("1.5")
                .content("x"),
            Entry::new(EntryType::Char, "null").mode(0o666).device(1, 3),
            Entry::new(EntryType::Block, "loop")
                .mode(0o660)
                .owner(0, 6)
                .device(7, 300),
            Entry::new(EntryType::Fifo, "fifo").mode(0o622).owner(2, 0),
            file("cap").xattr("security.capability", CAPABILITY),
            file("user").owner(9, 9).xattr("user.a", b"b\0c"),
            file("acl")
                .mode(0o644)
                .xattr("system.posix_acl_access", acl),
            symlink("link", "nowhere").owner(5, 6).mtime("1.25"),
        ]],
        &[
            ("d", Some("directory 1700 1:2 1234567890.123456789")),
            ("null", Some("device 666 0:0 1000000000.000000000 103")),
            ("loop", Some("device 660 0:6 1000000000.000000000 10072c")),
            ("fifo", Some("fifo 622 2:0 1000000000.")),
            ("link", Some("link to nowhere 777 5:6 1.250000000")),
        ],
    );
    let layers = Layers::of(&[archive(vec![
        file("cap")
            .owner(1, 1)
            .xattr("security.capability", CAPABILITY),
        file("user").owner(9, 9).xattr("user.a", b"b\0c"),
        file("acl")
            .mode(0o644)
            .xattr("system.posix_acl_access", acl),
    ])]);
    let of = |name: &str| xattrs(&layers.top().join(name));
    assert_eq!(of("cap")["security.capability"], CAPABILITY);
    assert_eq!(of("user")["user.a"], b"b\0c");
    assert_eq!(of("acl")["system.posix_acl_access"], acl);
    assert!(layers.notices.is_empty(), "{:?}", layers.notices);
}

/// As with Docker, what the link says of owner, mode and time is said of the file.
#[test]
fn hard_links_give_their_attributes_to_the_file() {
    if !is_root("hard_links_give_their_attributes_to_the_file") {
        return;
    }
    let layers = Layers::of(&[archive(vec![
        file("a")
            .content("x")
            .mode(0o4755)
            .owner(5, 6)
            .mtime("1234567890.5"),
        link("b", "a").mode(0o600).owner(7, 8).mtime("1111111111"),
        file("c").xattr("security.capability", CAPABILITY),
        link("d", "c"),
        file("e").xattr("security.capability", CAPABILITY),
        link("deep/f", "/./e").xattr("security.capability", CAPABILITY),
    ])]);
    let stat = |name: &str| fs::metadata(layers.top().join(name)).unwrap();
    let a = stat("a");
    assert_eq!(a.ino(), stat("b").ino());
    assert_eq!(
        (a.mode() & 0o7777, a.uid(), a.gid(), a.mtime()),
        (0o600, 7, 8, 1_111_111_111)
    );
    assert!(xattrs(&layers.top().join("c")).is_empty());
    assert_eq!(
        xattrs(&layers.top().join("deep/f"))["security.capability"],
        CAPABILITY
    );
}

#[test]
fn files_of_layers_below_are_copied_up_for_links() {
    if !is_root("files_of_layers_below_are_copied_up_for_links") {
        return;
    }
    let layers = Layers::of(&[
        archive(vec![
            directory("usr").mode(0o711).owner(1, 1),
            directory("usr/lib"),
            file("usr/lib/a")
                .content("lower")
                .mode(0o4755)
                .owner(2, 3)
                .xattr("user.k", b"v"),
            link("usr/lib/same", "usr/lib/a").mode(0o4755).owner(2, 3),
            symlink("lib", "usr/lib"),
            symlink("s", "target"),
            file("gone").content("gone"),
            file("hidden").content("h"),
        ]),
        archive(vec![file(".wh.gone"), file("middle").content("m")]),
        archive(vec![
            link("b", "lib/a").mode(0o4755).owner(2, 3),
            link("c", "b").mode(0o4755).owner(2, 3),
            link("d", "usr/lib/same").mode(0o4755).owner(2, 3),
            link("t", "s"),
            file(".wh.middle"),
            link("m", "middle"),
            file(".wh.later"),
            link("early", "hidden"),
            file(".wh.hidden"),
        ]),
    ]);
    let merged = layers.merged();
    let same = merged["b"].split(" same as ").next().unwrap();
    assert!(same.starts_with("file of 5 "), "{same}");
    assert!(
        same.contains(" 4755 2:3 1000000000.000000000 user.k=v"),
        "{same}"
    );
    for name in ["b", "c", "d", "usr/lib/a"] {
        assert_eq!(merged[name], format!("{same} same as b"), "{name}");
    }
    assert!(
        merged["usr"].starts_with("directory 711 1:1 1000000000."),
        "{}",
        merged["usr"]
    );
    assert!(merged["s"].ends_with("same as s") && merged["t"].ends_with("same as s"));
    assert_eq!(merged.get("m"), None, "a link to a whiteout");
    assert!(merged["early"].starts_with("file of 1 "));
    assert_eq!(merged.get("hidden"), None);
    let mut layers = layers;
    for target in ["gone", "nowhere", "usr", "usr/lib/a/x"] {
        let error = layers
            .add(&archive(vec![link("x", target)]), &options())
            .unwrap_err();
        assert!(error.to_string().contains("hard link to"), "{error}");
        fs::remove_dir_all(layers.top().with_file_name("3")).unwrap();
    }
}

#[test]
fn what_would_tell_overlayfs_something_is_left_out() {
    let mut layers = Layers::new();
    let entries = vec![
        directory("o").xattr("user.overlay.opaque", b"y"),
        directory("t").xattr("trusted.overlay.opaque", b"y"),
        file("r").xattr("user.overlay.redirect", b"/etc/shadow"),
        file("m").xattr("user.overlay.metacopy", b""),
        Entry::new(EntryType::Char, "w").device(0, 0),
        link("also", "w"),
        file("label").xattr("security.selinux", b"x"),
    ];
    layers.add(&archive(entries), &options()).unwrap();
    for name in ["o", "t", "r", "m", "label"] {
        let found = xattrs(&layers.top().join(name));
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    for name in ["w", "also"] {
        assert!(!layers.top().join(name).exists());
    }
    let notices = layers.notices.join("\n");
    assert!(
        notices.contains("whiteouts) left out: 1 (first: w)"),
        "{notices}"
    );
    assert!(
        notices.contains("attributes not kept: 5 (first: o)"),
        "{notices}"
    );
    assert!(
        notices.contains("left out, left out: 1 (first: also)"),
        "{notices}"
    );
}

#[test]
fn the_form_is_overlayfss() {
    let layers = Layers::of(&[archive(vec![
        file("d/.wh..wh..opq"),
        file("d/.wh.gone"),
        directory("d"),
    ])]);
    assert_eq!(xattrs(&layers.top().join("d"))["user.overlay.opaque"], b"y");
    let gone = fs::symlink_metadata(layers.top().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
}

#[test]
fn the_root_s_own_entry_counts_where_asked() {
    let entries = || archive(vec![directory("./").mode(0o710).mtime("5"), file("x")]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut layers = Layers::new();
    layers.add(&entries(), &options()).unwrap();
    assert_eq!(mode(layers.top()), 0o755);
    assert_eq!(fs::metadata(layers.top()).unwrap().mtime(), 5);
    let asked = LayerOptions {
        root_entry: true,
        ..options()
    };
    layers.add(&entries(), &asked).unwrap();
    assert_eq!(mode(layers.top()), 0o710);
    assert_eq!(fs::metadata(layers.top()).unwrap().mtime(), 5);
}

#[test]
fn times_of_directories_are_kept_in_any_order() {
    let layers = Layers::of(&[archive(vec![
        directory("a").mtime("1"),
        directory("a/b").mtime("2"),
        file("x"),
        file("a/b/c"),
        directory("c").mtime("3"),
        file("a/y"),
        symlink("to", "a/b"),
        file("to/through"),
        file("a/b/.wh.w"),
        file("c/d/e/f").mtime("4"),
        directory("c/d").mtime("5"),
        file("c/d/e/g").mtime("6"),
        link("a/b/l", "x"),
    ])]);
    let time = |path: &str| fs::metadata(layers.top().join(path)).unwrap().mtime();
    let expected = [
        ("a", 1),
        ("a/b", 2),
        ("c", 3),
        ("c/d", 5),
        ("c/d/e", 4),
        ("", 1),
    ];
    for (path, mtime) in expected {
        assert_eq!(time(path), mtime, "{path:?}");
    }
    assert!(layers.top().join("a/b/through").exists());
}

#[test]
fn modes_do_not_depend_on_the_mask() {
    // Others cannot open directories without rights.
    if !is_root("modes_do_not_depend_on_the_mask") {
        return;
    }
    let modes = [0o000, 0o777, 0o666, 0o4777, 0o2666, 0o1777, 0o022];
    let mut entries = Vec::new();
    for mode in modes {
        entries.push(directory(&format!("d{mode:o}")).mode(mode));
        entries.push(file(&format!("f{mode:o}")).mode(mode));
        entries.push(Entry::new(EntryType::Fifo, &format!("p{mode:o}")).mode(mode));
    }
    let layers = Layers::of(&[archive(entries)]);
    for mode in modes {
        for kind in ["d", "f", "p"] {
            let path = layers.top().join(format!("{kind}{mode:o}"));
            assert_eq!(
                fs::metadata(&path).unwrap().mode() & 0o7777,
                mode,
                "{path:?}"
            );
        }
    }
}

#[test]
fn zeros_become_holes() {
    let mut content = vec![0; 1 << 20];
    content[5000] = 1;
    content.extend_from_slice(b"end");
    content.extend(vec![0; 3 << 20]);
    let layers = Layers::of(&[archive(vec![file("a"), file("sparse").content(&content)])]);
    let path = layers.top().join("sparse");
    assert_eq!(fs::read(&path).unwrap(), content);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 64 << 10);
}
