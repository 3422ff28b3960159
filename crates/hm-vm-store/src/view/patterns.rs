//! Which files of a tree a pattern names.
//!
//! A pattern is followed component by component, so that only directories which can lead to a match
//! are read. From the first `**` on, everything below is.

use std::ffi::CStr;
use std::io;

use globset::{GlobBuilder, GlobMatcher};
use rustix::io::Errno;

use crate::beneath::as_path;
use crate::error::StoreError;
use crate::tree::directory::join;
use crate::view::merged::{Directory, Merged, Node};
use crate::view::resolve::resolve;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) is_absolute: bool,
    /// Components that are names, from the start; the last one of all is never among them.
    literal: Vec<String>,
    /// What each component behind them must be like, up to the first that can be several.
    steps: Vec<Step>,
    /// Matches the path behind the literal components, where some component can be several.
    rest: Option<GlobMatcher>,
    /// Only directories.
    directory: bool,
}

#[derive(Debug)]
enum Step {
    Name(String),
    Glob(GlobMatcher),
}

impl Step {
    fn fits(&self, name: &CStr) -> bool {
        self.fits_bytes(name.to_bytes())
    }

    fn fits_bytes(&self, name: &[u8]) -> bool {
        match self {
            Self::Name(expected) => expected.as_bytes() == name,
            Self::Glob(glob) => glob.is_match(as_path(name)),
        }
    }
}

/// Something that a pattern names.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) node: Node,
    /// Its path as the pattern writes it, without a leading slash; empty for the base itself.
    pub(super) path: Vec<u8>,
}

impl Pattern {
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] for a pattern that makes no sense, or leads upwards.
    pub(super) fn new(text: &str) -> Result<Self, StoreError> {
        let invalid = |reason: &str| StoreError::invalid(format!("pattern {text:?}"), reason);
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.contains('\0') {
            return Err(invalid("it contains NUL"));
        }
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.contains(&"..") {
            return Err(invalid("it contains `..`"));
        }
        let is_absolute = text.starts_with('/');
        if is_absolute && parts.is_empty() {
            return Err(invalid("it names the whole file system"));
        }
        compile(&parts.join("/")).map_err(|reason| invalid(&reason))?;
        let names = parts.iter().take_while(|part| !is_glob(part)).count();
        let names = names.min(parts.len().saturating_sub(1));
        let (literal, behind) = parts.split_at(names);
        let (steps, is_whole) = steps(behind);
        let rest = (!is_whole)
            .then(|| compile(&behind.join("/")))
            .transpose()
            .map_err(|reason| invalid(&reason))?;
        Ok(Self {
            is_absolute,
            literal: literal.iter().map(ToString::to_string).collect(),
            steps,
            rest,
            directory: text.ends_with('/'),
        })
    }

    /// The directory below which everything is that it names, relative to the base or the root, and the name there, where it names
    /// one thing only.
    pub(super) fn below(&self) -> (Vec<u8>, Option<&str>) {
        let only = match (self.steps.as_slice(), &self.rest) {
            ([Step::Name(name)], None) => Some(name.as_str()),
            _ => None,
        };
        (self.literal.join("/").into_bytes(), only)
    }

    /// Whether it names `path`, which is relative to the directory of [`below`](Self::below), or a directory on the way to
    /// it. Too much is told where it depends on more than the path.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        if self.steps.is_empty() && self.rest.is_none() {
            return true;
        }
        let ends = path
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(at, _)| at);
        ends.chain([path.len()]).any(|end| self.names(&path[..end]))
    }

    fn names(&self, path: &[u8]) -> bool {
        let mut parts = path.split(|&byte| byte == b'/');
        let mut steps = self.steps.iter();
        let fit = steps.all(|step| parts.next().is_some_and(|part| step.fits_bytes(part)));
        fit && match &self.rest {
            Some(rest) => rest.is_match(as_path(path)),
            None => parts.next().is_none(),
        }
    }

    /// Everything that it names; of a directory and what is in it, the directory alone. Links are followed,
    /// inside the tree, on the way through the components that are names.
    pub(super) fn find(&self, tree: &Merged, base: &[u8]) -> io::Result<Vec<Match>> {
        let Some(mut search) = self.start(tree, base)? else {
            return Ok(Vec::new());
        };
        while search.next()?.is_some() {}
        let mut found = search.found;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// A search below the literal components. `None` when there is no directory.
    fn start<'a>(&'a self, tree: &'a Merged, base: &[u8]) -> io::Result<Option<Search<'a>>> {
        let base = if self.is_absolute { b"" } else { base };
        let prefix = self.literal.join("/").into_bytes();
        let start = match resolve(tree, &join(base, &prefix), true) {
            Err(error) if is_nothing(&error) => return Ok(None),
            other => other?.node,
        };
        let Some(Node::Directory(start)) = start else {
            return Ok(None);
        };
        let mut search = Search {
            pattern: self,
            tree,
            prefix,
            found: Vec::new(),
            todo: Vec::new(),
        };
        if self.steps.is_empty() && self.rest.is_none() {
            search.found.push(Match {
                node: Node::Directory(start),
                path: search.prefix.clone(),
            });
        } else {
            search.todo.push((start, Vec::new(), 0));
        }
        Ok(Some(search))
    }
}

