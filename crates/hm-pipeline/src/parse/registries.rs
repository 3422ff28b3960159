//! What the pipeline file and the configuration say of registries.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::diagnostics::Diagnostic;
use super::forms::{choice_schema, choose};
use super::model::RemoteCacheTable;
use super::names::Name;
use super::unions::TextOr;
use super::values::{As, Form, Wrong};
use crate::configuration::{RemoteCacheMode, RemoteCacheRule};

/// A repository of a registry, without a tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repository;

impl Form for Repository {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        const HINT: &str =
            "write the host of a registry and a path there, as \"registry.example/team/cache\"";
        if let Some((_, rest)) = text.split_once("://") {
            return Err(Wrong::new(
                format!("`{text}` is no repository"),
                format!("write it without the scheme: \"{rest}\""),
            ));
        }
        let wrong = || Err(Wrong::new(format!("`{text}` is no repository"), HINT));
        let Some((host, path)) = text.split_once('/') else {
            return wrong();
        };
        if let Some(at) = path.find([':', '@']) {
            return Err(Wrong::new(
                format!("`{text}` has a tag or a digest"),
                format!(
                    "the tags are the cache's own: write \"{host}/{}\"",
                    &path[..at]
                ),
            ));
        }
        let letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let part = |part: &str| !part.is_empty() && part.bytes().all(letter);
        if RegistryHost::parse(host).is_err() || !path.split('/').all(part) {
            return wrong();
        }
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "examples": ["registry.example/team/cache"] })
    }
}

/// Whether results are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteMode;

impl Form for RemoteMode {
    type Value = RemoteCacheMode;

    fn parse(text: &str) -> Result<RemoteCacheMode, Wrong> {
        choose(text, &RemoteCacheMode::ALL.map(|mode| (mode.name(), mode)))
    }

    fn schema() -> Json {
        choice_schema(&RemoteCacheMode::ALL.map(RemoteCacheMode::name))
    }
}

/// The host of a registry, with its port if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegistryHost;

impl Form for RegistryHost {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        if let Some((_, rest)) = text.split_once("://") {
            return Err(Wrong::new(
                format!("`{text}` is no host"),
                format!(
                    "write it without the scheme: \"{}\"; plain_http is a key of [registries.HOST]",
                    rest.trim_end_matches('/')
                ),
            ));
        }
        let letter = |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
        if text.is_empty() || !text.chars().all(letter) {
            return Err(Wrong::new(
                format!("`{text}` is no host"),
                "write a host, and its port if it has one: \"mirror.example:5000\"",
            ));
        }
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "examples": ["mirror.example:5000"] })
    }
}

/// What is asked in place of a registry: a host, and where there its repositories begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mirror;

impl Form for Mirror {
    type Value = String;

    fn parse(text: &str) -> Result<String, Wrong> {
        let host = match text.split_once('/') {
            Some((host, path)) if !text.contains("://") && path.bytes().all(is_path) => host,
            _ => text,
        };
        RegistryHost::parse(host)?;
        Ok(text.to_owned())
    }

    fn schema() -> Json {
        json!({ "examples": ["mirror.example:5000", "mirror.example/hub"] })
    }
}

fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)
}

/// Of a registry: its host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegistryName;

impl Name for RegistryName {
    const WHAT: &'static str = "registry";
    const PATTERN: &'static str = "^[A-Za-z0-9._:\\[\\]-]+$";

    fn check(name: &str) -> Result<(), Wrong> {
        RegistryHost::parse(name).map(|_| ())
    }
}

/// A file of the host, from its root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostFile;

impl Form for HostFile {
    type Value = PathBuf;

    fn parse(text: &str) -> Result<PathBuf, Wrong> {
        let path = Path::new(text);
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        Err(Wrong::new(
            format!("`{text}` is no absolute path"),
            "write the path from the root",
        ))
    }

    fn schema() -> Json {
        json!({ "examples": ["/etc/ssl/registry.pem"] })
    }
}

/// Reads `REPOSITORY[,mode=MODE]`, as options and variables have it.
///
/// # Errors
///
/// What is wrong with it, and what to write instead.
pub fn read_remote_cache(text: &str) -> Result<RemoteCacheRule, Diagnostic> {
    let wrong = |wrong: Wrong| Diagnostic {
        line: 1,
        column: 1,
        text: text.to_owned(),
        message: wrong.message,
        suggestion: wrong.suggestion,
    };
    let mut parts = text.split(',');
    let repository = Repository::parse(parts.next().unwrap_or_default()).map_err(wrong)?;
    let mut mode = None;
    for part in parts {
        let Some(value) = part.strip_prefix("mode=") else {
            return Err(wrong(Wrong::new(
                format!("unknown addition `{part}`"),
                format!("write {repository},mode=read-only"),
            )));
        };
        mode = Some(RemoteMode::parse(value).map_err(wrong)?);
    }
    Ok(RemoteCacheRule { repository, mode })
}

/// The short form and the long one are the same.
pub(crate) fn remote_cache(written: &TextOr<As<Repository>, RemoteCacheTable>) -> RemoteCacheRule {
    match written {
        TextOr::Short(repository) => RemoteCacheRule {
            repository: repository.value.clone(),
            mode: None,
        },
        TextOr::Long(table) => RemoteCacheRule {
            repository: table.repository.value.clone(),
            mode: table.mode.as_ref().map(|mode| mode.value),
        },
    }
}
