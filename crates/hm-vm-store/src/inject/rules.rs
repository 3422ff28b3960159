//! What ignore files say.
//!
//! The `ignore` crate matches; the order of the files is ours: the deepest `.hmvmignore` that has
//! a rule for a path decides, and where none has, the deepest `.gitignore` that has one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::io::Errno;

use super::InjectError;
use crate::beneath::{READ, as_path, open_beneath, open_root};

pub(super) const GITIGNORE: &[u8] = b".gitignore";
pub(super) const HMVMIGNORE: &[u8] = b".hmvmignore";

/// Ignore files longer than this many bytes are not read.
const MAX_BYTES: usize = 16 << 20;

/// What the rules say of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Left out.
    Ignored,
    /// Brought, by a `!` rule of a `.hmvmignore`.
    AskedFor,
    /// Brought.
    Unnamed,
}

/// The ignore files of one directory, and those of the directories above it.
#[derive(Debug)]
pub(super) struct Rules {
    above: Option<Arc<Rules>>,
    /// Length of the path of this directory with its last slash, counted from the top of the
    /// repository.
    base: usize,
    hmvm: Gitignore,
    git: Gitignore,
}

impl Rules {
    /// Reads the ignore files of an open directory. `None` when it has none that say anything.
    pub(super) fn read(
        directory: &OwnedFd,
        above: Option<&Arc<Rules>>,
        base: usize,
        notices: &mut Vec<String>,
    ) -> Result<Option<Arc<Rules>>, Errno> {
        let hmvm = read_ignore_file(directory, HMVMIGNORE, notices)?;
        let git = read_ignore_file(directory, GITIGNORE, notices)?;
        if hmvm.is_empty() && git.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Rules {
            above: above.cloned(),
            base,
            hmvm,
            git,
        })))
    }

    /// What the rules say of `path`, counted from the top of the repository.
    pub(super) fn verdict(&self, path: &[u8], is_directory: bool) -> Verdict {
        match self.find(path, is_directory, |rules| &rules.hmvm) {
            Some(true) => return Verdict::Ignored,
            Some(false) => return Verdict::AskedFor,
            None => {}
        }
        match self.find(path, is_directory, |rules| &rules.git) {
            Some(true) => Verdict::Ignored,
            _ => Verdict::Unnamed,
        }
    }

    /// Whether the deepest rule for the path leaves it out. `None` when there is no rule.
    fn find(
        &self,
        path: &[u8],
        is_directory: bool,
        which: fn(&Rules) -> &Gitignore,
    ) -> Option<bool> {
        let mut next = Some(self);
        while let Some(rules) = next {
            match which(rules).matched(as_path(&path[rules.base..]), is_directory) {
                Match::Ignore(_) => return Some(true),
                Match::Whitelist(_) => return Some(false),
                Match::None => {}
            }
            next = rules.above.as_deref();
        }
        None
    }
}

/// The rules that hold in a directory because of the repository that it lies in.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Path of the directory from the top of its repository, with a last slash; empty at the top,
    /// or without a repository.
    pub(super) prefix: Vec<u8>,
    pub(super) rules: Option<Arc<Rules>>,
}

impl Surroundings {
    /// Looks for the top of the repository, and reads the ignore files from there down to the
    /// parent of `directory`, which must be canonical.
    pub(super) fn of(directory: &Path, notices: &mut Vec<String>) -> Result<Self, InjectError> {
        let is_top = |path: &&Path| path.join(".git").symlink_metadata().is_ok();
        let Some(top) = directory.ancestors().find(is_top) else {
            return Ok(Self::default());
        };
        let mut surroundings = Self::default();
        let inside = directory.strip_prefix(top).unwrap_or(Path::new(""));
        let mut here = top.to_owned();
        for name in inside {
            let root = open_root(&here)?;
            let above = surroundings.rules.as_ref();
            let read = Rules::read(&root, above, surroundings.prefix.len(), notices)
                .map_err(|errno| InjectError::file("reading ignore files in", &here, errno))?;
            surroundings.rules = read.or(surroundings.rules);
            surroundings
                .prefix
                .extend_from_slice(name.as_encoded_bytes());
            surroundings.prefix.push(b'/');
            here.push(name);
        }
        Ok(surroundings)
    }
}

/// Reads one ignore file. Like git, does not follow a symbolic link.
fn read_ignore_file(
    directory: &OwnedFd,
    name: &[u8],
    notices: &mut Vec<String>,
) -> Result<Gitignore, Errno> {
    let file = match open_beneath(directory, name, READ) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(Gitignore::empty()),
        Err(errno) => return Err(errno),
    };
    let Some(bytes) = read_all(&file)? else {
        notices.push(format!("{} is no usable file", as_path(name).display()));
        return Ok(Gitignore::empty());
    };
    let text = String::from_utf8_lossy(&bytes);
    // Paths are matched from the directory that the file lies in.
    let mut builder = GitignoreBuilder::new("");
    for line in text.trim_start_matches('\u{feff}').lines() {
        if let Err(error) = builder.add_line(None, line) {
            notices.push(format!("{}: {error}", as_path(name).display()));
        }
    }
    builder.build().or_else(|error| {
        notices.push(format!("{}: {error}", as_path(name).display()));
        Ok(Gitignore::empty())
    })
}

/// The content of a small regular file; `None` when it is something else.
fn read_all(file: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let stat = rustix::fs::fstat(file.as_fd())?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if !regular || size > MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match rustix::io::read(file, &mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}
