//! Errors of the store in the words of the contract.

use hm_vm_store::StoreError;

/// The contract's error where it has one, so that `downcast_ref` finds it.
pub(crate) fn contract(error: StoreError) -> anyhow::Error {
    match error.contract() {
        Some(contract) => contract.into(),
        None => error.into(),
    }
}
