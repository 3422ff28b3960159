//! Which part of a directory an inject brings.
//!
//! The `ignore` crate matches the patterns, as it does those of ignore files. What is ours: a
//! directory in which nothing can match is not walked, and directories that only lead to
//! something are told apart.

use std::collections::HashSet;

use hm_vm_core::InjectSource;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::InjectError;
use super::walk::{FoundKind, Walk};
use crate::beneath::as_path;

/// What of a directory is brought.
#[derive(Debug)]
pub(super) struct Filter {
    /// Whether ignore files count.
    pub(super) ignore_files: bool,
    include: Option<Include>,
    exclude: Gitignore,
    /// Stands for the patterns; `None` for a plain source.
    key: Option<String>,
}

#[derive(Debug)]
struct Include {
    patterns: Gitignore,
    leads: Vec<Lead>,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Taken,
    /// A directory that is brought only if something in it is.
    Leading,
    Left,
}

impl Filter {
    /// # Errors
    ///
    /// [`InjectError::BadPattern`] for the first pattern that makes no sense.
    pub(super) fn new(source: &InjectSource) -> Result<Self, InjectError> {
        let include = if source.include.is_empty() {
            None
        } else {
            Some(Include {
                patterns: compile(&source.include)?,
                leads: source
                    .include
                    .iter()
                    .filter_map(|pattern| Lead::of(pattern))
                    .collect(),
            })
        };
        Ok(Self {
            ignore_files: source.ignore_files,
            include,
            exclude: compile(&source.exclude)?,
            key: (!source.is_plain()).then(|| key_of(source)),
        })
    }

    /// A text that is the same for the same patterns; `None` for a plain source.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What becomes of everything at the top that no pattern names.
    pub(super) fn at_top(&self) -> Choice {
        if self.include.is_some() {
            Choice::Leading
        } else {
            Choice::Taken
        }
    }

    /// What becomes of the entry at `path`, whose directory became `parent`.
    pub(super) fn choose(&self, path: &[u8], is_directory: bool, parent: Choice) -> Choice {
        if self.key.is_none() {
            return Choice::Taken;
        }
        let name = as_path(path);
        if self.exclude.matched(name, is_directory).is_ignore() {
            return Choice::Left;
        }
        let Some(include) = &self.include else {
            return Choice::Taken;
        };
        let taken = match include.patterns.matched(name, is_directory) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => parent == Choice::Taken,
        };
        if taken {
            Choice::Taken
        } else if is_directory && include.leads.iter().any(|lead| lead.goes_through(path)) {
            Choice::Leading
        } else {
            Choice::Left
        }
    }

    /// Whether a pattern names this entry, which is called `.git`, or something in it.
    pub(super) fn names_git(&self, path: &[u8], is_directory: bool) -> bool {
        let Some(include) = &self.include else {
            return false;
        };
        let matched = include.patterns.matched(as_path(path), is_directory);
        let by_name = matched
            .inner()
            .is_some_and(|glob| matched.is_ignore() && names_git(glob.original()));
        by_name
            || is_directory
                && include
                    .leads
                    .iter()
                    .any(|lead| lead.names_git && lead.goes_through(path))
    }
}

/// Drops the directories that lead to nothing from `order`.
pub(super) fn drop_useless_leads(walk: &Walk, order: &mut Vec<usize>) {
    let leads = |index: usize| {
        matches!(
            walk.found[index].kind,
            FoundKind::Directory { leading: true }
        )
    };
    if !order.iter().any(|&index| leads(index)) {
        return;
    }
    let mut needed: HashSet<&[u8]> = HashSet::new();
    for &index in order.iter().filter(|&&index| !leads(index)) {
        let mut path = walk.path(&walk.found[index]);
        while let Some(slash) = path.iter().rposition(|&byte| byte == b'/') {
            path = &path[..slash];
            if !needed.insert(path) {
                break;
            }
        }
    }
    order.retain(|&index| !leads(index) || needed.contains(walk.path(&walk.found[index])));
}

