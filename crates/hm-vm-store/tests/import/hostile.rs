use std::fs;
use std::os::unix::fs::symlink;

use hm_vm_store::import::{ImportError, ImportLimits, ImportOptions};
use proptest::prelude::*;
use tar::EntryType;

use super::support::{Archive, Place, assert_invalid, header};

#[test]
fn paths_with_dot_dot_are_refused() {
    for path in ["../outside/new", "a/../../outside/new", "a/..", ".."] {
        let place = Place::new();
        assert_invalid(
            place.unpack(&Archive::default().file(path, "x").end()),
            "..",
        );
        place.assert_outside_untouched();
    }
}

#[test]
fn a_slash_at_the_beginning_is_taken_off() {
    let place = Place::new();
    let outside = place.outside().join("new");
    let path = outside.to_str().unwrap();
    place
        .unpack(
            &Archive::default()
                .file(path, "x")
                .file("//etc/./y", "y")
                .end(),
        )
        .unwrap();
    place.assert_outside_untouched();
    assert_eq!(place.read(path.trim_start_matches('/')), "x");
    assert_eq!(place.read("etc/y"), "y");
}

#[test]
fn no_entry_goes_through_a_link_that_was_planted() {
    let place = Place::new();
    let outside = place.outside();
    let outside = outside.to_str().unwrap();
    for target in [outside, "../outside", "real"] {
        let start = || {
            Archive::default()
                .directory("real")
                .symlink("planted", target)
        };
        let attempts = [
            start().file("planted/new", "x"),
            start().file("planted/file", "x"),
            start().directory("planted/new"),
            start().symlink("planted/new", "x"),
            start().file("x", "x").link("planted/new", "x"),
            start().link("new", "planted/file"),
            start().entry(EntryType::Fifo, "planted/new", "", b""),
            start().file("planted/deep/er", "x"),
        ];
        for archive in attempts {
            let place = Place::new();
            assert_invalid(place.unpack(&archive.end()), "symbolic link");
            place.assert_outside_untouched();
        }
    }
    place.assert_outside_untouched();
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let place = Place::new();
    let archive = Archive::default()
        .symlink("a", "../outside/file")
        .file("a", "mine")
        .symlink("b", "../outside")
        .directory("b")
        .file("b/file", "mine");
    place.unpack(&archive.end()).unwrap();
    place.assert_outside_untouched();
    assert_eq!(place.read("a"), "mine");
    assert_eq!(place.read("b/file"), "mine");
}

#[test]
fn hard_links_stay_inside() {
    let place = Place::new();
    for target in ["../outside/file", "a/../../outside/file"] {
        assert_invalid(
            place.unpack(&Archive::default().link("new", target).end()),
            "..",
        );
    }
    let outside = place.outside().join("file");
    let archive = Archive::default().link("new", outside.to_str().unwrap());
    assert_invalid(place.unpack(&archive.end()), "does not come before");
    symlink(place.outside(), place.dest.join("there")).unwrap();
    assert_invalid(
        place.unpack(&Archive::default().link("new", "there/file").end()),
        "symbolic link",
    );
    place.assert_outside_untouched();
}

#[test]
fn a_link_to_a_directory_or_itself_is_refused() {
    let place = Place::new();
    let archive = Archive::default().directory("d").link("new", "d");
    assert_invalid(place.unpack(&archive.end()), "cannot have one");
    assert_invalid(
        place.unpack(&Archive::default().link("new", "new").end()),
        "before",
    );
    assert_invalid(
        place.unpack(&Archive::default().link("new", "/").end()),
        "root",
    );
}

#[test]
fn a_path_through_a_file_is_refused() {
    let place = Place::new();
    let archive = Archive::default().file("a", "x").file("a/b", "x");
    assert_invalid(place.unpack(&archive.end()), "link or a file");
}

#[test]
fn the_root_can_only_be_a_directory() {
    for path in ["/", ".", "./"] {
        let place = Place::new();
        let archive = Archive::default().symlink(path, "../outside");
        assert_invalid(place.unpack(&archive.end()), "root");
        place
            .unpack(&Archive::default().directory(path).end())
            .unwrap();
    }
}

#[test]
fn names_that_are_empty_or_hold_nul_are_refused() {
    let place = Place::new();
    assert_invalid(
        place.unpack(&Archive::default().file("", "x").end()),
        "without a name",
    );
    let archive = Archive::default().pax(&[("path", b"a\0b")]).file("x", "x");
    assert_invalid(place.unpack(&archive.end()), "NUL");
    let archive = Archive::default().symlink("x", "");
    assert_invalid(place.unpack(&archive.end()), "target");
}

