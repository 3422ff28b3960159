//! What this machine can do, each with the exact fix where something is missing.
//!
//! Probes try things for real where that leaves no trace, and read settings otherwise. Together
//! they take some ten milliseconds; nothing of it runs but for `hmvm doctor`, and where a backend is to be chosen.

mod kernel;
mod mounts;
mod resources;
mod users;

use std::path::Path;

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactState {
    /// As it should.
    Ok,
    /// In part, or in a weaker form.
    Degraded,
    /// Not at all.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What, in a few words. Stable.
    pub name: &'static str,
    /// How well it works.
    pub state: FactState,
    /// What was found.
    pub detail: String,
    /// What to do about it: a command where one will do.
    pub fix: Option<String>,
}

impl Fact {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: FactState::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    fn degraded(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (detail, fix) = (detail.into(), Some(fix.into()));
        Self {
            name,
            state: FactState::Degraded,
            detail,
            fix,
        }
    }

    fn missing(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (detail, fix) = (detail.into(), Some(fix.into()));
        Self {
            name,
            state: FactState::Missing,
            detail,
            fix,
        }
    }
}

/// Looks at everything. `store_dir` is where layers are, or will be: an existing directory.
pub fn all(store_dir: &Path) -> Vec<Fact> {
    let mut facts = required(store_dir);
    facts.extend(resources::cgroups());
    facts.extend([resources::disk_limit(), resources::pasta()]);
    facts
}

/// Looks at what no VM can do without: a part of [`all`], which takes a few milliseconds.
pub fn required(store_dir: &Path) -> Vec<Fact> {
    vec![
        kernel::version(),
        kernel::user_namespaces(),
        users::subordinate_ids(),
        users::mapping_programs(),
        mounts::overlay(),
        mounts::mount_api(),
        mounts::idmapped(store_dir),
        mounts::proc_is_whole(),
        kernel::seccomp(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_that_is_not_ok_has_a_fix() {
        let temp = tempfile::tempdir().unwrap();
        let facts = all(temp.path());
        for fact in &facts {
            println!(
                "{:?} {}: {} {:?}",
                fact.state, fact.name, fact.detail, fact.fix
            );
            assert!(!fact.detail.is_empty(), "{fact:?}");
            assert_eq!(fact.fix.is_some(), fact.state != FactState::Ok, "{fact:?}");
        }
        let mut names: Vec<_> = facts.iter().map(|fact| fact.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), facts.len());
    }

    #[test]
    fn probing_leaves_no_mount_behind() {
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let temp = tempfile::tempdir().unwrap();
        all(temp.path());
        assert!(!mounts().contains(temp.path().to_str().unwrap()));
    }
}
