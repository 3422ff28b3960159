//! What this machine can do for the backend, and what is missing.

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// As it should.
    Ok,
    /// The backend works without it, but not as well.
    Weak,
    /// The backend does not work without it.
    Missing,
}

/// One fact about this machine.
#[derive(Clone, Debug)]
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

/// Looks at everything that the backend needs.
pub fn doctor() -> Vec<Check> {
    Vec::new()
}