#[test]
fn names_that_are_too_long_are_refused() {
    let place = Place::new();
    let name = "n".repeat(300);
    let archive = Archive::default()
        .pax(&[("path", name.as_bytes())])
        .file("x", "x");
    assert_invalid(place.unpack(&archive.end()), "too long");
    let path = "d/".repeat(3000) + "file";
    let archive = Archive::default()
        .pax(&[("path", path.as_bytes())])
        .file("x", "x");
    assert_invalid(place.unpack(&archive.end()), "too long");
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_any_kind() {
    let place = Place::new();
    let archive = Archive::default()
        .file("a", "first")
        .file("a", "second")
        .directory("b/c/d")
        .file("b/c/d/e", "x")
        .file("b", "file")
        .file("c", "x")
        .symlink("c", "a")
        .directory("d")
        .file("d/x", "x")
        .directory("d");
    let report = place.unpack(&archive.end()).unwrap();
    assert_eq!(place.read("a"), "second");
    assert_eq!(place.read("b"), "file");
    assert!(place.dest.join("c").is_symlink());
    assert_eq!(place.read("d/x"), "x");
    assert_eq!(report.entries, 5);
}

#[test]
fn a_size_that_lies_is_noticed() {
    let place = Place::new();
    let mut short = header(EntryType::Regular, "f", 5000);
    let archive = Archive::default().raw(&mut short, b"only this").0;
    assert_invalid(place.unpack(&archive), "cut off");
    let mut huge = header(EntryType::Regular, "f", u64::MAX / 2);
    let archive = Archive::default().raw(&mut huge, b"only this").end();
    let error = place.unpack(&archive).unwrap_err();
    assert!(
        matches!(error, ImportError::LimitExceeded { unit: "bytes", .. }),
        "{error:?}"
    );
    let archive = Archive::default().pax(&[("size", b"99999")]).file("f", "x");
    assert_invalid(place.unpack(&archive.end()), "cut off");
}

#[test]
fn every_cut_of_an_archive_is_an_error_or_a_notice() {
    let archive = Archive::default()
        .directory("d")
        .pax(&[("path", b"d/long")])
        .file("x", &"content ".repeat(100))
        .end();
    for cut in (0..archive.len()).step_by(61) {
        let place = Place::new();
        if let Ok(report) = place.unpack(&archive[..cut]) {
            let told = report
                .notices
                .iter()
                .any(|notice| notice.contains("cut off"));
            // Without the second block of zeros alone, all is there.
            assert!(told || cut >= archive.len() - 512, "cut at {cut}");
        }
    }
}

#[test]
fn what_is_no_archive_is_not_called_a_cut_off_one() {
    use std::io::Write;
    let text = "FROM debian\n".repeat(200).into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&text).unwrap();
    let known = "not an archive of a known form (tar, tar.gz, tar.zst, tar.xz)";
    for other in [
        &text[..1],
        &text[..100],
        &text[..512],
        &text,
        b"PK\x03\x04 a zip archive",
        b"\x7fELF",
        &gzip.finish().unwrap(),
    ] {
        assert_invalid(Place::new().unpack(other), known);
    }
    let archive = Archive::default().directory("d").file("f", "content").end();
    for cut in [300, 511, 700, 1024 + 6] {
        assert_invalid(Place::new().unpack(&archive[..cut]), "cut off");
    }
    // Without the padding of the last block, all is there that was to be there.
    for enough in [1024 + 7, 1100] {
        let report = Place::new().unpack(&archive[..enough]).unwrap();
        assert_eq!(report.bytes, 7);
        assert!(report.notices[0].contains("no end mark"));
    }
    for damaged in [0, 600] {
        let mut archive = archive.clone();
        archive[damaged] ^= 1;
        assert_invalid(Place::new().unpack(&archive), "wrong checksum");
    }
}

#[test]
fn a_compressed_archive_that_is_cut_off_is_an_error() {
    use std::io::Write;
    let archive = Archive::default().file("f", &"content ".repeat(1000)).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&archive).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&archive[..], 0).unwrap();
    for packed in [gzip, zstd] {
        let place = Place::new();
        place.unpack(&packed[..packed.len() / 2]).unwrap_err();
        place.unpack(&packed).unwrap();
    }
}

#[test]
fn limits_hold() {
    let options = |bytes, entries| ImportOptions {
        limits: ImportLimits { bytes, entries },
        ..ImportOptions::default()
    };
    let archive = Archive::default()
        .file("a", "12345")
        .file("b", "12345")
        .end();
    let place = Place::new();
    place.unpack_with(&archive, &options(10, 2)).unwrap();
    let error = place.unpack_with(&archive, &options(9, 2)).unwrap_err();
    assert_eq!(error.to_string(), "more than 9 bytes in the source");
    let error = place.unpack_with(&archive, &options(10, 1)).unwrap_err();
    assert_eq!(error.to_string(), "more than 1 entries in the source");
}

#[test]
fn a_bomb_ends_at_the_limit() {
    // A hundred MiB of zeros as the name of a member, and behind the content of a skipped one.
    let limits = ImportLimits {
        bytes: 1 << 20,
        entries: 10,
    };
    let options = ImportOptions {
        limits,
        ..ImportOptions::default()
    };
    for kind in [
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let mut head = header(kind, "x", 100 << 20);
        let mut archive = Archive::default().raw(&mut head, b"").0;
        archive.resize(archive.len() + (100 << 20), 0);
        let packed = zstd::encode_all(&archive[..], 0).unwrap();
        assert!(packed.len() < 1 << 20);
        let place = Place::new();
        place.unpack_with(&packed, &options).unwrap_err();
    }
    // A sparse file without data that claims to be large.
    let archive = Archive::default()
        .pax(&[
            ("GNU.sparse.size", b"1099511627776000"),
            ("GNU.sparse.map", b"0,0"),
        ])
        .file("hole", "");
    let error = Place::new().unpack(&archive.end()).unwrap_err();
    assert!(
        matches!(error, ImportError::LimitExceeded { .. }),
        "{error:?}"
    );
}

