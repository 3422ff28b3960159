//! What this machine has of daemons, and what is left over in them.

use crate::endpoint::EndpointSearch;

/// Whether something can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingState {
    /// It can.
    Ok,
    /// It can, but not for everything.
    Weak,
    /// It cannot.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub state: FindingState,
    /// What was found.
    pub detail: String,
    /// What the user can do.
    pub fix: Option<String>,
}

/// Looks at the daemons that a search finds.
pub fn examine(search: &EndpointSearch) -> Vec<Finding> {
    let _ = search;
    Vec::new()
}
