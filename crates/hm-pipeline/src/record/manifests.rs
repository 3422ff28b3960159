//! Lists of injected files, kept to tell which files changed.
//!
//! A file of lines: a version with the digest, then one JSON array of path and digest for each entry.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hm_vm_core::InjectEntry;
use serde::{Deserialize, Serialize};

use super::file::{broken, newer};
use super::files::{self, doing};
use super::prune::is_old;
use super::store::RunStore;

/// Name of their directory.
const DIRECTORY: &str = "manifests";

/// Version of the form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    #[serde(default)]
    digest: String,
}

impl RunStore {
    fn manifest_path(&self, digest: &str) -> PathBuf {
        self.directory().join(DIRECTORY).join(name(digest))
    }

    /// Whether there is a list for this digest.
    pub fn has_manifest(&self, digest: &str) -> bool {
        self.manifest_path(digest).exists()
    }

    /// Keeps the list of what an inject of this digest brought. Does nothing when there is one. A list that
    /// no run on record mentions goes with the next [`prune`](Self::prune).
    ///
    /// # Errors
    ///
    /// A failure to write.
    pub fn save_manifest(&self, digest: &str, entries: &[InjectEntry]) -> Result<()> {
        let path = self.manifest_path(digest);
        if path.exists() {
            return Ok(());
        }
        files::make_directories(&self.directory().join(DIRECTORY))?;
        let mut content = Vec::with_capacity(96 * (1 + entries.len()));
        let head = Head {
            version: VERSION,
            digest: digest.to_owned(),
        };
        doing(line(&mut content, &head), "encoding", &path)?;
        for entry in entries {
            let pair = (&entry.path, &entry.digest);
            doing(line(&mut content, &pair), "encoding", &path)?;
        }
        files::replace(&path, &content)
    }

    /// The list for a digest. `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::BadState`](hm_vm_core::Error::BadState) for a newer or broken file, or a failure to read.
    pub fn load_manifest(&self, digest: &str) -> Result<Option<Vec<InjectEntry>>> {
        let path = self.manifest_path(digest);
        let Some(content) = files::read(&path)? else {
            return Ok(None);
        };
        let mut lines = content.split(|byte| *byte == b'\n');
        let head: Head = serde_json::from_slice(lines.next().unwrap_or_default())
            .map_err(|error| broken(&path, &error))?;
        if head.version > VERSION {
            return Err(newer(&path, head.version).into());
        }
        let entries = lines.filter(|line| !line.is_empty()).map(|line| {
            let (path, digest) = serde_json::from_slice(line)?;
            Ok(InjectEntry { path, digest })
        });
        let entries: Result<_, serde_json::Error> = entries.collect();
        Ok(Some(entries.map_err(|error| broken(&path, &error))?))
    }
}

/// Removes the lists of all digests but these.
pub(super) fn retain(runs: &Path, digests: &HashSet<String>) -> Result<()> {
    let directory = runs.join(DIRECTORY);
    let names = files::names(&directory)?;
    let kept: HashSet<String> = digests.iter().map(|digest| name(digest)).collect();
    for unused in names.iter().filter(|name| !kept.contains(*name)) {
        let path = directory.join(unused);
        // A name with a dot is one that is being written.
        if !unused.contains('.') || is_old(&path) {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Digests come from backends, and may be no names of files.
fn name(digest: &str) -> String {
    blake3::hash(digest.as_bytes()).to_hex()[..32].to_owned()
}

fn line(content: &mut Vec<u8>, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *content, value)?;
    content.write_all(b"\n")
}