#[test]
fn impossible_regions_of_sparse_files_are_refused() {
    for map in [
        "5,5,0,5",
        "0,20",
        "18446744073709551615,10",
        "0,4",
        "0,5,6",
        "x,1",
    ] {
        let archive = Archive::default()
            .pax(&[
                ("GNU.sparse.size", b"10"),
                ("GNU.sparse.map", map.as_bytes()),
            ])
            .file("f", "1234567890");
        let error = Place::new().unpack(&archive.end()).unwrap_err();
        assert!(
            matches!(error, ImportError::InvalidInput { .. }),
            "{map}: {error:?}"
        );
    }
}

#[test]
fn impossible_owners_are_refused() {
    let archive = Archive::default()
        .pax(&[("uid", b"4294967295")])
        .file("f", "");
    assert_invalid(Place::new().unpack(&archive.end()), "owner");
}

#[test]
fn whiteouts_and_overlay_attributes_are_left_out() {
    let options = ImportOptions {
        devices: true,
        ..ImportOptions::default()
    };
    let mut node = header(EntryType::Char, "whiteout", 0);
    node.set_device_major(0).unwrap();
    node.set_device_minor(0).unwrap();
    let archive = Archive::default()
        .raw(&mut node, b"")
        .link("to-whiteout", "whiteout")
        .pax(&[
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .directory("opaque");
    let place = Place::new();
    let report = place.unpack_with(&archive.end(), &options).unwrap();
    let names: Vec<_> = fs::read_dir(&place.dest)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["opaque"]);
    let mut list = [0; 256];
    let count = rustix::fs::listxattr(place.dest.join("opaque"), &mut list[..]).unwrap();
    assert!(!list[..count].windows(7).any(|window| window == b"overlay"));
    assert_eq!(report.notices.len(), 3, "{:?}", report.notices);
}

#[test]
fn devices_are_left_out_unless_allowed() {
    let mut node = header(EntryType::Char, "null", 0);
    node.set_device_major(1).unwrap();
    node.set_device_minor(3).unwrap();
    let archive = Archive::default().raw(&mut node, b"").file("f", "").end();
    let place = Place::new();
    let report = place.unpack(&archive).unwrap();
    assert!(!place.dest.join("null").exists());
    assert!(report.notices[0].contains("null"), "{:?}", report.notices);
}

#[test]
fn what_is_no_archive_is_refused() {
    for bytes in [
        &b""[..],
        b"hello",
        &[7; 4096],
        b"BZh91AY",
        b"\x1f\x8bnot gzip",
    ] {
        let error = Place::new().unpack(bytes).unwrap_err();
        assert!(
            matches!(error, ImportError::InvalidInput { .. }),
            "{error:?}"
        );
    }
    assert_invalid(Place::new().unpack(&[0; 1024]), "no entries");
}

fn sample() -> Vec<u8> {
    Archive::default()
        .directory("d")
        .file("d/f", "content")
        .pax(&[
            ("path", b"d/pax"),
            ("SCHILY.xattr.user.x", b"1"),
            ("mtime", b"1.5"),
        ])
        .file("x", "y")
        .symlink("d/s", "../../outside")
        .link("d/h", "d/f")
        .entry(EntryType::GNULongName, "././@LongLink", "", b"d/long\0")
        .file("short", "z")
        .end()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let place = Place::new();
        let _ = place.unpack(&bytes);
        place.assert_outside_untouched();
    }

    #[test]
    fn changed_archives_do_no_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        fix in any::<bool>(),
    ) {
        let mut bytes = sample();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if fix {
            // With right checksums, the changes get further.
            for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let place = Place::new();
        let _ = place.unpack(&bytes);
        place.assert_outside_untouched();
    }

    #[test]
    fn any_mixture_of_entries_stays_inside(
        entries in proptest::collection::vec((0..5usize, 0..8usize, 0..8usize), 1..20),
    ) {
        const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "b", "b/a", "/a", "../outside/file", "./b/../a"];
        const TARGETS: [&str; 8] = ["a", "../outside", "b", "../outside/file", "/", ".", "a/b", ".."];
        let mut archive = Archive::default();
        for (kind, path, target) in entries {
            let (path, target) = (PATHS[path], TARGETS[target]);
            archive = match kind {
                0 => archive.file(path, "x"),
                1 => archive.directory(path),
                2 => archive.symlink(path, target),
                3 => archive.link(path, target),
                _ => archive.entry(EntryType::Fifo, path, "", b""),
            };
        }
        let place = Place::new();
        let _ = place.unpack(&archive.end());
        place.assert_outside_untouched();
    }
}
