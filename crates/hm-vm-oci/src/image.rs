//! An image's configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::json;
use crate::{Digest, MAX_CONFIG_BYTES, OciError, Platform, bounded};

/// An image's configuration. Unknown fields are left out; the digest is that of the bytes that it was read
/// from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Document")]
pub struct ImageConfig {
    /// When it was made, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How containers of it are started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Execution>,
    /// Its layers.
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// Reads one that a stranger wrote.
    ///
    /// # Errors
    ///
    /// [`OciError::Invalid`] when it is larger than [`MAX_CONFIG_BYTES`] or is none, or has more layers, variables or
    /// anything else than is sensible.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let bad = |reason: String| OciError::invalid("the configuration of the image", reason);
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(bad(format!("it has more than {MAX_CONFIG_BYTES} bytes")));
        }
        serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))
    }

    /// As it is written: the same configuration has always the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        json(self)
    }
}

/// A configuration as it is read. Flattening, which serde does by keeping every unknown field in memory, is for
/// writing only.
#[derive(Deserialize)]
struct Document {
    created: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<Execution>,
    rootfs: RootFs,
    #[serde(default, deserialize_with = "bounded::entries")]
    history: Vec<History>,
}

impl From<Document> for ImageConfig {
    fn from(document: Document) -> Self {
        Self {
            created: document.created,
            platform: Platform {
                os: document.os.unwrap_or_default(),
                architecture: document.architecture.unwrap_or_default(),
                variant: document.variant.filter(|variant| !variant.is_empty()),
            },
            config: document.config,
            rootfs: document.rootfs,
            history: document.history,
        }
    }
}

/// The layers of an image, bottom first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digest of each layer's archive, without compression.
    #[serde(default, deserialize_with = "bounded::parts")]
    pub diff_ids: Vec<Digest>,
}

/// How containers of an image are started. Docker writes `null` for what is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `NAME`, `UID`, or either with `:GROUP`; empty for root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `NAME=VALUE`.
    #[serde(
        default,
        deserialize_with = "bounded::words",
        skip_serializing_if = "Option::is_none"
    )]
    pub env: Option<Vec<String>>,
    /// What runs. Kept, not used: commands are the user's.
    #[serde(
        default,
        deserialize_with = "bounded::words",
        skip_serializing_if = "Option::is_none"
    )]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    #[serde(
        default,
        deserialize_with = "bounded::words",
        skip_serializing_if = "Option::is_none"
    )]
    pub cmd: Option<Vec<String>>,
    /// Where it runs; empty for `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What is said of the image.
    #[serde(
        default,
        deserialize_with = "bounded::optional_table",
        skip_serializing_if = "Option::is_none"
    )]
    pub labels: Option<BTreeMap<String, String>>,
}

/// One step of the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &str = r#"{"architecture":"amd64","config":{"Hostname":"","User":"","AttachStdin":false,
        "Env":["PATH=/usr/bin:/bin","A=b c"],"Cmd":["sh"],"Image":"sha256:x","Volumes":null,"WorkingDir":"/w",
        "Entrypoint":null,"OnBuild":null,"Labels":null},"container":"0","container_config":{"Env":[{}]},
        "created":"2024-01-01T00:00:00Z","docker_version":"20.10","history":[{"created":"2024-01-01T00:00:00Z",
        "created_by":"/bin/sh","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#;

    #[test]
    fn what_docker_writes_is_read() {
        let config = ImageConfig::parse(DOCKERS.as_bytes()).unwrap();
        let execution = config.config.clone().unwrap();
        assert_eq!(execution.env.unwrap(), ["PATH=/usr/bin:/bin", "A=b c"]);
        assert_eq!(execution.working_dir.as_deref(), Some("/w"));
        assert_eq!((execution.entrypoint, execution.labels), (None, None));
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert!(config.rootfs.diff_ids.is_empty());
        assert_eq!(config.history[0].empty_layer, Some(true));
        let bytes = config.to_bytes();
        assert_eq!(ImageConfig::parse(&bytes).unwrap(), config);
        assert_eq!(bytes, config.to_bytes());
    }

    #[test]
    fn a_single_word_is_a_list_of_one() {
        let config = r#"{"rootfs":{},"config":{"Entrypoint":"/bin/x","Cmd":[]}}"#;
        let execution = ImageConfig::parse(config.as_bytes())
            .unwrap()
            .config
            .unwrap();
        assert_eq!(execution.entrypoint.unwrap(), ["/bin/x"]);
    }

    #[test]
    fn lists_without_end_are_refused_early() {
        let many = |item: &str, count: usize| vec![item; count].join(",");
        for hostile in [
            format!(r#"{{"rootfs":{{}},"history":[{}]}}"#, many("{}", 1 << 17)),
            format!(
                r#"{{"rootfs":{{}},"config":{{"Env":[{}]}}}}"#,
                many(r#""""#, 1 << 17)
            ),
            format!(
                r#"{{"rootfs":{{"diff_ids":[{}]}}}}"#,
                many(&format!(r#""{}""#, Digest::of(b"")), 5000)
            ),
            "[".repeat(100_000),
        ] {
            assert!(ImageConfig::parse(hostile.as_bytes()).is_err());
        }
    }
}
