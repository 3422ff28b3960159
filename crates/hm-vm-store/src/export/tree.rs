//! A tree as a tar archive.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use tar::EntryType;

use super::header::{Member, Xattr, padding};
use crate::tree::attributes;
use crate::tree::directory::{file_type, is_opaque, is_whiteout, join, list, open_directory, stat};
use crate::view::absolute;

/// What stands before the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";

/// The mark of an opaque directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

const BUFFER: usize = 256 << 10;

/// An archive ends with two empty blocks.
const END: [u8; 1024] = [0; 1024];

/// What a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A layer, with whiteouts and opaque directories in overlayfs's form.
    Layer,
    /// Files and nothing else.
    Plain,
}

/// Why a tree could not be written.
#[derive(Debug)]
pub(super) enum Failure {
    /// Reading a file of the tree, by its path there.
    Reading(PathBuf, io::Error),
    /// A file of the tree cannot be in an archive.
    Unfit(PathBuf, String),
    /// The other end is gone: it knows why.
    Writing,
}

/// What an archive does not have.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    sockets: u64,
    first_socket: Option<PathBuf>,
    xattrs: u64,
}

impl LeftOut {
    /// In words.
    pub(super) fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(first) = &self.first_socket {
            let (first, count) = (first.display(), self.sockets);
            notices.push(match count {
                1 => format!("the socket {first} was left out"),
                _ => format!("{count} sockets were left out, the first is {first}"),
            });
        }
        if self.xattrs > 0 {
            let count = self.xattrs;
            notices.push(format!(
                "{count} extended attributes were left out: their names cannot be in an archive"
            ));
        }
        notices
    }
}

/// Writes the tree at `root`. Starts no threads and uses no database: it may run inside the user namespace.
pub(super) fn write_tree(root: &Path, form: Form, out: &mut dyn Write) -> Result<LeftOut, Failure> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|errno| Failure::Reading("/".into(), errno.into()))?;
    let mut writer = Writer {
        form,
        out,
        linked: HashMap::new(),
        left_out: LeftOut::default(),
        buffer: vec![0; BUFFER],
    };
    let mut todo = vec![Todo::default()];
    while let Some(next) = todo.pop() {
        writer.directory(root.as_fd(), &next, &mut todo)?;
    }
    writer.put(&END)?;
    Ok(writer.left_out)
}

/// A directory to do.
#[derive(Debug, Default)]
struct Todo {
    path: Vec<u8>,
    /// Whether nothing of lower layers shines through here.
    closed: bool,
}

