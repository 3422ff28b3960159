//! Paths in a merged tree.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::tree::directory::{file_type, join};
use crate::view::merged::{Directory, Merged, Node};

/// As many symbolic links as the kernel follows in one path.
const LINKS: u32 = 40;
/// Longest path that symbolic links may grow to.
const COMPONENTS: usize = 4096;

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The path without symbolic links, relative to the root.
    pub(crate) path: Vec<u8>,
    /// What is there; `None` when something on the way is missing.
    pub(crate) node: Option<Node>,
}

/// Resolves a path inside the tree: absolute links and `..` never lead out of it. The last
/// component is followed when `follow` is set. Where something is missing, the rest of the path
/// is taken as it is.
pub(crate) fn resolve(tree: &Merged, path: &[u8], follow: bool) -> io::Result<Resolved> {
    let mut chain: Vec<Directory> = vec![tree.root()];
    let mut rest: VecDeque<Vec<u8>> = components(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            if chain.len() > 1 {
                chain.pop();
            }
            continue;
        }
        let here = match chain.last() {
            Some(directory) => directory,
            None => return Err(Errno::NOENT.into()),
        };
        let c_name = CString::new(name.as_slice())?;
        match tree.open_directory(here)?.child(&c_name)? {
            None => {
                rest.push_front(name);
                return Ok(missing(&here.path, rest));
            }
            Some(Node::Directory(directory)) => chain.push(directory),
            Some(Node::Leaf(leaf)) => {
                let kind = file_type(&tree.stat(&Node::Leaf(leaf.clone()))?);
                if kind == FileType::Symlink && (follow || !rest.is_empty()) {
                    links += 1;
                    if links > LINKS || rest.len() > COMPONENTS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = tree.read_link(&leaf)?;
                    if target.first() == Some(&b'/') {
                        chain.truncate(1);
                    }
                    for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        rest.push_front(component);
                    }
                } else if rest.is_empty() {
                    return Ok(Resolved {
                        path: join(&leaf.directory, leaf.name.to_bytes()),
                        node: Some(Node::Leaf(leaf)),
                    });
                } else {
                    return Err(Errno::NOTDIR.into());
                }
            }
        }
    }
    let directory = chain.pop().ok_or(Errno::NOENT)?;
    Ok(Resolved {
        path: directory.path.clone(),
        node: Some(Node::Directory(directory)),
    })
}

/// Looks a path up without following any symbolic link.
pub(crate) fn look_up(tree: &Merged, path: &[u8]) -> io::Result<Option<Node>> {
    let mut directory = tree.root();
    let mut rest = components(path).peekable();
    while let Some(name) = rest.next() {
        let found = tree
            .open_directory(&directory)?
            .child(&CString::new(name)?)?;
        match found {
            Some(Node::Directory(next)) => directory = next,
            Some(leaf) if rest.peek().is_none() => return Ok(Some(leaf)),
            _ => return Ok(None),
        }
    }
    Ok(Some(Node::Directory(directory)))
}

fn missing(here: &[u8], rest: VecDeque<Vec<u8>>) -> Resolved {
    let mut path: Vec<Vec<u8>> = components(here).collect();
    for name in rest {
        if name == b".." {
            path.pop();
        } else {
            path.push(name);
        }
    }
    Resolved {
        path: path.join(&b'/'),
        node: None,
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
}
