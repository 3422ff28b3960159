//! The arrows between the crates: who may depend on whom.

use crate::finding::Finding;
use crate::workspace::{Edge, Package};

/// Every crate of the project with the crates that it may depend on. Nothing else is allowed, but for
/// the testkit, which the tests of any crate may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("hm-vm-core", &[]),
    ("hm-vm-sys", &[]),
    // The store's errors name the contract's error where one fits.
    ("hm-vm-store", &["hm-vm-core", "hm-vm-oci", "hm-vm-sys"]),
    // Images as others see them; no store.
    ("hm-vm-oci", &["hm-vm-core"]),
    (
        "hm-vm-sandbox",
        &["hm-vm-core", "hm-vm-oci", "hm-vm-store", "hm-vm-sys"],
    ),
    // Of the store: what an inject brings and how outputs are written, not where snapshots are. Of sys: the helper.
    (
        "hm-vm-docker",
        &["hm-vm-core", "hm-vm-oci", "hm-vm-store", "hm-vm-sys"],
    ),
    ("hm-vm-agent-proto", &[]),
    ("hm-vm-agent", &["hm-vm-agent-proto", "hm-vm-sys"]),
    (
        "hm-vm-qemu",
        &["hm-vm-agent-proto", "hm-vm-core", "hm-vm-store"],
    ),
    // The engine names every backend, and re-exports the store to whoever opens one.
    (
        "hm-vm",
        &[
            "hm-vm-core",
            "hm-vm-docker",
            "hm-vm-oci",
            "hm-vm-qemu",
            "hm-vm-sandbox",
            "hm-vm-store",
        ],
    ),
    ("hm-pipeline", &["hm-vm-core"]),
    ("hmvm", &["hm-pipeline", "hm-vm"]),
    ("hm-vm-testkit", &["hm-vm-core"]),
    // Measures what the library's users see.
    ("hm-vm-bench", &["hm-vm", "hm-vm-testkit"]),
    ("xtask", &[]),
];

/// Seen by the tests of every crate.
const TESTKIT: &str = "hm-vm-testkit";

/// Finds dependencies that have no arrow, and crates that have no line in the table.
pub(crate) fn check(packages: &[Package]) -> Vec<Finding> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Finding> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        return vec![Finding::error(
            &package.name,
            "has no line in the table of arrows (xtask/src/arrows.rs)",
        )];
    };
    package
        .edges
        .iter()
        .filter(|edge| !is_allowed(edge, allowed))
        .map(|edge| {
            let kind = if edge.dev { "dev-depends" } else { "depends" };
            let may = if allowed.is_empty() {
                "no crate of the project".to_owned()
            } else {
                allowed.join(", ")
            };
            Finding::error(
                &package.name,
                format!("{kind} on {}, but may see only: {may}", edge.to),
            )
        })
        .collect()
}

fn is_allowed(edge: &Edge, allowed: &[&str]) -> bool {
    allowed.contains(&edge.to.as_str()) || (edge.dev && edge.to == TESTKIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, edges: &[(&str, bool)]) -> Package {
        Package {
            name: name.into(),
            directory: "/w".into(),
            roots: Vec::new(),
            edges: edges
                .iter()
                .map(|&(to, dev)| Edge { to: to.into(), dev })
                .collect(),
        }
    }

    #[test]
    fn an_arrow_of_the_table_is_silent() {
        assert_eq!(
            check(&[package(
                "hm-vm-sandbox",
                &[("hm-vm-store", false), ("hm-vm-core", true)]
            )]),
            []
        );
    }

    #[test]
    fn a_backend_that_sees_another_is_found() {
        let found = check(&[package("hm-vm-docker", &[("hm-vm-sandbox", false)])]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].message.contains("depends on hm-vm-sandbox"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn the_program_does_not_see_a_backend_past_the_engine() {
        assert_eq!(
            check(&[package("hmvm", &[("hm-vm-sandbox", false)])]).len(),
            1
        );
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        assert_eq!(check(&[package("hm-vm", &[("hm-vm-testkit", true)])]), []);
        assert_eq!(
            check(&[package("hm-vm", &[("hm-vm-testkit", false)])]).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_line_is_found() {
        assert_eq!(check(&[package("hm-vm-new", &[])]).len(), 1);
    }

    #[test]
    fn the_table_has_no_cycle_and_names_only_its_own_lines() {
        fn reaches(from: &str, to: &str) -> bool {
            let (_, next) = ARROWS.iter().find(|(name, _)| *name == from).unwrap();
            next.iter().any(|step| *step == to || reaches(step, to))
        }
        for (name, _) in ARROWS {
            assert!(!reaches(name, name), "{name} reaches itself");
        }
    }
}
