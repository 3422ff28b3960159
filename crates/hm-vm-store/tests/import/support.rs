use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hm_vm_store::import::{ImportError, ImportOptions, ImportReport, unpack_tar_from};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// Puts archives together byte by byte: `tar::Builder` refuses what hostile ones have.
#[derive(Default)]
pub(super) struct Archive(pub(super) Vec<u8>);

impl Archive {
    pub(super) fn raw(mut self, header: &mut Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn entry(self, kind: EntryType, path: &str, target: &str, content: &[u8]) -> Self {
        let mut header = header(kind, path, content.len() as u64);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(&mut header, content)
    }

    pub(super) fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes())
    }

    pub(super) fn directory(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    /// A header of extended records for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", &data)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn header(kind: EntryType, path: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(size);
    header
}

/// A directory to unpack into, with something beside it that must not be touched.
pub(super) struct Place {
    root: TempDir,
    pub(super) dest: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dest = root.path().join("dest");
        fs::create_dir(&dest).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/file"), "untouched").unwrap();
        Self { root, dest }
    }

    pub(super) fn unpack(&self, archive: &[u8]) -> Result<ImportReport, ImportError> {
        self.unpack_with(archive, &ImportOptions::default())
    }

    pub(super) fn unpack_with(
        &self,
        mut archive: &[u8],
        options: &ImportOptions,
    ) -> Result<ImportReport, ImportError> {
        unpack_tar_from(&mut archive, Path::new("test.tar"), &self.dest, options)
    }

    pub(super) fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    /// Nothing was made or changed but in `dest`.
    pub(super) fn assert_outside_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["dest", "outside"]);
        let outside: Vec<_> = fs::read_dir(self.outside()).unwrap().collect();
        assert_eq!(outside.len(), 1);
        let file = self.outside().join("file");
        assert_eq!(fs::read(&file).unwrap(), b"untouched");
        assert_eq!(fs::metadata(&file).unwrap().nlink(), 1);
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dest.join(path)).unwrap()
    }
}

pub(super) fn assert_invalid(result: Result<ImportReport, ImportError>, part: &str) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, ImportError::InvalidInput { .. }),
        "{error:?}"
    );
    assert!(text.contains(part), "{text}");
}

pub(super) fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().unwrap();
    assert!(done.success(), "{program} {arguments:?}");
}

/// Whether this test runs as root. If not, it says so, or fails where everything is promised.
pub(super) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let required = std::env::var_os("HMVM_TEST_REQUIRE_ALL").is_some();
    assert!(root || !required, "{test} needs root");
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}
