//! What was brought to a VM, and where.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::objects::INJECTS;

/// The form of the label that is written. Another one is not read.
const VERSION: u32 = 1;

/// As many trees are remembered of one place: each inject that was broken off leaves one.
const MOST_TREES: usize = 16;

/// What injects brought to one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Injects {
    places: BTreeMap<String, Brought>,
}

/// What was brought to one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Brought {
    /// Digests of the trees of which files may be there: one, and more where injects were broken off.
    pub(super) trees: Vec<String>,
    /// Whether exactly that one tree is there, as it was brought.
    #[serde(default)]
    pub(super) clean: bool,
}

#[derive(Serialize, Deserialize)]
struct Label {
    version: u32,
    places: BTreeMap<String, Brought>,
}

impl Injects {
    /// As the labels of an image say. They are anybody's words: what cannot be read is as if nothing had been brought.
    pub(crate) fn from_labels(labels: &HashMap<String, String>) -> Self {
        let Some(text) = labels.get(INJECTS) else {
            return Self::default();
        };
        let places = match serde_json::from_str::<Label>(text) {
            Ok(label) if label.version == VERSION => label.places,
            Ok(label) => {
                let version = label.version;
                tracing::warn!(
                    version,
                    "a snapshot's record of injects is of another version"
                );
                return Self::default();
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot's record of injects cannot be read");
                return Self::default();
            }
        };
        let is_good = |(place, brought): &(String, Brought)| {
            place.starts_with('/') && brought.trees.iter().all(|tree| is_digest(tree))
        };
        Self {
            places: places.into_iter().filter(is_good).collect(),
        }
    }

    /// For the label [`INJECTS`] of a snapshot.
    pub(crate) fn to_label(&self) -> String {
        let label = Label {
            version: VERSION,
            places: self.places.clone(),
        };
        serde_json::to_string(&label).unwrap_or_default()
    }

    /// A command runs, or is going to: it may change every file.
    pub(crate) fn command_runs(&mut self) {
        for brought in self.places.values_mut() {
            brought.clean = false;
        }
    }

    /// All trees that are named.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &str> {
        self.places
            .values()
            .flat_map(|brought| brought.trees.iter().map(String::as_str))
    }

    /// Whether exactly this tree is at that place, as it was brought.
    pub(super) fn is_there(&self, place: &str, tree: &str) -> bool {
        self.places
            .get(place)
            .is_some_and(|brought| brought.clean && brought.trees == [tree])
    }

    /// Trees of which files may be at that place.
    pub(super) fn at(&self, place: &str) -> &[String] {
        self.places
            .get(place)
            .map_or(&[], |brought| brought.trees.as_slice())
    }

    /// A tree is going to be brought: until that is done, the place has something of each.
    pub(super) fn begins(&mut self, place: &str, tree: &str) {
        // Places may lie in each other, also by links.
        self.command_runs();
        let brought = self.places.entry(place.to_owned()).or_default();
        brought.trees.retain(|other| other != tree);
        brought.trees.push(tree.to_owned());
        let too_many = brought.trees.len().saturating_sub(MOST_TREES);
        brought.trees.drain(..too_many);
    }

    /// The tree was brought.
    pub(super) fn is_done(&mut self, place: &str, tree: &str) {
        let brought = Brought {
            trees: vec![tree.to_owned()],
            clean: true,
        };
        self.places.insert(place.to_owned(), brought);
    }
}

/// Whether this is the digest of a tree, which names a file.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(label: &str) -> Injects {
        Injects::from_labels(&HashMap::from([(INJECTS.into(), label.into())]))
    }

    #[test]
    fn a_record_survives_its_label() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let mut injects = Injects::default();
        assert_eq!(read(&injects.to_label()), injects);
        injects.begins("/work", &one);
        injects.is_done("/work", &one);
        assert!(injects.is_there("/work", &one));
        let again = read(&injects.to_label());
        assert_eq!(again, injects);
        injects.begins("/work", &two);
        assert_eq!(injects.at("/work"), [one.clone(), two.clone()]);
        assert!(!injects.is_there("/work", &two));
        injects.is_done("/work", &two);
        injects.command_runs();
        assert!(!injects.is_there("/work", &two));
        assert_eq!(injects.at("/work"), [two]);
    }

    #[test]
    fn foreign_labels_are_nothing() {
        let digest = "a".repeat(64);
        let of = |place: &str, tree: &str| {
            format!(r#"{{"version":1,"places":{{"{place}":{{"trees":["{tree}"]}}}}}}"#)
        };
        assert_eq!(
            read(&of("/work", &digest)).at("/work"),
            std::slice::from_ref(&digest)
        );
        for bad in [
            "",
            "[]",
            "{\"version\":1}",
            "{\"version\":2,\"places\":{}}",
            &of("work", &digest),
            &of("/work", "../../etc/passwd"),
            &of("/work", &digest.to_uppercase()),
        ] {
            assert_eq!(read(bad), Injects::default(), "{bad}");
        }
    }

    #[test]
    fn broken_off_injects_are_bounded() {
        let mut injects = Injects::default();
        for number in 0..100u32 {
            injects.begins("/work", &format!("{number:064x}"));
        }
        assert_eq!(injects.at("/work").len(), MOST_TREES);
        assert_eq!(injects.at("/work").last(), Some(&format!("{:064x}", 99)));
    }
}
