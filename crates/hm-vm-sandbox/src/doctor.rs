//! What this machine can do for the backend, and what is missing.

use std::path::Path;

use hm_vm_sys::probe::{self, Fact, FactState};

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// As it should.
    Ok,
    /// The backend works, but not with everything.
    Weak,
    /// The backend does not work without it.
    Missing,
}

/// One fact about this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How well it works.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// Looks at everything that the backend uses on this machine, for this user and a store in
/// `store_dir`. Changes nothing. Takes some tens of milliseconds.
pub fn doctor(store_dir: &Path) -> Vec<Check> {
    checks(probe::all(store_dir))
}

/// What this machine lacks for any VM at all, for this user and a store in `store_dir`. Nothing where the backend works. Changes
/// nothing. Takes a few milliseconds.
pub fn lacking(store_dir: &Path) -> Vec<Check> {
    let mut checks = checks(probe::required(store_dir));
    checks.retain(|check| check.state == CheckState::Missing);
    checks
}

fn checks(facts: Vec<Fact>) -> Vec<Check> {
    let check = |fact: Fact| Check {
        name: fact.name.into(),
        state: match fact.state {
            FactState::Ok => CheckState::Ok,
            FactState::Missing if !is_optional(fact.name) => CheckState::Missing,
            FactState::Missing | FactState::Degraded => CheckState::Weak,
        },
        detail: fact.detail,
        fix: fact.fix,
    };
    facts.into_iter().map(check).collect()
}

/// What a VM only needs when it is asked for.
fn is_optional(name: &str) -> bool {
    name.starts_with("limit") || name.starts_with("outbound")
}
