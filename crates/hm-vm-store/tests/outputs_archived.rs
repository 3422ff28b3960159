//! Outputs from archives, as other keepers of snapshots give them.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hm_vm_core::{OutputReport, OutputRequest};
use hm_vm_store::{ArchivedOutputs, StoreError};
use tar::{Builder, EntryType, Header};

/// An archive of a directory: names, and content or link targets.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn put(mut self, kind: EntryType, path: &str, mode: u32, text: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12_345);
        header.set_gid(12_345);
        let is_file = kind == EntryType::Regular;
        header.set_size(if is_file { text.len() as u64 } else { 0 });
        header.set_mtime(0);
        let block = header.as_old_mut();
        block.name[..path.len()].copy_from_slice(path.as_bytes());
        if !is_file {
            block.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        let data = if is_file { text.as_bytes() } else { b"" };
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.put(EntryType::Regular, path, 0o644, text)
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// One part, which is unpacked from an archive, and copied.
struct Case {
    outputs: ArchivedOutputs,
    root: tempfile::TempDir,
}

impl Case {
    fn new(patterns: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let request = OutputRequest {
            patterns: patterns.iter().map(ToString::to_string).collect(),
            base: "/base".into(),
            to: root.path().join("to"),
        };
        fs::create_dir(root.path().join("scratch")).unwrap();
        Self {
            outputs: ArchivedOutputs::new(&request).unwrap(),
            root,
        }
    }

    fn scratch(&self) -> PathBuf {
        self.root.path().join("scratch")
    }

    fn to(&self, name: &str) -> PathBuf {
        self.root.path().join("to").join(name)
    }

    fn unpack(&self, archive: &[u8], has_top: bool) -> Result<(), StoreError> {
        let part = &self.outputs.parts()[0];
        let scratch = self.scratch();
        let unpack = |links| {
            let mut archive = Cursor::new(archive);
            self.outputs
                .unpack(part, &mut archive, has_top, &scratch, links)
        };
        let open = unpack(None)?;
        if !open.is_empty() {
            assert!(unpack(Some(&open))?.is_empty());
        }
        Ok(())
    }

    fn copy(&self) -> OutputReport {
        self.outputs.copy(&[&self.scratch()]).unwrap()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(directory)
        .map(|entries| {
            let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
            entries
                .map(|entry| name(entry).into_string().unwrap())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found
}

#[test]
fn parts_are_as_small_as_patterns_allow() {
    let request = OutputRequest {
        patterns: [
            "bin",
            "*.txt",
            "out/*",
            "out/**/x",
            "/srv/lib/*.so",
            "/etc/passwd",
            ".",
        ]
        .map(str::to_owned)
        .to_vec(),
        base: "/base/../work/.".into(),
        to: "/to".into(),
    };
    let outputs = ArchivedOutputs::new(&request).unwrap();
    let parts: Vec<_> = outputs
        .parts()
        .iter()
        .map(|part| (part.directory.as_str(), part.only.as_deref()))
        .collect();
    let expected = [
        ("/work", Some("bin")),
        ("/work", None),
        ("/work/out", None),
        ("/srv/lib", None),
        ("/etc", Some("passwd")),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn only_what_a_pattern_can_name_is_unpacked() {
    let case = Case::new(&["*/x.o", "keep/**/deep"]);
    let archive = Archive::new()
        .put(EntryType::Directory, "./", 0o755, "")
        .put(EntryType::Directory, "./a/", 0o750, "")
        .file("./a/x.o", "1")
        .file("./a/y.o", "2")
        .file("./x.o", "3")
        .file("./b/x.o/in/it", "4");
    case.unpack(&archive.done(), false).unwrap();
    let scratch = case.scratch().join("base");
    assert_eq!(names(&scratch), ["a", "b"]);
    assert_eq!(names(&scratch.join("a")), ["x.o"]);
}

#[test]
fn one_thing_is_taken_under_whatever_name() {
    let case = Case::new(&["dir"]);
    let archive = Archive::new()
        .put(EntryType::Directory, "other/", 0o710, "")
        .put(EntryType::Regular, "other/run", 0o6755, "1")
        .put(EntryType::Fifo, "other/fifo", 0o644, "")
        .put(EntryType::Char, "other/null", 0o666, "")
        .put(EntryType::Symlink, "other/link", 0o777, "/etc/passwd")
        .put(EntryType::Link, "other/again", 0o755, "other/run");
    case.unpack(&archive.done(), true).unwrap();
    let report = case.copy();
    assert_eq!(report.files, 3, "{report:?}");
    let skipped = [Path::new("/base/dir/fifo"), Path::new("/base/dir/null")];
    assert_eq!(report.skipped, skipped);
    let mode = |name: &str| fs::metadata(case.to(name)).unwrap().permissions().mode();
    assert_eq!(mode("dir/run") & 0o7777, 0o755);
    assert_eq!(mode("dir") & 0o7777, 0o710);
    assert_eq!(fs::read_to_string(case.to("dir/again")).unwrap(), "1");
    let target = fs::read_link(case.to("dir/link")).unwrap();
    assert_eq!(target, Path::new("/etc/passwd"));
}

#[test]
fn a_link_whose_file_is_elsewhere_is_a_file() {
    let case = Case::new(&["*.o"]);
    let archive = Archive::new()
        .file("./first", "shared")
        .put(EntryType::Link, "./a.o", 0o644, "./first")
        .put(EntryType::Link, "./b.o", 0o644, "first")
        .file("./c.o", "own")
        .done();
    case.unpack(&archive, false).unwrap();
    assert_eq!(names(&case.scratch().join("base")), ["a.o", "b.o", "c.o"]);
    let report = case.copy();
    assert_eq!((report.files, report.bytes), (3, 15));
    for (name, text) in [("a.o", "shared"), ("b.o", "shared"), ("c.o", "own")] {
        assert_eq!(fs::read_to_string(case.to(name)).unwrap(), text);
    }
}

#[test]
fn the_rest_of_a_directory_is_not_looked_at() {
    let case = Case::new(&["link"]);
    let mut archive = Archive::new()
        .file("file", "1")
        .put(EntryType::Symlink, "link", 0o777, "nowhere")
        .done();
    archive.truncate(archive.len() - 1024);
    archive.extend_from_slice(&[0xFF; 512]);
    case.unpack(&archive, false).unwrap();
    assert_eq!(case.copy().files, 1);
    assert_eq!(names(&case.to("")), ["link"]);
}

#[test]
fn damaged_and_harmful_archives_are_refused() {
    let victim = tempfile::tempdir().unwrap();
    let outside = victim.path().to_str().unwrap();
    let whole = Archive::new()
        .file("./a", "text")
        .file("./b", "text")
        .done();
    let mut cut = whole.clone();
    cut.truncate(1536);
    let through = Archive::new()
        .put(EntryType::Symlink, "./dir", 0o777, outside)
        .file("./dir/file", "evil");
    let upwards = Archive::new().file("./../../file", "evil");
    for bad in [cut, through.done(), upwards.done(), vec![0x55; 4096]] {
        let case = Case::new(&["**"]);
        let refused = case.unpack(&bad, false).unwrap_err();
        assert!(matches!(refused, StoreError::Import(_)), "{refused:?}");
    }
    assert!(names(victim.path()).is_empty());
}

#[test]
fn what_is_not_there_is_not_found() {
    let case = Case::new(&["*.o", "none"]);
    let scratch = case.scratch();
    let report = case.outputs.copy(&[&scratch, &scratch]).unwrap();
    assert_eq!(report.unmatched, ["*.o", "none"]);
}
