//! Cache keys derived from content.
//!
//! | enters the key | does not, and why |
//! |---|---|
//! | image *digest*, or the parent's key | image name: a tag moves |
//! | command, working directory | limits: they decide whether a command succeeds, not what it makes |
//! | declared environment, in order of name | the host's environment: it never reaches the command |
//! | digest of the injected tree | times, owners, inodes and place of the injected files |
//! | user, network policy, platform, backend family | host name, date |
//! | format version of this derivation | secret values |
//! | extra inputs that the caller names | |
//!
//! Every component is kept beside its key ([`KeyComponents`] is serialisable), so that two keys
//! can be compared: see [`KeyComponents::diff`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::NetworkPolicy;

/// Version of the derivation. Changes whenever the same components would hash differently.
pub const KEY_FORMAT: u32 = 1;

/// What the VM of a key starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyBase {
    /// Digest of an image's content.
    ImageDigest(String),
    /// Key of the action that made the snapshot. It stands for the content, as a key derives from
    /// all that the content derives from.
    ParentKey(String),
    /// A snapshot that has no key. Its id is unique, so such a key is never shared.
    Snapshot(String),
}

/// Everything that a key is derived from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyComponents {
    /// What the VM starts from.
    pub base: KeyBase,
    /// The command.
    pub cmd: String,
    /// The declared environment. Sorted; of two with one name the later one counts.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub working_dir: String,
    /// Digest of the injected tree, if any.
    pub inject: Option<String>,
    /// User inside the VM, if not the default.
    pub user: Option<String>,
    /// What the VM may reach.
    pub network: NetworkPolicy,
    /// Operating system and processor, as `linux/x86_64`.
    pub platform: String,
    /// Further inputs, by name.
    pub extra: BTreeMap<String, String>,
}

/// A derived key: `hm1-` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(String);

impl CacheKey {
    /// The key as text, as used in [`CachingPolicy::Cache`](crate::CachingPolicy::Cache).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CacheKey> for String {
    fn from(key: CacheKey) -> Self {
        key.0
    }
}

/// A component in which two keys differ. `None` stands for absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentChange {
    /// Name of the component, such as `cmd` or `env.PATH`.
    pub component: String,
    /// Its value in the first key.
    pub old: Option<String>,
    /// Its value in the second key.
    pub new: Option<String>,
}

impl KeyComponents {
    /// Derives the key: BLAKE3 over all components, each with its name and the lengths of both.
    pub fn key(&self) -> CacheKey {
        let mut hasher = blake3::Hasher::new();
        let mut field = |name: &str, value: &str| {
            for part in [name, value] {
                // Lossless: no address space holds a string longer than u64::MAX.
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        };
        field("format", &KEY_FORMAT.to_string());
        for (name, value) in self.fields() {
            field(&name, &value);
        }
        CacheKey(format!("hm{KEY_FORMAT}-{}", hasher.finalize().to_hex()))
    }

    /// The components in which `self` and `newer` differ, by name. Empty when the keys are equal.
    pub fn diff(&self, newer: &Self) -> Vec<ComponentChange> {
        let old: BTreeMap<String, String> = self.fields().into_iter().collect();
        let mut new: BTreeMap<String, String> = newer.fields().into_iter().collect();
        let mut changes = Vec::new();
        for (component, value) in old {
            let other = new.remove(&component);
            if other.as_ref() != Some(&value) {
                changes.push(ComponentChange {
                    component,
                    old: Some(value),
                    new: other,
                });
            }
        }
        changes.extend(new.into_iter().map(|(component, value)| ComponentChange {
            component,
            old: None,
            new: Some(value),
        }));
        changes.sort_by(|a, b| a.component.cmp(&b.component));
        changes
    }

    /// Every component as a name and a text. Absent ones are left out; names are unique.
    fn fields(&self) -> Vec<(String, String)> {
        let (kind, base) = match &self.base {
            KeyBase::ImageDigest(digest) => ("image", digest),
            KeyBase::ParentKey(key) => ("parent", key),
            KeyBase::Snapshot(id) => ("snapshot", id),
        };
        let mut fields = vec![
            (format!("base.{kind}"), base.clone()),
            ("cmd".into(), self.cmd.clone()),
            ("working_dir".into(), self.working_dir.clone()),
            ("network".into(), self.network.name().into()),
            ("platform".into(), self.platform.clone()),
        ];
        let optional = [("inject", &self.inject), ("user", &self.user)];
        for (name, value) in optional {
            fields.extend(value.iter().map(|value| (name.into(), value.clone())));
        }
        for (prefix, map) in [("env", &self.env), ("extra", &self.extra)] {
            fields.extend(
                map.iter()
                    .map(|(name, value)| (format!("{prefix}.{name}"), value.clone())),
            );
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components() -> KeyComponents {
        KeyComponents {
            base: KeyBase::ImageDigest("d".into()),
            cmd: "make".into(),
            env: BTreeMap::from([("A".into(), "1".into())]),
            working_dir: "/src".into(),
            inject: None,
            user: None,
            network: NetworkPolicy::None,
            platform: "linux/x86_64".into(),
            extra: BTreeMap::new(),
        }
    }

    #[test]
    fn the_derivation_is_pinned() {
        // Changing this value means changing KEY_FORMAT: every user's cache is lost.
        assert_eq!(
            components().key().as_str(),
            "hm1-a77bc91ee98ed6fc6bfde7536563e915257a08c54ab115150586936101e19775"
        );
    }

    #[test]
    fn every_component_changes_the_key() {
        let base = components();
        let mut variants = vec![base.clone(); 10];
        variants[1].base = KeyBase::ParentKey("d".into());
        variants[2].cmd = "make ".into();
        variants[3].env.insert("A".into(), "2".into());
        variants[4].env.insert("B".into(), String::new());
        variants[5].working_dir = "/".into();
        variants[6].inject = Some(String::new());
        variants[7].user = Some(String::new());
        variants[8].network = NetworkPolicy::Host;
        variants[9].extra.insert("A".into(), "1".into());
        let keys: std::collections::BTreeSet<_> = variants.iter().map(KeyComponents::key).collect();
        assert_eq!(keys.len(), variants.len());
    }

    #[test]
    fn diff_names_what_changed() {
        let old = components();
        let mut new = old.clone();
        new.cmd = "make test".into();
        new.env.clear();
        let changes = old.diff(&new);
        assert_eq!(
            changes
                .iter()
                .map(|change| change.component.as_str())
                .collect::<Vec<_>>(),
            ["cmd", "env.A"]
        );
        assert_eq!(changes[1].new, None);
        assert!(old.diff(&old).is_empty());
    }
}