fn compile(patterns: &[String]) -> Result<Gitignore, InjectError> {
    let bad = |pattern: &str, reason: String| InjectError::BadPattern {
        pattern: pattern.to_owned(),
        reason,
    };
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        if pattern.trim().is_empty() {
            return Err(bad(pattern, "it is empty".into()));
        }
        if pattern.starts_with('#') {
            let reason = "it is a comment; write \\# for a name that begins so";
            return Err(bad(pattern, reason.into()));
        }
        builder
            .add_line(None, pattern)
            .map_err(|error| bad(pattern, error.to_string()))?;
    }
    builder.build().map_err(|error| {
        let all = patterns.join(" ");
        bad(&all, error.to_string())
    })
}

fn key_of(source: &InjectSource) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(source.ignore_files)]);
    for patterns in [&source.include, &source.exclude] {
        hasher.update(&(patterns.len() as u64).to_le_bytes());
        for pattern in patterns {
            hasher.update(&(pattern.len() as u64).to_le_bytes());
            hasher.update(pattern.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn names_git(pattern: &str) -> bool {
    pattern
        .trim_end()
        .split('/')
        .any(|component| component == ".git")
}

/// Through which directories a pattern can be reached.
#[derive(Debug, PartialEq, Eq)]
struct Lead {
    /// The components that the path begins with.
    literal: Vec<Vec<u8>>,
    /// How many components it has at most. `None` when there is no telling.
    depth: Option<usize>,
    names_git: bool,
}

impl Lead {
    /// `None` for a pattern that brings nothing: one with `!`.
    fn of(pattern: &str) -> Option<Self> {
        if pattern.starts_with('!') {
            return None;
        }
        let names_git = names_git(pattern);
        let trimmed = pattern.trim_end();
        let path = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if !path.contains('/') {
            return Some(Self {
                literal: Vec::new(),
                depth: None,
                names_git,
            });
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let is_glob = |part: &str| part.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let literal: Vec<Vec<u8>> = path
            .split('/')
            .take_while(|part| !is_glob(part))
            .map(|part| part.as_bytes().to_vec())
            .collect();
        let unbounded = path.contains("**") || path.contains(['[', '{', '\\']);
        Some(Self {
            literal,
            depth: (!unbounded).then(|| path.split('/').count()),
            names_git,
        })
    }

    /// Whether something in the directory `path` can match.
    fn goes_through(&self, path: &[u8]) -> bool {
        let components = path.split(|&byte| byte == b'/');
        let deeper = self
            .depth
            .is_none_or(|depth| components.clone().count() < depth);
        deeper && components.zip(&self.literal).all(|(a, b)| a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(pattern: &str, path: &str) -> bool {
        Lead::of(pattern).is_some_and(|lead| lead.goes_through(path.as_bytes()))
    }

    #[test]
    fn only_directories_that_can_contain_a_match_are_walked() {
        for (pattern, path, expected) in [
            ("*.rs", "a/b/c", true),
            ("src/", "a/b", true),
            ("/src/main.rs", "src", true),
            ("/src/main.rs", "src/main.rs", false),
            ("/src/main.rs", "lib", false),
            ("src/main.rs", "lib/src", false),
            ("/src/*.rs", "src", true),
            ("/src/*.rs", "src/deep", false),
            ("/src/*/x", "src/deep", true),
            ("/src/*/x", "src/deep/er", false),
            ("/src/**/x", "src/deep/er", true),
            ("/src/**/x", "lib", false),
            ("**/x", "any/where", true),
            ("/a[/]b/c", "q", true),
            ("/s/{a,b/c}/d", "s/b/c", true),
            ("/s/{a,b/c}/d", "t", false),
            ("!/src", "src", false),
            ("/src", "src", false),
        ] {
            assert_eq!(goes_through(pattern, path), expected, "{pattern} {path}");
        }
    }
}