/// A walk below the literal components.
struct Search<'a> {
    pattern: &'a Pattern,
    tree: &'a Merged,
    prefix: Vec<u8>,
    found: Vec<Match>,
    /// Directories, with their paths from the start and the number of components of these.
    todo: Vec<(Directory, Vec<u8>, usize)>,
}

impl Search<'_> {
    /// Reads one more directory. Returns its path, or `None` at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((directory, path, depth)) = self.todo.pop() else {
            return Ok(None);
        };
        self.look(&directory, &path, depth)?;
        Ok(Some(path))
    }

    fn look(&mut self, directory: &Directory, path: &[u8], depth: usize) -> io::Result<()> {
        let open = self.tree.open_directory(directory)?;
        if let Some(Step::Name(name)) = self.pattern.steps.get(depth) {
            let name = std::ffi::CString::new(name.as_str())?;
            let node = match open.child(&name) {
                Err(error) if is_nothing(&error) => None,
                other => other?,
            };
            if let Some(node) = node {
                self.visit(node, &name, path, depth);
            }
            return Ok(());
        }
        for (name, node) in open.entries()? {
            self.visit(node, &name, path, depth);
        }
        Ok(())
    }

    fn visit(&mut self, node: Node, name: &CStr, above: &[u8], depth: usize) {
        let step = self.pattern.steps.get(depth);
        if step.is_some_and(|step| !step.fits(name)) {
            return;
        }
        let path = join(above, name.to_bytes());
        let is_match = match &self.pattern.rest {
            Some(rest) => rest.is_match(as_path(&path)),
            None => depth + 1 == self.pattern.steps.len(),
        };
        match node {
            Node::Leaf(_) if !is_match || self.pattern.directory => {}
            Node::Directory(directory) if !is_match => {
                self.todo.push((directory, path, depth + 1));
            }
            node => self.found.push(Match {
                node,
                path: join(&self.prefix, &path),
            }),
        }
    }
}

/// One matcher for each component, up to the first that can be several; whether that is all.
fn steps(parts: &[&str]) -> (Vec<Step>, bool) {
    let mut steps = Vec::new();
    for part in parts {
        if !is_glob(part) {
            steps.push(Step::Name((*part).to_owned()));
        } else if part.contains("**") || part.contains('{') {
            return (steps, false);
        } else {
            match compile(part) {
                Ok(glob) => steps.push(Step::Glob(glob)),
                // A class with a slash in it: the whole pattern will do.
                Err(_) => return (steps, false),
            }
        }
    }
    (steps, true)
}

fn is_glob(part: &str) -> bool {
    part.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

fn compile(pattern: &str) -> Result<GlobMatcher, String> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| error.kind().to_string())
}

/// Whether an error means that there is nothing of such a name.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which directories are read, sorted.
    fn read_for(pattern: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for path in ["out/a/deep/er", "out/b", "lib/x/y", "usr/share"] {
            std::fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let tree = Merged::open([(1, root.path())]).unwrap();
        let pattern = Pattern::new(pattern).unwrap();
        let mut search = pattern.start(&tree, b"").unwrap().unwrap();
        let mut read = Vec::new();
        while let Some(path) = search.next().unwrap() {
            let path = join(&search.prefix, &path);
            let path = String::from_utf8(path).unwrap();
            read.push(path.trim_end_matches('/').to_owned());
        }
        read.sort();
        read
    }

    #[test]
    fn only_directories_that_can_lead_to_a_match_are_read() {
        for (pattern, expected) in [
            ("app", &[""][..]),
            ("out/app", &["out"]),
            ("out/*", &["out"]),
            ("out/*/z", &["out", "out/a", "out/b"]),
            ("o*/a/*.o", &["", "out", "out/a"]),
            ("out/a/**/z", &["out/a", "out/a/deep", "out/a/deep/er"]),
            ("l*/**/z", &["", "lib", "lib/x", "lib/x/y"]),
            (
                "{lib,usr}/z",
                &[
                    "",
                    "lib",
                    "lib/x",
                    "lib/x/y",
                    "out",
                    "out/a",
                    "out/a/deep",
                    "out/a/deep/er",
                    "out/b",
                    "usr",
                    "usr/share",
                ],
            ),
            ("usr/**", &["usr"]),
        ] {
            assert_eq!(read_for(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_that_lead_upwards_or_nowhere_are_refused() {
        for bad in [
            "", "..", "a/../b", "/", "//./", "a\0", "[", "a/{b", "../x/**",
        ] {
            let error = Pattern::new(bad).unwrap_err();
            assert!(
                matches!(error, StoreError::InvalidInput { .. }),
                "{bad:?}: {error:?}"
            );
        }
        for good in [".", "./a", "a//b/", "..a", "/x", "**", "a\\*b", "a[/]b"] {
            assert!(Pattern::new(good).is_ok(), "{good:?}");
        }
    }
}
