//! Layers for tests: archives made entry by entry, and what several of them show together.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hm_vm_store::import::{
    ImportError, LayerOptions, LayerReport, link_from_lower, unpack_layer_from,
};
use tar::EntryType;
use tempfile::TempDir;

use super::support::{Archive, header};

/// One entry of a layer's archive.
pub(super) struct Entry {
    kind: EntryType,
    path: String,
    target: String,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: &'static str,
    device: (u32, u32),
    content: Vec<u8>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    pub(super) fn new(kind: EntryType, path: &str) -> Self {
        Self {
            kind,
            path: path.into(),
            target: String::new(),
            mode: if kind == EntryType::Directory {
                0o755
            } else {
                0o644
            },
            uid: 0,
            gid: 0,
            mtime: "1000000000",
            device: (0, 0),
            content: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    pub(super) fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    pub(super) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(super) fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub(super) fn mtime(mut self, mtime: &'static str) -> Self {
        self.mtime = mtime;
        self
    }

    pub(super) fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    pub(super) fn content(mut self, content: impl AsRef<[u8]>) -> Self {
        self.content = content.as_ref().to_owned();
        self
    }

    pub(super) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.into(), value.to_owned()));
        self
    }
}

pub(super) fn file(path: &str) -> Entry {
    Entry::new(EntryType::Regular, path)
}

pub(super) fn directory(path: &str) -> Entry {
    Entry::new(EntryType::Directory, path)
}

pub(super) fn symlink(path: &str, target: &str) -> Entry {
    Entry::new(EntryType::Symlink, path).target(target)
}

pub(super) fn link(path: &str, target: &str) -> Entry {
    Entry::new(EntryType::Link, path).target(target)
}

/// A capability to bind low ports, as the kernel writes it.
pub(super) const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The archive of these entries.
pub(super) fn archive(entries: Vec<Entry>) -> Vec<u8> {
    let mut archive = Archive::default();
    for entry in entries {
        let mut records: Vec<(String, Vec<u8>)> = vec![
            ("path".into(), entry.path.into_bytes()),
            ("mtime".into(), entry.mtime.into()),
        ];
        if !entry.target.is_empty() {
            records.push(("linkpath".into(), entry.target.into_bytes()));
        }
        for (name, value) in entry.xattrs {
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        let records: Vec<(&str, &[u8])> = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()))
            .collect();
        let mut header = header(entry.kind, "see above", entry.content.len() as u64);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_device_major(entry.device.0).unwrap();
        header.set_device_minor(entry.device.1).unwrap();
        archive = archive.pax(&records).raw(&mut header, &entry.content);
    }
    archive.end()
}

/// Unpacked layers, bottom first.
pub(super) struct Layers {
    root: TempDir,
    pub(super) layers: Vec<PathBuf>,
    pub(super) notices: Vec<String>,
}

/// Options of a test: device nodes where the user may make them.
pub(super) fn options() -> LayerOptions {
    LayerOptions {
        devices: rustix::process::geteuid().is_root(),
        ..LayerOptions::default()
    }
}

