//! The files of a fake VM: an ordered map from absolute path to node.

use std::collections::BTreeMap;

use hm_vm_core::Error;

/// One entry of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File { bytes: Vec<u8>, mode: u32 },
    Directory { mode: u32 },
    Link { target: String },
}

impl Node {
    pub(super) fn directory() -> Self {
        Self::Directory { mode: 0o755 }
    }

    pub(super) fn mode(&self) -> u32 {
        match self {
            Self::File { mode, .. } | Self::Directory { mode } => *mode,
            Self::Link { .. } => 0o777,
        }
    }
}

/// A file system in memory. Paths are UTF-8, absolute, without `.` and `..`.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// What every fake image contains.
    pub(super) fn image(name: &str) -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert("/".to_owned(), Node::directory());
        for path in ["/etc", "/root", "/usr"] {
            nodes.insert(path.to_owned(), Node::directory());
        }
        nodes.insert("/tmp".to_owned(), Node::Directory { mode: 0o1777 });
        let bytes = format!("{name}\n").into_bytes();
        nodes.insert("/etc/image".to_owned(), Node::File { bytes, mode: 0o644 });
        Self { nodes }
    }

    /// The absolute path that `path` means, links followed; the last one only when `follow` says.
    pub(super) fn resolve(&self, base: &str, path: &str, follow: bool) -> Option<String> {
        let joined = join(base, path);
        let mut todo: Vec<String> = components(&joined);
        todo.reverse();
        let mut done = String::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{done}/{name}");
            match self.nodes.get(&next) {
                Some(Node::Link { target }) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return None;
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    todo.extend(components(target).into_iter().rev());
                }
                _ => done = next,
            }
        }
        Some(if done.is_empty() {
            "/".to_owned()
        } else {
            done
        })
    }

    /// The node at exactly this path.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn is_directory(&self, path: &str) -> bool {
        matches!(self.nodes.get(path), Some(Node::Directory { .. }))
    }

    /// Puts a node. Its parent must be a directory; a directory stays what it is.
    pub(super) fn put(&mut self, path: &str, node: Node) -> Result<(), String> {
        if !self.is_directory(parent(path)) {
            return Err(format!("{path}: No such file or directory"));
        }
        if self.is_directory(path) && !matches!(node, Node::Directory { .. }) {
            return Err(format!("{path}: Is a directory"));
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    pub(super) fn set_mode(&mut self, path: &str, new: u32) -> bool {
        match self.nodes.get_mut(path) {
            Some(Node::File { mode, .. } | Node::Directory { mode }) => {
                *mode = new;
                true
            }
            _ => false,
        }
    }

    /// Creates a directory with all that is missing above it.
    pub(super) fn make_directories(&mut self, path: &str) -> Result<(), Error> {
        let mut here = String::new();
        for name in components(path) {
            here = format!("{here}/{name}");
            match self.nodes.get(&here) {
                None => {
                    self.nodes.insert(here.clone(), Node::directory());
                }
                Some(Node::Directory { .. }) => {}
                Some(_) => {
                    return Err(Error::InvalidInput {
                        what: path.to_owned(),
                        reason: format!("{here} is not a directory"),
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes a path with all below it. Tells whether there was anything.
    pub(super) fn remove(&mut self, path: &str) -> bool {
        let below = format!("{path}/");
        self.nodes.retain(|other, _| !other.starts_with(&below));
        self.nodes.remove(path).is_some()
    }

    pub(super) fn has_children(&self, path: &str) -> bool {
        !self.children(path).is_empty()
    }

    /// Names in a directory, in order.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let below = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        self.nodes
            .keys()
            .filter_map(|other| other.strip_prefix(&below))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// Moves a path with all below it.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        let below = format!("{from}/");
        let moved: Vec<String> = self
            .nodes
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in &moved {
            if let Some(node) = self.nodes.remove(path) {
                self.nodes
                    .insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        !moved.is_empty()
    }
}

/// The directory that contains an absolute path.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

pub(super) fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    }
}

fn components(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .map(str::to_owned)
        .collect()
}
