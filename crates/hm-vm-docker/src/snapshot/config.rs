//! What a snapshot's image says about containers of it.

use std::collections::HashMap;

use bollard::models::{ContainerConfig, ImageConfig};
use hm_vm_core::SnapshotLabel;

use crate::engine::EngineKind;
use crate::image::BaseImage;
use crate::inject::Injects;
use crate::objects::{self, Identity};

/// Bytes of a key that a label keeps.
const KEY_BYTES: usize = 1024;

/// What is to be said of a new image.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// What the first image of the lineage said.
    original: ImageConfig,
    labels: HashMap<String, String>,
    /// Stands in the image's own comment, which images made from it do not inherit, as they do labels.
    pub(super) comment: String,
}

/// The comment of an image of ours.
pub(super) fn comment(nonce: &str) -> String {
    format!("hm-vm {nonce}")
}

impl About {
    /// Of an image of `kind`, made from `base`.
    pub(super) fn new(identity: &Identity, kind: &str, base: &BaseImage) -> Self {
        let nonce = objects::nonce();
        let original = ImageConfig {
            // Volumes are in no snapshot, and so must none be in an image of ours.
            volumes: None,
            ..base.config.clone()
        };
        let mut labels = original.labels.clone().unwrap_or_default();
        labels.extend(identity.lasting_labels(kind));
        labels.insert(objects::PARENT.into(), base.id.clone());
        labels.insert(objects::NONCE.into(), nonce.clone());
        labels.remove(objects::CONFIG);
        // What is left out, the daemon takes from the container.
        labels.insert(objects::SESSION.into(), String::new());
        for other in [objects::KEY, objects::INJECTS] {
            labels.entry(other.into()).and_modify(String::clear);
        }
        Self {
            original,
            labels,
            comment: comment(&nonce),
        }
    }

    pub(super) fn with_key(mut self, label: &SnapshotLabel) -> Self {
        if let SnapshotLabel::Cached(key) = label {
            self.labels.insert(objects::KEY.into(), shortened(key));
        }
        self
    }

    pub(super) fn with_label(mut self, name: &str, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    pub(super) fn with_injects(self, injects: &Injects) -> Self {
        self.with_label(objects::INJECTS, injects.to_label())
    }

    /// What the new image is known to say.
    pub(super) fn config(&self) -> ImageConfig {
        ImageConfig {
            labels: Some(self.labels.clone()),
            ..self.original.clone()
        }
    }

    /// The body of a `commit`. What is left out there, Docker takes from the container: so nothing is.
    pub(super) fn body(&self, kind: EngineKind) -> ContainerConfig {
        if kind == EngineKind::Podman {
            // See `changes`.
            return ContainerConfig::default();
        }
        let original = self.original.clone();
        ContainerConfig {
            user: Some(original.user.unwrap_or_default()),
            exposed_ports: original.exposed_ports,
            env: Some(original.env.unwrap_or_default()),
            cmd: Some(original.cmd.unwrap_or_default()),
            healthcheck: original.healthcheck,
            args_escaped: original.args_escaped,
            working_dir: Some(original.working_dir.unwrap_or_default()),
            // Not absent: that would be the container's.
            entrypoint: Some(original.entrypoint.unwrap_or_default()),
            on_build: original.on_build,
            labels: Some(self.labels.clone()),
            stop_signal: original.stop_signal,
            ..ContainerConfig::default()
        }
    }

    /// Instructions for Podman, which reads no body. One each line, values as they are, up to its end. What cannot be said
    /// so (that there is no user, and that variables of the container are none of the image's) is in a label.
    pub(super) fn changes(&self, kind: EngineKind) -> Option<String> {
        if kind != EngineKind::Podman {
            return None;
        }
        let list = |list: &Option<Vec<String>>| {
            serde_json::to_string(list.as_deref().unwrap_or_default()).unwrap_or_default()
        };
        let mut lines = vec![
            format!("ENTRYPOINT {}", list(&self.original.entrypoint)),
            format!("CMD {}", list(&self.original.cmd)),
        ];
        let named = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        lines.extend(named(&self.original.user).map(|user| format!("USER {user}")));
        lines.extend(named(&self.original.working_dir).map(|dir| format!("WORKDIR {dir}")));
        let env = self.original.env.iter().flatten();
        lines.extend(env.map(|pair| format!("ENV {pair}")));
        let bare = ImageConfig {
            labels: None,
            ..self.original.clone()
        };
        let original = serde_json::to_string(&bare).unwrap_or_default();
        let own = (objects::CONFIG.to_owned(), original);
        let labels = self.labels.iter().chain([(&own.0, &own.1)]);
        // In quotation marks, which are taken off again: white space at the end stays.
        lines.extend(labels.map(|(name, value)| format!("LABEL {name}=\"{value}\"")));
        lines.retain(|line| !line.contains(['\n', '\r']));
        Some(lines.join("\n"))
    }
}

/// What the image said from which the first of this lineage was made, where `config` is a snapshot's that keeps that apart.
pub(crate) fn original(config: ImageConfig) -> ImageConfig {
    let labels = config.labels.as_ref();
    let kept = labels.and_then(|labels| labels.get(objects::CONFIG));
    let Some(kept) = kept.and_then(|kept| serde_json::from_str::<ImageConfig>(kept).ok()) else {
        return config;
    };
    ImageConfig {
        labels: config.labels,
        ..kept
    }
}

/// What a label keeps of a key: no control characters, and not too much.
fn shortened(key: &str) -> String {
    let mut short = String::new();
    for character in key.chars() {
        let shown = if character.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        };
        if short.len() + shown.len_utf8() > KEY_BYTES {
            break;
        }
        short.push(shown);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_the_beginning_of_a_key() {
        assert_eq!(shortened("Key \"x\" = 'y'"), "Key \"x\" = 'y'");
        assert_eq!(shortened("a\nb"), "a\u{fffd}b");
        let long = shortened(&"é".repeat(10_000));
        assert_eq!(long.len(), KEY_BYTES);
        assert_eq!(shortened(&format!("a{}", "é".repeat(600))).len(), 1023);
    }

    #[test]
    fn what_an_image_said_is_read_back_from_its_snapshot() {
        let said = ImageConfig {
            env: Some(vec!["A=line\nline \"x\"".into()]),
            working_dir: Some("/w".into()),
            ..ImageConfig::default()
        };
        let label = serde_json::to_string(&said).unwrap();
        let snapshot = ImageConfig {
            env: Some(vec!["A=b".into(), "TERM=xterm".into()]),
            labels: Some(HashMap::from([(objects::CONFIG.into(), label)])),
            ..ImageConfig::default()
        };
        let read = original(snapshot.clone());
        assert_eq!(read.env, said.env);
        assert_eq!(read.working_dir, said.working_dir);
        assert_eq!(read.labels, snapshot.labels);
        let plain = ImageConfig {
            labels: Some(HashMap::from([(objects::CONFIG.into(), "{".into())])),
            ..snapshot
        };
        assert_eq!(original(plain.clone()), plain);
    }
}