impl Layers {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/file"), "untouched").unwrap();
        Self {
            root,
            layers: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Unpacks archives, bottom first.
    pub(super) fn of(archives: &[Vec<u8>]) -> Self {
        let mut layers = Self::new();
        for archive in archives {
            layers.add(archive, &options()).unwrap();
        }
        layers
    }

    /// Unpacks one more layer.
    pub(super) fn add(
        &mut self,
        archive: &[u8],
        options: &LayerOptions,
    ) -> Result<LayerReport, ImportError> {
        let layer = self.root.path().join(format!("{}", self.layers.len()));
        fs::create_dir(&layer).unwrap();
        let report = unpack_layer_from(&mut &*archive, Path::new("test.tar"), &layer, options)?;
        let lower: Vec<&Path> = self.layers.iter().rev().map(PathBuf::as_path).collect();
        link_from_lower(&layer, &report.needs_lower, &lower, options)?;
        self.notices.extend(report.notices.iter().cloned());
        self.layers.push(layer);
        Ok(report)
    }

    pub(super) fn top(&self) -> &Path {
        self.layers.last().unwrap()
    }

    pub(super) fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    /// Nothing was made or changed but in the layers.
    pub(super) fn assert_outside_untouched(&self) {
        let found: Vec<_> = fs::read_dir(self.root.path()).unwrap().collect();
        for entry in found {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name == "outside" || name.parse::<u32>().is_ok(), "{name}");
        }
        let outside: Vec<_> = fs::read_dir(self.outside()).unwrap().collect();
        assert_eq!(outside.len(), 1);
        let file = self.outside().join("file");
        assert_eq!(fs::read(&file).unwrap(), b"untouched");
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.nlink(), found.mode() & 0o7777), (1, 0o644));
    }

    /// What the kernel shows of all layers, as the sandbox mounts them. Needs root.
    pub(super) fn merged(&self) -> BTreeMap<String, String> {
        let (empty, mount) = (self.root.path().join("e"), self.root.path().join("m"));
        for directory in [&empty, &mount] {
            fs::create_dir_all(directory).unwrap();
        }
        let layers = self.layers.iter().rev().chain([&empty]);
        let layers: Vec<&str> = layers.map(|path| path.to_str().unwrap()).collect();
        let options = format!("ro,userxattr,lowerdir={}", layers.join(":"));
        let mounted = Mounted::new("overlay", &options, &mount);
        let listing = listing(&mount);
        drop(mounted);
        fs::remove_dir(&mount).unwrap();
        fs::remove_dir(&empty).unwrap();
        listing
    }
}

/// A mounted overlay.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn new(kind: &str, options: &str, at: &Path) -> Self {
        let status = Command::new("mount")
            .args(["-t", kind, "-o", options, kind])
            .arg(at)
            .status();
        assert!(status.unwrap().success(), "mounting {options}");
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status().unwrap();
        assert!(status.success() || std::thread::panicking());
    }
}

/// Everything below a directory that a guest could tell from another tree, by path. Not of the root itself:
/// Docker leaves out what archives say of it.
pub(super) fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links: HashMap<u64, String> = HashMap::new();
    for (name, path) in entries(root) {
        let stat = fs::symlink_metadata(&path).unwrap();
        let mut line = describe(&path, &stat);
        if stat.file_type().is_char_device() || stat.file_type().is_block_device() {
            write!(line, " {:x}", stat.rdev()).unwrap();
        }
        for (name, value) in xattrs(&path) {
            write!(line, " {name}={}", value.escape_ascii()).unwrap();
        }
        if !stat.is_dir() && stat.nlink() > 1 {
            let first = links.entry(stat.ino()).or_insert_with(|| name.clone());
            write!(line, " same as {first}").unwrap();
        }
        found.insert(name, line);
    }
    found
}

/// As [`listing`], as far as a view of the store tells it.
pub(super) fn plain_listing(root: &Path) -> BTreeMap<String, String> {
    let lines = entries(root).into_iter().map(|(name, path)| {
        let stat = fs::symlink_metadata(&path).unwrap();
        (name, describe(&path, &stat))
    });
    lines.collect()
}

fn entries(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut left = vec![root.to_owned()];
    let mut found = BTreeMap::new();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                left.push(path.clone());
            }
            let name = path.strip_prefix(root).unwrap().as_os_str();
            found.insert(name.as_bytes().escape_ascii().to_string(), path);
        }
    }
    found
}

fn describe(path: &Path, stat: &fs::Metadata) -> String {
    let kind = stat.file_type();
    let kind = if kind.is_dir() {
        "directory".into()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        let hash = blake3::hash(&fs::read(path).unwrap()).to_hex();
        format!("file of {} {}", stat.size(), &hash[..16])
    } else if kind.is_fifo() {
        "fifo".into()
    } else {
        "device".into()
    };
    format!(
        "{kind} {:o} {}:{} {}.{:09}",
        stat.mode() & 0o7777,
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec()
    )
}

/// Extended attributes, but for the labels of this machine's security module.
pub(super) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let names = names.filter(|name| *name != b"security.selinux");
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}
