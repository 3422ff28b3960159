//! Outputs of snapshots that somebody else keeps, and gives out as archives.

use std::io::Read;
use std::path::Path;

use hm_vm_core::{OutputReport, OutputRequest};

use crate::beneath::{join, split};
use crate::error::{Context, StoreError};
use crate::import::{Placing, Wanted, link_others, unpack_part};
use crate::view::copier::{Copier, Manner};
use crate::view::merged::Merged;
use crate::view::outputs::{check, make_destination, place, report};
use crate::view::patterns::Pattern;
use crate::view::reader::guest_error;

/// Copies outputs of a snapshot of which there are only archives of its directories: the patterns, the
/// protections and the report are those of [`Store::copy_outputs`](crate::Store::copy_outputs).
///
/// For each of the [`parts`](Self::parts) the caller gets an archive and [`unpack`](Self::unpack)s it; then it
/// [`copy`](Self::copy)s.
#[derive(Debug)]
pub struct ArchivedOutputs {
    request: OutputRequest,
    patterns: Vec<Pattern>,
    /// The request's base without `.` and `..`, relative to the root.
    base: Vec<u8>,
    parts: Vec<OutputPart>,
}

/// A part of the guest's files in which patterns look for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPart {
    /// An absolute guest directory. Links in it are to be followed, inside of the guest.
    pub directory: String,
    /// The name in it of the only thing that is looked for, which may be a directory itself. `None` when all that is in the directory is
    /// looked at.
    pub only: Option<String>,
    /// Numbers of its patterns in the request.
    patterns: Vec<usize>,
}

/// Hard links that a first archive of a part left open, because their files are where no pattern looks.
#[derive(Debug)]
pub struct OpenLinks(Wanted);

impl OpenLinks {
    /// Whether there is none: no second archive is needed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ArchivedOutputs {
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] for a pattern or a base that makes no sense.
    pub fn new(request: &OutputRequest) -> Result<Self, StoreError> {
        let patterns = check(request)?;
        let base = plain(&request.base);
        let mut parts: Vec<OutputPart> = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let (below, only) = pattern.below();
            let directory = match pattern.is_absolute {
                true => below,
                false => join_paths(&base, &below),
            };
            let directory = format!("/{}", String::from_utf8_lossy(&directory));
            let only = only.map(str::to_owned);
            let same = parts
                .iter_mut()
                .find(|part| part.directory == directory && part.only == only);
            match same {
                Some(part) => part.patterns.push(number),
                None => parts.push(OutputPart {
                    directory,
                    only,
                    patterns: vec![number],
                }),
            }
        }
        Ok(Self {
            request: request.clone(),
            patterns,
            base,
            parts,
        })
    }

    /// What archives are needed of.
    pub fn parts(&self) -> &[OutputPart] {
        &self.parts
    }

    /// Unpacks an archive of a part into `scratch`, an existing directory of this part alone: only what its patterns
    /// can name. The members of the archive are relative to the part's directory; with `has_top`, where the archive is of
    /// [`OutputPart::only`], the first component of each is that, under whatever name.
    ///
    /// With the links that a first archive left open, another archive of the same gives the files for them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Import`] for an archive that is damaged, cut off, or harmful, or a failure to write.
    pub fn unpack(
        &self,
        part: &OutputPart,
        archive: &mut dyn Read,
        has_top: bool,
        scratch: &Path,
        links: Option<&OpenLinks>,
    ) -> Result<OpenLinks, StoreError> {
        let name = Path::new(&part.directory);
        let base = part.directory.trim_start_matches('/').as_bytes();
        if let Some(OpenLinks(wanted)) = links {
            let mut place = |path: &[u8]| match wanted.get(path).and_then(|paths| paths.first()) {
                Some(to) => Placing::Take(to.clone()),
                None => Placing::Leave,
            };
            let open = unpack_part(archive, name, scratch, &mut place)?;
            link_others(scratch, wanted)?;
            return Ok(OpenLinks(open));
        }
        let mut place = |path: &[u8]| self.place(part, base, has_top, path);
        Ok(OpenLinks(unpack_part(archive, name, scratch, &mut place)?))
    }

    fn place(&self, part: &OutputPart, base: &[u8], has_top: bool, path: &[u8]) -> Placing {
        match (&part.only, has_top) {
            (Some(only), true) => {
                let below = match path.iter().position(|&byte| byte == b'/') {
                    Some(slash) => &path[slash + 1..],
                    None => b"",
                };
                Placing::Take(join_paths(&join_paths(base, only.as_bytes()), below))
            }
            // What is behind it in the directory is of no use.
            (Some(only), false) if path == only.as_bytes() => Placing::Last(join_paths(base, path)),
            (Some(_), false) => Placing::Leave,
            _ => {
                let mut patterns = part.patterns.iter().map(|&number| &self.patterns[number]);
                // The directory itself is there in any case: a pattern may name it.
                match path.is_empty() || patterns.any(|pattern| pattern.covers(path)) {
                    true => Placing::Take(join_paths(base, path)),
                    false => Placing::Leave,
                }
            }
        }
    }

    /// Copies what the patterns find. `scratch` has the directory of each part, in their order.
    ///
    /// # Errors
    ///
    /// As [`Store::copy_outputs`](crate::Store::copy_outputs).
    pub fn copy(&self, scratch: &[&Path]) -> Result<OutputReport, StoreError> {
        let to = std::path::absolute(&self.request.to).context("finding", &self.request.to)?;
        make_destination(&to)?;
        let open = |path: &&Path| Merged::open([(1, *path)]).context("opening", path);
        let trees = scratch.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let manner = Manner {
            special_bits: false,
            leave_equal: true,
        };
        let none = Merged::open([]).context("opening", &to)?;
        let mut copier = Copier::new(&none, &to, manner)?;
        let mut unmatched = Vec::new();
        for (number, pattern) in self.patterns.iter().enumerate() {
            let mut parts = self.parts.iter().zip(&trees);
            let tree = parts.find(|(part, _)| part.patterns.contains(&number));
            let found = match tree {
                Some((_, tree)) => {
                    copier.go_on_with(tree);
                    pattern
                        .find(tree, &self.base)
                        .map_err(|error| guest_error(Path::new(&self.request.base), error))?
                }
                None => Vec::new(),
            };
            if found.is_empty() {
                unmatched.push(self.request.patterns[number].clone());
            }
            for found in found {
                place(&mut copier, pattern, found)?;
            }
        }
        Ok(report(copier.finish()?, unmatched))
    }
}

/// A path relative to the root, without `.` and `..`.
fn plain(path: &str) -> Vec<u8> {
    let mut plain = Vec::new();
    for name in path.as_bytes().split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => plain.truncate(split(&plain).0.len()),
            name => plain = join(&plain, name),
        }
    }
    plain
}

/// As [`join`], where each may be empty.
fn join_paths(above: &[u8], below: &[u8]) -> Vec<u8> {
    if below.is_empty() {
        return above.to_vec();
    }
    join(above, below)
}
