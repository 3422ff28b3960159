//! Names of chains.

use hm_vm_oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

/// One layer of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLayer {
    /// Digest of its archive, without compression.
    pub diff_id: Digest,
    /// The archive as it travels.
    pub blob: Descriptor,
}

/// What was injected last at a place: a later inject there removes what it does not bring any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainInject {
    /// The guest directory, absolute.
    pub place: String,
    /// The list of what was injected.
    pub manifest: Descriptor,
}

/// The chains of an image with 0, 1, 2, … of these layers.
pub(super) fn chains<'a>(
    base_digest: &str,
    diff_ids: impl IntoIterator<Item = &'a Digest>,
) -> Vec<String> {
    let mut chain = blake3::hash(format!("hm-vm chain 1\n{base_digest}").as_bytes());
    let mut chains = vec![chain.to_hex().to_string()];
    for diff_id in diff_ids {
        chain = blake3::hash(format!("{}\n{diff_id}", chain.to_hex()).as_bytes());
        chains.push(chain.to_hex().to_string());
    }
    chains
}

/// The chain of an image with all of these layers.
pub(super) fn chain<'a>(
    base_digest: &str,
    diff_ids: impl IntoIterator<Item = &'a Digest>,
) -> String {
    chains(base_digest, diff_ids).pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_pinned() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        // Changing these means that stores of different versions share nothing.
        assert_eq!(
            chains("digest", [&a, &b]),
            [
                chain("digest", []),
                chain("digest", [&a]),
                "9d6c1ffcde592517890aebff97bc5750b8d5aff98128b3578afd493cc2126400".to_owned(),
            ]
        );
    }

    #[test]
    fn order_base_and_number_of_layers_count() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut all = vec![
            chain("x", [&a, &b]),
            chain("x", [&b, &a]),
            chain("y", [&a, &b]),
            chain("x", [&a]),
            chain("x", [&a, &a]),
            chain("x", []),
        ];
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
