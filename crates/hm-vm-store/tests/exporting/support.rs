//! A registry in memory, and trees worth exporting.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hm_vm_core::Progress;
use hm_vm_oci::{
    Compression, Descriptor, Destination, Digest, ImageConfig, Manifest, OciError, Parsed,
    RawManifest, Source, Verified, media,
};
use hm_vm_store::{Store, View, VmFiles};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::common::{make_whiteout, upper};

/// Where images go to and come from again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<Digest, Vec<u8>>,
    root: Option<RawManifest>,
    /// Blobs that were written, in order.
    written: Vec<Digest>,
}

impl Memory {
    pub(crate) fn written(&self) -> Vec<Digest> {
        std::mem::take(&mut self.state.lock().unwrap().written)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Vec<u8> {
        self.state.lock().unwrap().blobs[digest].clone()
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.state.lock().unwrap().blobs.remove(digest);
    }

    /// Puts other bytes in the place of a blob's.
    pub(crate) fn corrupt(&self, digest: &Digest, bytes: Vec<u8>) {
        self.state.lock().unwrap().blobs.insert(*digest, bytes);
    }

    pub(crate) fn set_root(&self, root: RawManifest) {
        self.state.lock().unwrap().root = Some(root);
    }

    pub(crate) fn image(&self) -> Manifest {
        match self.root().unwrap().parse().unwrap() {
            Parsed::Manifest(manifest) => manifest,
            Parsed::Index(_) => panic!("it is an index"),
        }
    }

    pub(crate) fn config(&self) -> ImageConfig {
        ImageConfig::parse(&self.blob(&self.image().config.digest)).unwrap()
    }

    /// The archive of a layer, from the bottom.
    pub(crate) fn layer(&self, place: usize) -> Vec<u8> {
        let layer = &self.image().layers[place];
        decompress(layer, &self.blob(&layer.digest))
    }
}

pub(crate) fn decompress(layer: &Descriptor, bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    match layer.compression() {
        Compression::Zstd => archive = zstd::decode_all(bytes).unwrap(),
        Compression::Gzip => {
            let mut decoder = flate2::read::GzDecoder::new(bytes);
            decoder.read_to_end(&mut archive).unwrap();
        }
        _ => archive = bytes.to_vec(),
    }
    archive
}

impl Source for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn root(&self) -> Result<RawManifest, OciError> {
        let root = self.state.lock().unwrap().root.clone();
        root.ok_or_else(|| OciError::invalid("memory", "it is empty"))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, OciError> {
        Ok(RawManifest::of(
            &descriptor.media_type,
            self.blob(&descriptor.digest),
        ))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OciError> {
        Ok(Box::new(Cursor::new(self.blob(&blob.digest))))
    }
}

impl Destination for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, OciError> {
        Ok(self.state.lock().unwrap().blobs.contains_key(&blob.digest))
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> std::io::Result<Box<dyn Read + Send>>,
        progress: &Progress,
    ) -> Result<(), OciError> {
        // Twice, as where the first try was cut.
        open().unwrap().read_exact(&mut [0; 1]).unwrap();
        let mut bytes = Vec::new();
        let mut input = Verified::new(open().unwrap(), blob);
        input.read_to_end(&mut bytes).unwrap();
        progress.add(bytes.len() as u64);
        let mut state = self.state.lock().unwrap();
        state.written.push(blob.digest);
        state.blobs.insert(blob.digest, bytes);
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), OciError> {
        self.state.lock().unwrap().root = Some(manifest.clone());
        Ok(())
    }
}

/// What an archive says of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: tar::EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: String,
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) content: Digest,
    pub(crate) size: u64,
}