struct Writer<'a> {
    form: Form,
    out: &'a mut dyn Write,
    /// Files with several names: the first.
    linked: HashMap<u64, Vec<u8>>,
    left_out: LeftOut,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn directory(
        &mut self,
        root: BorrowedFd<'_>,
        at: &Todo,
        todo: &mut Vec<Todo>,
    ) -> Result<(), Failure> {
        let failed = |error: rustix::io::Errno| reading(&at.path, error.into());
        let directory = open_directory(root, &at.path).map_err(failed)?;
        let found = rustix::fs::fstat(&directory).map_err(failed)?;
        let name = match at.path.is_empty() {
            true => b"./".to_vec(),
            false => join(&at.path, b""),
        };
        let member = self.member(&name, EntryType::Directory, &found);
        let xattrs = self.xattrs(directory.as_fd(), &at.path)?;
        self.header(&Member { xattrs, ..member })?;
        // overlayfs does not look at the mark of a layer's root.
        let is_opaque = self.form == Form::Layer
            && !at.path.is_empty()
            && !at.closed
            && is_opaque(directory.as_fd());
        if is_opaque {
            self.mark(&join(&at.path, OPAQUE))?;
        }
        let closed = at.closed || is_opaque;
        let mut names: Vec<CString> = list(directory.as_fd())
            .map_err(failed)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        let mut directories = Vec::new();
        for name in names {
            let path = join(&at.path, name.to_bytes());
            let found =
                stat(directory.as_fd(), &name).map_err(|error| reading(&path, error.into()))?;
            if self.form == Form::Layer && name.to_bytes().starts_with(WHITEOUT) {
                let reason = "an OCI layer cannot hold a file whose name begins with .wh.";
                return Err(Failure::Unfit(
                    absolute(&at.path, name.to_bytes()),
                    reason.to_owned(),
                ));
            }
            if file_type(&found) == FileType::Directory {
                directories.push(Todo { path, closed });
            } else if self.form == Form::Layer && is_whiteout(&found) {
                if !closed {
                    let name = [WHITEOUT, name.to_bytes()].concat();
                    self.mark(&join(&at.path, &name))?;
                }
            } else {
                self.entry(&directory, &name, &path, &found)?;
            }
        }
        todo.extend(directories.into_iter().rev());
        Ok(())
    }

    /// Anything but a directory.
    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &[u8],
        found: &Stat,
    ) -> Result<(), Failure> {
        let kind = match file_type(found) {
            FileType::RegularFile => EntryType::Regular,
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => {
                self.left_out.sockets += 1;
                let first = &mut self.left_out.first_socket;
                first.get_or_insert_with(|| absolute(b"", path));
                return Ok(());
            }
        };
        if found.st_nlink > 1 {
            if let Some(first) = self.linked.get(&found.st_ino) {
                let target = first.clone();
                let member = self.member(path, EntryType::Link, found);
                let target = &target[..];
                return self.header(&Member { target, ..member });
            }
            self.linked.insert(found.st_ino, path.to_vec());
        }
        let member = self.member(path, kind, found);
        match kind {
            EntryType::Regular => self.file(parent, name, member),
            EntryType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|error| reading(path, error.into()))?;
                let target = target.to_bytes();
                self.header(&Member { target, ..member })
            }
            EntryType::Char | EntryType::Block => {
                let device = found.st_rdev;
                let device = Some((rustix::fs::major(device), rustix::fs::minor(device)));
                self.header(&Member { device, ..member })
            }
            _ => self.header(&member),
        }
    }

    fn file(&mut self, parent: &OwnedFd, name: &CStr, member: Member<'_>) -> Result<(), Failure> {
        let path = member.path;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(|error| reading(path, error.into()))?;
        let found = rustix::fs::fstat(&file).map_err(|error| reading(path, error.into()))?;
        if file_type(&found) != FileType::RegularFile {
            return Err(changed(path));
        }
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let xattrs = self.xattrs(file.as_fd(), path)?;
        self.header(&Member {
            size,
            xattrs,
            ..member
        })?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            match file.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(changed(path)),
                Ok(count) => {
                    self.out
                        .write_all(&self.buffer[..count])
                        .map_err(|_| Failure::Writing)?;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(reading(path, error)),
            }
        }
        self.put(&END[..padding(size)])
    }

    /// An empty file that says something of what lies below. Nothing else of it means anything.
    fn mark(&mut self, path: &[u8]) -> Result<(), Failure> {
        self.header(&Member {
            path,
            kind: EntryType::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            target: b"",
            device: None,
            xattrs: Vec::new(),
        })
    }

    fn member<'a>(&self, path: &'a [u8], kind: EntryType, found: &Stat) -> Member<'a> {
        let times = attributes::times(found).last_modification;
        Member {
            path,
            kind,
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            mtime: (times.tv_sec, u32::try_from(times.tv_nsec).unwrap_or(0)),
            size: 0,
            target: b"",
            device: None,
            xattrs: Vec::new(),
        }
    }

    /// The attributes that are part of the file.
    fn xattrs(&mut self, file: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Xattr>, Failure> {
        let found = attributes::extended(file).map_err(|error| reading(path, error.into()))?;
        let mut kept = Vec::new();
        for (name, mut value) in found {
            let name = name.into_bytes();
            if !is_kept(&name) {
                continue;
            }
            if name.contains(&b'=') {
                self.left_out.xattrs += 1;
                continue;
            }
            if name == CAPABILITY {
                normalize_capability(&mut value);
            }
            kept.push((name, value));
        }
        Ok(kept)
    }

    fn header(&mut self, member: &Member<'_>) -> Result<(), Failure> {
        self.put(&member.headers())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|_| Failure::Writing)
    }
}

const CAPABILITY: &[u8] = b"security.capability";

fn is_kept(name: &[u8]) -> bool {
    name == CAPABILITY || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

/// Capabilities that belong to root of a user namespace name it; those of the namespace at hand are the plain ones.
fn normalize_capability(value: &mut Vec<u8>) {
    const VERSION_2: u8 = 2;
    const VERSION_3: u8 = 3;
    // Little-endian: version and flags, twice two sets, and in version 3 the namespace's root.
    if value.len() == 24 && value[3] == VERSION_3 && value[20..] == [0; 4] {
        value[3] = VERSION_2;
        value.truncate(20);
    }
}

fn reading(path: &[u8], error: io::Error) -> Failure {
    Failure::Reading(absolute(b"", path), error)
}

fn changed(path: &[u8]) -> Failure {
    reading(path, io::Error::other("it changed while it was read"))
}
