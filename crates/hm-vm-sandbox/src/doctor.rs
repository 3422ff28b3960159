//! What this machine can do for the backend, and what is missing.

use std::path::Path;

use hm_vm_sys::probe::{self, FactState};

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
    probe::all(store_dir)
        .into_iter()
        .map(|fact| Check {
            name: fact.name.into(),
            state: match fact.state {
                FactState::Ok => CheckState::Ok,
                FactState::Missing if !is_optional(fact.name) => CheckState::Missing,
                FactState::Missing | FactState::Degraded => CheckState::Weak,
            },
            detail: fact.detail,
            fix: fact.fix,
        })
        .collect()
}

/// What a VM only needs when it is asked for.
fn is_optional(name: &str) -> bool {
    name.starts_with("limit") || name.starts_with("outbound")
}
