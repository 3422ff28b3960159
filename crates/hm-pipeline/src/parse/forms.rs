//! Texts that mean more than their characters: paths, patterns, conditions, choices.

use std::path::{Component, Path};

use hm_vm_core::NetworkPolicy;
use serde_json::{Value as Json, json};

use super::reader::nearest;
use super::values::{Form, MATRIX, Wrong};
use crate::condition::Condition;
use crate::pipeline::CacheSharing;

/// An absolute guest path, without `.`, `..` and doubled slashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestPath;

impl Form for GuestPath {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        if !text.starts_with('/') {
            return Err(Wrong::new(
                format!("`{text}` is no absolute guest path"),
                format!("write \"/{}\"", text.trim_start_matches("./")),
            ));
        }
        if text.split('/').any(|part| part == "..") {
            return Err(Wrong::new(
                format!("`{text}` goes up"),
                "write the path without `..`",
            ));
        }
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        Ok(format!("/{}", parts.join("/")))
    }

    fn schema() -> Json {
        json!({ "examples": ["/src"] })
    }
}

/// A pattern of files, as in `.gitignore`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern;

impl Form for Pattern {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        if text.trim().is_empty() {
            return Err(Wrong::new(
                "the pattern is empty",
                "write \"*\" for everything",
            ));
        }
        if text.split('/').any(|part| part == "..") {
            return Err(Wrong::new(
                format!("`{text}` leaves the directory"),
                "write a pattern without `..`",
            ));
        }
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "minLength": 1, "examples": ["src/**", "*.rs"] })
    }
}

/// A host directory below that of the pipeline. An absolute one is checked when the directory is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostDirectory;

impl Form for HostDirectory {
    type Value = std::path::PathBuf;

    fn parse(text: &str) -> Result<std::path::PathBuf, Wrong> {
        let path = Path::new(text);
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Wrong::new(
                format!("`{text}` leaves the pipeline's directory"),
                "write a path below it, without `..`",
            ));
        }
        Ok(path
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect())
    }

    fn schema() -> Json {
        json!({ "examples": ["dist"] })
    }
}

/// Text with something in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled;

impl Form for Filled {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        if text.trim().is_empty() {
            return Err(Wrong::new(
                "must not be empty",
                "fill it in, or leave the key out",
            ));
        }
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "minLength": 1 })
    }
}

/// Text with something in it, in one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line;

impl Form for Line {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        let text = Filled::parse(text)?;
        if text.contains(char::is_control) {
            return Err(Wrong::new(
                "contains a control character",
                "write it in one line",
            ));
        }
        Ok(text)
    }

    fn schema() -> Json {
        json!({ "minLength": 1 })
    }
}

/// A git revision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revision;

impl Form for Revision {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        let text = Line::parse(text)?;
        if text.starts_with('-') {
            return Err(Wrong::new(
                format!("`{text}` is no revision"),
                "write a branch, a tag or a commit, as \"origin/main\"",
            ));
        }
        Ok(text)
    }

    fn schema() -> Json {
        json!({ "examples": ["origin/main"] })
    }
}

/// A condition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct If;

impl Form for If {
    type Value = Condition;

    fn parse(text: &str) -> Result<Condition, Wrong> {
        Condition::parse(text).map_err(|error| Wrong {
            at: Some(error.offset),
            message: error.message,
            suggestion: Some(
                "write for example: env.CI && env.BRANCH == \"main\", or changed(\"src/**\")"
                    .to_owned(),
            ),
        })
    }

    fn schema() -> Json {
        json!({ "examples": ["env.CI", "env.BRANCH == \"main\" && !changed(\"docs/**\")"] })
    }
}

/// Finds a word in a list of choices.
pub(crate) fn choose<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(value.clone());
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let hint = match nearest(text, names.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("write one of {}", names.join(", ")),
    };
    Err(Wrong::new(format!("unknown value `{text}`"), hint))
}

/// Schema of a choice.
pub(crate) fn choice_schema(names: &[&str]) -> Json {
    json!({ "anyOf": [{ "enum": names }, { "type": "string", "pattern": MATRIX }] })
}

/// What a VM may reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network;

impl Form for Network {
    type Value = NetworkPolicy;

    fn parse(text: &str) -> Result<NetworkPolicy, Wrong> {
        choose(
            text,
            &[
                ("none", NetworkPolicy::None),
                ("outbound", NetworkPolicy::Outbound),
                ("host", NetworkPolicy::Host),
            ],
        )
    }

    fn schema() -> Json {
        choice_schema(&["none", "outbound", "host"])
    }
}

/// Whether several steps may have a cache directory at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing;

impl Form for Sharing {
    type Value = CacheSharing;

    fn parse(text: &str) -> Result<CacheSharing, Wrong> {
        choose(
            text,
            &[
                ("locked", CacheSharing::Locked),
                ("shared", CacheSharing::Shared),
            ],
        )
    }

    fn schema() -> Json {
        choice_schema(&["locked", "shared"])
    }
}
