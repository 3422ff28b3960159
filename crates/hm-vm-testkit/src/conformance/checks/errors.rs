//! Telling failures apart.

use anyhow::{Result, bail};
use hm_vm_core::Error;

/// Fails unless `result` is a failure that carries an error of the contract that `fits`.
pub(crate) fn expect_error<T>(
    result: Result<T>,
    doing: &str,
    fits: impl FnOnce(&Error) -> bool,
) -> Result<()> {
    let Err(error) = result else {
        bail!("{doing} succeeded");
    };
    match error.downcast_ref::<Error>() {
        Some(found) if fits(found) => Ok(()),
        Some(found) => bail!("{doing} failed with another error than it should: {found:?}"),
        None => bail!("{doing} failed without an error of the contract: {error:#}"),
    }
}

/// Fails unless `result` is [`Error::InvalidInput`].
pub(crate) fn expect_invalid<T>(result: Result<T>, doing: &str) -> Result<()> {
    expect_error(result, doing, |error| {
        matches!(error, Error::InvalidInput { .. })
    })
}
