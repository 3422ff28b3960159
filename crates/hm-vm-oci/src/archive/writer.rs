//! Writing an archive that every tool reads.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hm_vm_core::Progress;
use serde_json::json;
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

use super::docker::MANIFEST;
use crate::layout::{
    BLOBS, INDEX, MARKER, MARKER_CONTENT, NAME_CONTAINERD, blob_path, copy_blob, named,
};
use crate::{
    Descriptor, Destination, Digest, Index, Manifest, OciError, Parsed, RawManifest, Reference,
    media,
};

/// Writes an image into one archive: the OCI's layout, and `manifest.json` besides, so that `docker load` of any age,
/// `podman load` and `skopeo` take it. Docker 20.10 takes no layers that are compressed with zstd.
///
/// The same parts give the same bytes, in whatever order they come: no times, no owners, sorted names. The file gets its
/// name in [`finish`](Destination::finish), complete; before that, and without it, there is nothing of it.
///
/// Parts are gathered in a file without a name beside it: the file system must have room for two.
#[derive(Debug)]
pub struct ArchiveWriter {
    path: PathBuf,
    directory: PathBuf,
    name: Option<String>,
    gathered: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of the gathering file that somebody has, or had.
    end: u64,
    blobs: BTreeMap<Digest, Region>,
    root: Option<RawManifest>,
    is_finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Region {
    offset: u64,
    size: u64,
}

impl ArchiveWriter {
    /// Writes to this path, and over a file that is there. The image in it gets this name.
    ///
    /// # Errors
    ///
    /// [`OciError::Io`] when nothing can be written in the directory.
    pub fn new(path: &Path, name: Option<&str>) -> Result<Self, OciError> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let gathered = tempfile::tempfile_in(directory)
            .map_err(|error| OciError::of_io("making a file in", directory.display(), error))?;
        Ok(Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            name: name.map(str::to_owned),
            gathered,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: io::Error) -> OciError {
        OciError::of_io("writing", self.path.display(), error)
    }

    fn write_archive(&self, state: &State, root: &RawManifest) -> Result<NamedTempFile, OciError> {
        let file = tempfile::Builder::new()
            .prefix(".hm-vm-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.directory)
            .map_err(|error| {
                OciError::of_io("making a file in", self.directory.display(), error)
            })?;
        let mut output = Output {
            file: file.as_file(),
        };
        let docker = docker_manifest(root, self.name.as_deref());
        let index = index(root, self.name.as_deref()).to_raw();
        self.write_members(&mut output, state, &index.bytes, docker.as_deref())
            .and_then(|()| file.as_file().sync_data())
            .map_err(|error| self.failed(error))?;
        Ok(file)
    }

    fn write_members(
        &self,
        output: &mut Output<'_>,
        state: &State,
        index: &[u8],
        docker: Option<&[u8]>,
    ) -> io::Result<()> {
        output.directory("blobs/")?;
        output.directory(&format!("{BLOBS}/"))?;
        for (digest, region) in &state.blobs {
            output.header(&blob_path(digest), region.size)?;
            output.copy(&self.gathered, *region)?;
        }
        output.small(INDEX, index)?;
        if let Some(docker) = docker {
            output.small(MANIFEST, docker)?;
        }
        output.small(MARKER, MARKER_CONTENT)?;
        output.file.write_all(&[0; 1024])
    }
}

impl Destination for ArchiveWriter {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, OciError> {
        Ok(self.state().blobs.contains_key(&blob.digest))
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        progress: &Progress,
    ) -> Result<(), OciError> {
        let region = {
            let mut state = self.state();
            if state.blobs.contains_key(&blob.digest) {
                return Ok(());
            }
            let end = state.end.checked_add(blob.size).ok_or_else(|| {
                OciError::invalid(format!("blob {}", blob.digest), "the sizes have no sum")
            })?;
            let offset = std::mem::replace(&mut state.end, end);
            let size = blob.size;
            Region { offset, size }
        };
        let mut offset = region.offset;
        copy_blob(blob, open, progress, |piece| {
            self.gathered.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
            Ok(())
        })
        .map_err(|error| self.failed(error))?;
        self.state().blobs.insert(blob.digest, region);
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), OciError> {
        let blob = Descriptor::of(&manifest.media_type, &manifest.bytes);
        let open = || Ok(Box::new(io::Cursor::new(manifest.bytes.clone())) as Box<dyn Read + Send>);
        self.put_blob(&blob, &open, &Progress::new())?;
        self.state().root = Some(manifest.clone());
        Ok(())
    }

    fn finish(&self) -> Result<(), OciError> {
        let mut state = self.state();
        if state.is_finished {
            return Ok(());
        }
        let Some(root) = &state.root else {
            return Err(OciError::invalid(
                self.describe(),
                "no manifest was written to it",
            ));
        };
        let file = self.write_archive(&state, root)?;
        (file.persist(&self.path)).map_err(|error| self.failed(error.error))?;
        state.is_finished = true;
        Ok(())
    }
}

/// The index of the archive: its only image under its name, for Docker also in full.
fn index(root: &RawManifest, name: Option<&str>) -> Index {
    let mut entry = named(root, name);
    if let Some(name) = name.and_then(tag) {
        entry.annotations.insert(NAME_CONTAINERD.to_owned(), name);
    }
    Index {
        schema_version: 2,
        media_type: Some(media::INDEX.to_owned()),
        manifests: vec![entry],
        annotations: BTreeMap::new(),
    }
}

/// What Docker of all ages reads; nothing where there is no image that it could load.
fn docker_manifest(root: &RawManifest, name: Option<&str>) -> Option<Vec<u8>> {
    let Ok(Parsed::Manifest(manifest)) = root.parse() else {
        return None;
    };
    let Manifest { config, layers, .. } = manifest;
    if !matches!(
        config.media_type.as_str(),
        media::CONFIG | media::DOCKER_CONFIG
    ) {
        return None;
    }
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| blob_path(&layer.digest))
        .collect();
    let tags: Option<Vec<String>> = name.and_then(tag).map(|tag| vec![tag]);
    let images = json!([{"Config": blob_path(&config.digest), "RepoTags": tags, "Layers": layers}]);
    Some(crate::manifest::json(&images))
}

/// The name in full, if it is one that Docker takes.
fn tag(name: &str) -> Option<String> {
    let reference: Reference = name.parse().ok()?;
    reference.tag()?;
    reference.digest().is_none().then(|| reference.to_string())
}

/// An archive while it is written.
struct Output<'a> {
    file: &'a File,
}

impl Output<'_> {
    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.member(name, EntryType::Directory, 0o755, 0)
    }

    fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.member(name, EntryType::Regular, 0o644, size)
    }

    fn member(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.file.write_all(header.as_bytes())
    }

    fn small(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.header(name, bytes.len() as u64)?;
        self.file.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Copies bytes of another file: within the kernel where it can.
    fn copy(&mut self, from: &File, region: Region) -> io::Result<()> {
        let mut from = from;
        from.seek(SeekFrom::Start(region.offset))?;
        let copied = io::copy(&mut from.take(region.size), &mut self.file)?;
        if copied < region.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(region.size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let missing = size.next_multiple_of(512) - size;
        self.file
            .write_all(&[0; 512][..usize::try_from(missing).unwrap_or(0)])
    }
}
