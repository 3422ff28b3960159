//! Archives of layers that try to do harm.

use std::fs;
use std::io::Read;

use hm_vm_store::import::{ImportError, LayerLimits, LayerOptions, unpack_layer_from};
use proptest::prelude::*;
use tar::EntryType;

use super::layer_support::{Entry, Layers, archive, directory, file, link, options, symlink};
use super::support::{Archive, header};

#[test]
fn nothing_is_written_outside() {
    let outside = |layers: &Layers| layers.outside().to_str().unwrap().to_owned();
    // Entries, and what the error says; without one, the archive is unpacked.
    type Attempt = (fn(&str) -> Vec<Entry>, Option<&'static str>);
    let attempts: &[Attempt] = &[
        (|_| vec![file("../outside/new")], Some("..")),
        (|_| vec![file("/../outside/new")], Some("..")),
        (|_| vec![file("a/../../outside/new")], Some("..")),
        (|_| vec![directory("..")], Some("..")),
        (|_| vec![file("..")], Some("..")),
        (|_| vec![link("x", "../outside/file")], Some("..")),
        (|_| vec![file("../outside/.wh.file")], Some("..")),
        (|_| vec![file("../outside/.wh..wh..opq")], Some("..")),
        (|_| vec![file("d/.wh...")], Some("whiteout of nothing")),
        (|_| vec![file("d/.wh..")], Some("whiteout of nothing")),
        (|_| vec![file(".wh.")], Some("whiteout of nothing")),
        (|_| vec![file(".")], Some("must be a directory")),
        (|_| vec![symlink("/", "x")], Some("must be a directory")),
        (|_| vec![link("x", "/")], Some("link to the root")),
        (
            |_| vec![directory("d"), link("x", "d")],
            Some("link to a directory"),
        ),
        (|_| vec![symlink("l", "")], Some("without a target")),
        (
            |_| vec![file("f"), file("f/x")],
            Some("leads through a file"),
        ),
        (
            |_| vec![symlink("l", "l"), file("l/x")],
            Some("leads through"),
        ),
        (
            |_| vec![symlink("l", "nowhere"), file("l/x")],
            Some("leads through"),
        ),
        (|out| vec![file(&format!("{out}/new"))], None),
        (
            |out| vec![symlink("l", out), file("l/file")],
            Some("leads through"),
        ),
        (
            |_| vec![symlink("l", "../outside"), file("l/file")],
            Some("leads through"),
        ),
        (|_| vec![symlink("l", "/.."), file("l/outside/file")], None),
        (
            |_| {
                vec![
                    symlink("l", "../../.."),
                    directory("l/tmp"),
                    file("l/tmp/x"),
                ]
            },
            None,
        ),
        (
            |_| {
                vec![
                    symlink("l", "../outside"),
                    directory("l").mode(0o777),
                    file("l/file"),
                ]
            },
            None,
        ),
        (
            |_| vec![symlink("l", "../outside/file"), file("l").content("x")],
            None,
        ),
        (
            |_| {
                vec![
                    symlink("l", "../outside/file"),
                    link("m", "l").mode(0o777).mtime("1"),
                ]
            },
            None,
        ),
        (
            |_| vec![symlink("l", "../outside"), file("l/.wh.file")],
            Some("leads through"),
        ),
        (
            |_| vec![symlink("l", "../outside"), file("l/.wh..wh..opq")],
            Some("leads through"),
        ),
        (|_| vec![file("x"), file("a/../b"), file("./c//d")], None),
    ];
    for (index, (entries, error)) in attempts.iter().enumerate() {
        let mut layers = Layers::new();
        let entries = entries(&outside(&layers));
        let result = layers.add(&archive(entries), &options());
        layers.assert_outside_untouched();
        match (result, error) {
            (Ok(_), None) => {}
            (Err(found), Some(part)) if found.to_string().contains(part) => {
                assert!(
                    matches!(found, ImportError::InvalidInput { .. }),
                    "{index}: {found:?}"
                );
            }
            (result, _) => panic!("attempt {index}: {result:?}, not {error:?}"),
        }
    }
}

#[test]
fn links_of_layers_below_lead_nowhere() {
    for target in ["../outside", "/../outside", "../../../../../../../../.."] {
        let mut layers = Layers::new();
        let outside = layers.outside();
        let outside = outside.to_str().unwrap();
        let below = vec![
            symlink("l", target),
            symlink("abs", outside),
            symlink("d", "../.."),
        ];
        layers.add(&archive(below), &options()).unwrap();
        for link_target in ["l/file", "abs/file", "d/outside/file"] {
            let error = layers
                .add(&archive(vec![link("x", link_target)]), &options())
                .unwrap_err();
            assert!(error.to_string().contains("which is not there"), "{error}");
            fs::remove_dir_all(layers.top().with_file_name("1")).unwrap();
        }
        layers
            .add(
                &archive(vec![file("l/file").content("mine"), file("abs/file")]),
                &options(),
            )
            .unwrap();
        layers.assert_outside_untouched();
    }
}

#[test]
fn names_and_paths_have_bounds() {
    let long = "n".repeat(255);
    let longer = "n".repeat(256);
    let deep = vec!["d"; 2040].join("/");
    let deeper = vec!["d"; 3000].join("/");
    let wide = vec![long.as_str(); 15].join("/");
    for (path, error) in [
        (long.as_str(), None),
        (&longer, Some("too long")),
        (&deep, None),
        (&deeper, Some("too long")),
        (&wide, None),
        ("a\0b", Some("NUL")),
    ] {
        let mut layers = Layers::new();
        let result = layers.add(&archive(vec![file(path)]), &options());
        match error {
            None => drop(result.unwrap()),
            Some(part) => assert!(result.unwrap_err().to_string().contains(part)),
        }
    }
}

#[test]
fn deep_trees_need_few_open_files() {
    let mut entries = Vec::new();
    for depth in [1, 100, 1000, 2000, 500, 1500, 3] {
        let path = vec!["d"; depth].join("/");
        entries.push(directory(&path).mtime("7"));
        entries.push(file(&format!("{path}/f")));
        entries.push(file(&format!("{path}/.wh.g")));
    }
    let layers = Layers::of(&[archive(entries)]);
    let time = |depth| {
        let path = layers.top().join(vec!["d"; depth].join("/"));
        std::os::unix::fs::MetadataExt::mtime(&fs::metadata(path).unwrap())
    };
    for depth in [1, 3, 100, 500, 1000] {
        assert_eq!(time(depth), 7, "{depth}");
    }
}

#[test]
fn limits_are_kept() {
    let limits = |bytes, entries| LayerOptions {
        limits: LayerLimits { bytes, entries },
        ..options()
    };
    let mut sparse = header(EntryType::GNUSparse, "sparse", 0);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.realsize.copy_from_slice(b"77777777777\0");
    let cases = [
        (
            archive(vec![file("a").content("12345")]),
            limits(4, 10),
            "4 bytes",
        ),
        (
            archive(vec![file("a"), file("b")]),
            limits(10, 1),
            "1 entries",
        ),
        (
            archive(vec![file(".wh.a"), file(".wh.b")]),
            limits(10, 1),
            "1 entries",
        ),
        (
            Archive::default().raw(&mut sparse, b"").end(),
            limits(1 << 30, 9),
            "bytes",
        ),
    ];
    for (archive, options, part) in cases {
        let error = Layers::new().add(&archive, &options).unwrap_err();
        assert!(
            matches!(error, ImportError::LimitExceeded { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn links_into_other_layers_have_bounds() {
    let entries = (0..130_000)
        .map(|at| link(&format!("l{at}"), "nowhere"))
        .collect();
    let error = Layers::new()
        .add(&archive(entries), &options())
        .unwrap_err();
    assert!(
        matches!(error, ImportError::LimitExceeded { .. }),
        "{error:?}"
    );
}

#[test]
fn sizes_that_lie_are_found() {
    let lying = |kind, size: u64, content: &[u8]| {
        Archive::default()
            .raw(&mut header(kind, "x", size), content)
            .end()
    };
    let cut = lying(EntryType::Regular, 1 << 40, b"short");
    let error = Layers::new().add(
        &cut,
        &LayerOptions {
            limits: LayerLimits {
                bytes: u64::MAX,
                entries: 10,
            },
            ..options()
        },
    );
    assert!(error.unwrap_err().to_string().contains("cut off"));
    // What has no content has none, whatever is said: the next block is a header again.
    for kind in [
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::Symlink,
        EntryType::Link,
    ] {
        let mut first = header(kind, "x", 4096);
        first.as_old_mut().linkname[..1].copy_from_slice(b"y");
        let archive = Archive::default()
            .file("y", "y")
            .raw(&mut first, b"")
            .file("z", "z")
            .end();
        let mut layers = Layers::new();
        layers.add(&archive, &options()).unwrap();
        assert_eq!(fs::read(layers.top().join("z")).unwrap(), b"z", "{kind:?}");
    }
}

#[test]
fn entries_may_come_twice() {
    let entries = vec![
        file("a").content("1"),
        directory("b"),
        file("b/x"),
        file("a").content("2"),
        file("b").content("3"),
        symlink("c", "a"),
        directory("c").mode(0o700),
        file("c/y"),
        directory("c").mode(0o711),
        file("d"),
        link("d", "a"),
        link("a", "a"),
    ];
    let layers = Layers::of(&[archive(entries)]);
    let read = |name: &str| fs::read_to_string(layers.top().join(name)).unwrap();
    assert_eq!(
        (read("a"), read("b"), read("d")),
        ("2".into(), "3".into(), "2".into())
    );
    assert!(layers.top().join("c/y").exists());
}

/// All that follows belongs to what the diff id is of.
#[test]
fn what_follows_the_end_mark_is_read() {
    struct Counting<'a>(&'a [u8], usize);
    impl Read for Counting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1 += count;
            Ok(count)
        }
    }
    let mut bytes = archive(vec![file("a")]);
    bytes.extend_from_slice(&[7; 100_000]);
    let place = tempfile::tempdir().unwrap();
    let mut input = Counting(&bytes, 0);
    let name = std::path::Path::new("x");
    unpack_layer_from(&mut input, name, place.path(), &options()).unwrap();
    assert_eq!(input.1, bytes.len());
}

#[test]
fn a_layer_may_be_empty() {
    for archive in [archive(Vec::new()), Vec::new()] {
        let mut layers = Layers::new();
        layers.add(&archive, &options()).unwrap();
        assert_eq!(fs::read_dir(layers.top()).unwrap().count(), 0);
        assert!(layers.notices.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the archive, nothing outside is touched, and the same archive gives the same again.
    #[test]
    fn any_order_of_entries_is_safe(
        entries in proptest::collection::vec((0..8u8, 0..10usize, 0..10usize), 0..24),
    ) {
        const NAMES: [&str; 10] = [
            "a", "a/b", "a/b/c", "l", "l/x", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "../outside/file", "l/../a",
        ];
        let make = || {
            let entries = entries.iter().map(|&(kind, name, target)| {
                let name = NAMES[name];
                match kind {
                    0 | 1 => file(name).content("content"),
                    2 | 3 => directory(name),
                    4 => symlink(name, "../outside"),
                    5 => symlink(name, NAMES[target]),
                    6 => link(name, NAMES[target]),
                    _ => Entry::new(EntryType::Fifo, name),
                }
            });
            archive(entries.collect())
        };
        let mut one = Layers::new();
        let first = one.add(&make(), &options()).map(|report| report.entries);
        one.assert_outside_untouched();
        let mut two = Layers::new();
        let second = two.add(&make(), &options()).map(|report| report.entries);
        prop_assert_eq!(first.is_ok(), second.is_ok());
    }
}
