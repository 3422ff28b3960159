//! Unpacking the archive of a layer, which is taken to be hostile.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, makedev};
use tar::EntryType;

use super::ImportError;
use super::archive::{ArchiveReader, Member};
use super::layer_content::LayerContent;
use super::layer_report::{LayerOptions, LayerReport, LowerLink};
use super::layer_writer::{LayerWriter, Linked, writing};
use super::notices::Lost;
use super::root_writer::Attributes;
use super::space::SpaceWatch;
use crate::beneath::{as_path, join, open_root, split};
use crate::content::BUFFER_BYTES;

/// Begin of names that say something of other entries.
const MARK: &[u8] = b".wh.";

/// Begin of names that are AUFS's own.
const AUFS: &[u8] = b".wh..wh.";

/// The entry that says that its directory hides what lies below.
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// As many paths of entries that were left out are remembered.
const LEFT_OUT: usize = 1 << 17;

/// As many bytes may the links into other layers take.
const LINK_BYTES: usize = 16 << 20;

/// Unpacks the archive of a layer, without compression, into the existing, empty directory `dest`, in overlayfs's
/// own form: a whiteout is a character device 0/0, an opaque directory has the attribute `user.overlay.opaque`.
/// `name` stands for the archive in errors. Reads to the end of the input, past the end mark.
///
/// * `..` and `/` in paths are resolved as if the layer were the root; a path that leads out of it is refused.
///   Symbolic links on the way to an entry are followed inside the layer only.
/// * A later entry replaces an earlier one of the same path; a directory replaces none but gives
///   new attributes.
/// * A whiteout of something that this layer has does not concern it.
/// * Of extended attributes `user.*` (not `user.overlay.*`), `security.capability` and access control lists are
///   kept.
///
/// To be called as root, or as root of a user namespace. Starts no thread: it can be called inside
/// `UserNamespace::run`.
///
/// # Errors
///
/// [`ImportError`]; `dest` is left half-written then.
pub fn unpack_layer_from(
    archive: &mut dyn Read,
    name: &Path,
    dest: &Path,
    options: &LayerOptions,
) -> Result<LayerReport, ImportError> {
    let root = open_root(dest)?;
    let mut unpacker = Unpacker {
        space: SpaceWatch::new(),
        reader: ArchiveReader::new(archive, name),
        writer: LayerWriter::new(&root, options)?,
        root: &root,
        left_out: HashSet::new(),
        needs_lower: Vec::new(),
        link_bytes: 0,
        first_time: None,
        has_root: false,
        root_entry: options.root_entry,
        buffer: vec![0; BUFFER_BYTES],
    };
    while let Some(member) = unpacker.reader.next()? {
        unpacker.writer.count_entry()?;
        unpacker.space.entry(&root)?;
        unpacker.unpack(member)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    reader: ArchiveReader<'a>,
    writer: LayerWriter<'a>,
    root: &'a OwnedFd,
    space: SpaceWatch,
    /// Hashes of the paths of entries that were left out, to which links may lead.
    left_out: HashSet<u64>,
    needs_lower: Vec<LowerLink>,
    link_bytes: usize,
    /// Modification time of the first entry: of the root, where nothing is said of it.
    first_time: Option<i64>,
    has_root: bool,
    root_entry: bool,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn unpack(&mut self, mut member: Member) -> Result<(), ImportError> {
        let path = layer_path(&member.path)?;
        if !self.root_entry && member.kind != EntryType::Symlink {
            member.mtime_ns = dockers_time(member.mtime_ns);
        }
        let attributes = Attributes {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime_ns: Some(member.mtime_ns),
            xattrs: std::mem::take(&mut member.xattrs),
        };
        self.first_time.get_or_insert(member.mtime_ns);
        if path.is_empty() {
            return self.root_entry(&member, &attributes);
        }
        if is_aufs_own(&path) {
            return Ok(());
        }
        if split(&path).1.starts_with(MARK) {
            return self.mark(&path, member.mtime_ns);
        }
        match member.kind {
            EntryType::Directory => self.writer.directory(&path, &attributes),
            EntryType::Regular | EntryType::Continuous => self.file(&path, &member, &attributes),
            EntryType::Symlink if member.target.is_empty() || member.target.contains(&0) => Err(
                ImportError::invalid(as_path(&path), "a link without a target"),
            ),
            EntryType::Symlink => self.writer.symlink(&path, &member.target, &attributes),
            EntryType::Link => self.hard_link(path, &member.target, attributes),
            EntryType::Fifo => self.node(&path, FileType::Fifo, (0, 0), &attributes),
            EntryType::Char => {
                self.node(&path, FileType::CharacterDevice, member.device, &attributes)
            }
            EntryType::Block => self.node(&path, FileType::BlockDevice, member.device, &attributes),
            _ => {
                self.writer.notices.lost(Lost::OtherKind, &path);
                self.leave_out(&path);
                Ok(())
            }
        }
    }

    fn root_entry(&mut self, member: &Member, attributes: &Attributes) -> Result<(), ImportError> {
        if member.kind != EntryType::Directory {
            let reason = "the root of the file system must be a directory";
            return Err(ImportError::invalid(Path::new("/"), reason));
        }
        self.has_root = true;
        self.writer.root(attributes)
    }

    /// An entry that says something of others.
    fn mark(&mut self, path: &[u8], mtime_ns: i64) -> Result<(), ImportError> {
        let (directory, name) = split(path);
        if name == OPAQUE_MARK {
            return self.writer.opaque(directory, mtime_ns);
        }
        match &name[MARK.len()..] {
            b"" | b"." | b".." => {
                let reason = "it is a whiteout of nothing that can be removed";
                Err(ImportError::invalid(as_path(path), reason))
            }
            hidden => self.writer.whiteout(&join(directory, hidden), mtime_ns),
        }
    }

    fn file(
        &mut self,
        path: &[u8],
        member: &Member,
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        self.writer.count_bytes(member.size)?;
        let (reader, buffer) = (&mut self.reader, &mut self.buffer);
        let (space, root) = (&mut self.space, self.root);
        self.writer.file(path, attributes, &mut |file| {
            copy_data(reader, file, member, buffer, &mut |count| {
                space.bytes(root, count)
            })
        })
    }

    fn hard_link(
        &mut self,
        path: Vec<u8>,
        target: &[u8],
        attributes: Attributes,
    ) -> Result<(), ImportError> {
        let target = layer_path(target)?;
        if target.is_empty() {
            return Err(ImportError::invalid(as_path(&path), "a link to the root"));
        }
        if self.writer.hard_link(&path, &target, &attributes)? == Linked::Done {
            return Ok(());
        }
        if self.left_out.contains(&hash(&target)) {
            self.writer.notices.lost(Lost::LinkToOmitted, &path);
            self.leave_out(&path);
            return Ok(());
        }
        let xattrs = attributes.xattrs.iter();
        let xattrs: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        self.link_bytes += path.len() + target.len() + xattrs + 128;
        if self.link_bytes > LINK_BYTES {
            return Err(ImportError::LimitExceeded {
                limit: LINK_BYTES as u64,
                unit: "bytes of hard links into other layers",
            });
        }
        self.needs_lower.push(LowerLink {
            path,
            target,
            attributes,
        });
        Ok(())
    }

    fn node(
        &mut self,
        path: &[u8],
        kind: FileType,
        (major, minor): (u32, u32),
        attributes: &Attributes,
    ) -> Result<(), ImportError> {
        let device = makedev(major, minor);
        if !self.writer.node(path, kind, device, attributes)? {
            self.leave_out(path);
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &[u8]) {
        if self.left_out.len() < LEFT_OUT {
            self.left_out.insert(hash(path));
        }
    }

    fn finish(mut self) -> Result<LayerReport, ImportError> {
        self.reader.drain(&mut self.buffer)?;
        if !self.has_root {
            let attributes = Attributes {
                mode: 0o755,
                mtime_ns: Some(self.first_time.unwrap_or(0)),
                ..Attributes::default()
            };
            self.writer.root(&attributes)?;
        }
        if self.reader.end_mark_missing && self.writer.entries() > 0 {
            let notice = "the archive has no end mark: it may have been cut off";
            self.writer.notices.say(notice);
        }
        let (entries, bytes) = (self.writer.entries(), self.writer.bytes());
        Ok(LayerReport {
            entries,
            bytes,
            needs_lower: self.needs_lower,
            notices: self.writer.finish()?.into_texts(),
        })
    }
}

/// Docker gives what is before 1970, or after 2262, the time 0.
fn dockers_time(mtime_ns: i64) -> i64 {
    match mtime_ns {
        i64::MAX => 0,
        mtime_ns => mtime_ns.max(0),
    }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Whether an entry is one of those that AUFS keeps for itself, or lies in such a directory.
fn is_aufs_own(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/')
        .any(|name| name.starts_with(AUFS) && name != OPAQUE_MARK)
}

/// Path below the root, as if the root were the machine's. Empty for the root.
fn layer_path(path: &[u8]) -> Result<Vec<u8>, ImportError> {
    let invalid = |reason: &str| Err(ImportError::invalid(as_path(path), reason));
    if path.is_empty() {
        return invalid("an entry without a name");
    }
    if path.contains(&0) {
        return invalid("NUL in a path");
    }
    if path.len() > LONGEST_PATH {
        return invalid("its name or path is too long");
    }
    let mut plain = Vec::with_capacity(path.len());
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if plain.is_empty() => return invalid("\"..\" leads out of the layer"),
            b".." => {
                let parent = split(&plain).0.len();
                plain.truncate(parent);
            }
            name => {
                if !plain.is_empty() {
                    plain.push(b'/');
                }
                plain.extend_from_slice(name);
            }
        }
    }
    Ok(plain)
}

/// The kernel takes no longer ones.
const LONGEST_PATH: usize = 4095;

/// Writes a member's content, its holes included.
fn copy_data(
    reader: &mut ArchiveReader<'_>,
    file: &OwnedFd,
    member: &Member,
    buffer: &mut [u8],
    watch: &mut dyn FnMut(u64) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let failed = |errno| writing(b"files", errno);
    let whole = [(0, member.size)];
    let mut content = LayerContent::new(file);
    for &(offset, length) in member.regions.as_deref().unwrap_or(&whole) {
        content.skip_to(offset);
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            // Whole buffers keep blocks of zeros where they are blocks of the file.
            let mut filled = 0;
            while filled < most {
                match reader.read_data(&mut buffer[filled..most])? {
                    // The lengths were compared before; this does not happen.
                    0 => return Err(reader.cut_off()),
                    count => filled += count,
                }
            }
            content.write(&buffer[..filled]).map_err(failed)?;
            watch(filled as u64)?;
            left -= filled as u64;
        }
    }
    content.finish(member.size).map_err(failed)
}