/// The entries of an archive, as another reader of tar sees them.
pub(crate) fn entries(archive: &[u8]) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut mtime = entry.header().mtime().unwrap().to_string();
        let mut xattrs = BTreeMap::new();
        let extensions = entry.pax_extensions().unwrap().into_iter().flatten();
        for extension in extensions {
            let extension = extension.unwrap();
            let key = extension.key().unwrap();
            if key == "mtime" {
                mtime = extension.value().unwrap().to_owned();
            } else if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let (mode, kind) = (header.mode().unwrap(), header.entry_type());
        let path = entry.path_bytes().into_owned();
        let described = Entry {
            kind,
            mode,
            owner: (entry_id(&entry, true), entry_id(&entry, false)),
            mtime,
            target: entry.link_name_bytes().unwrap_or_default().into_owned(),
            xattrs,
            content: Digest::of(&content),
            size: content.len() as u64,
        };
        assert!(
            found.insert(path, described).is_none(),
            "a path comes twice"
        );
    }
    found
}

fn entry_id<R: Read>(entry: &tar::Entry<'_, R>, user: bool) -> u64 {
    match user {
        true => entry.header().uid().unwrap(),
        false => entry.header().gid().unwrap(),
    }
}

/// Attributes and content of everything in a view.
pub(crate) fn tree(view: &View) -> BTreeMap<PathBuf, String> {
    let mut found = crate::common::contents(view);
    for entry in view.walk().unwrap() {
        let text = found.get_mut(&entry.path).unwrap();
        text.push_str(&format!(" {:?}", entry.metadata));
    }
    // Directories have a size of their file system's own.
    for text in found.values_mut() {
        if text.contains("kind: Directory") {
            let start = text.find(" size: ").unwrap();
            let end = start + text[start..].find(',').unwrap();
            text.replace_range(start..end, "");
        }
    }
    found
}

pub(crate) const LONG: &str = "a-name-of-more-than-one-hundred-bytes-which-is-too-long-for-the-plain-header-of-an-archive-and-so-on-and-on";

/// Fills a VM's writable directory with all that is worth a look.
pub(crate) fn fill(store: &Store, vm: &VmFiles) {
    let upper = upper(store, vm);
    let at = |path: &str| upper.join(path);
    fs::create_dir_all(at("etc")).unwrap();
    fs::write(at("etc/motd"), "hello\n").unwrap();
    make_whiteout(&at("etc/hosts"));
    fs::create_dir(at("tmp")).unwrap();
    set_opaque(&at("tmp"));
    fs::write(at("tmp/new"), "x").unwrap();
    make_whiteout(&at("tmp/means-nothing"));
    fs::create_dir_all(at("d").join(LONG).join(LONG)).unwrap();
    fs::write(at("d").join(LONG).join(LONG).join("f"), "deep").unwrap();
    fs::write(at("one"), "twice").unwrap();
    fs::hard_link(at("one"), at("d/two")).unwrap();
    symlink(LONG, at("link")).unwrap();
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, mode, 0).unwrap();
    let holes = fs::File::create(at("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    set_modes(&upper);
    fs::write(at("set-uid"), "#!").unwrap();
    fs::set_permissions(at("set-uid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(at("secret"), "").unwrap();
    fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    let value = b"with\0and=";
    rustix::fs::setxattr(at("one"), "user.note", value, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("d"), "user.dir", b"", XattrFlags::empty()).unwrap();
    set_times(&upper);
}

pub(crate) fn set_opaque(path: &Path) {
    rustix::fs::setxattr(path, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

/// Whatever the umask is.
fn set_modes(path: &Path) {
    let found = path.symlink_metadata().unwrap();
    if found.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            set_modes(&entry.unwrap().path());
        }
    } else if found.is_file() || found.file_type().is_fifo() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

/// Gives every entry a time that follows from its path alone; the root as well.
pub(crate) fn set_times(root: &Path) {
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                todo.push(entry.unwrap().path());
            }
        }
        let relative = path.strip_prefix(root).unwrap();
        let length = i64::try_from(relative.as_os_str().len()).unwrap();
        let time = Timespec {
            // Also before 1970, and without a fraction.
            tv_sec: 1_000_000_000 - (length % 3) * 600_000_000,
            tv_nsec: (length % 5) * 1_000_100,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// What `media` says of compressed layers.
pub(crate) fn layer_types(manifest: &Manifest) -> Vec<&str> {
    let mut types: Vec<&str> = manifest
        .layers
        .iter()
        .map(|layer| layer.media_type.as_str())
        .collect();
    types.dedup();
    assert_ne!(types, [media::MANIFEST]);
    types
}
