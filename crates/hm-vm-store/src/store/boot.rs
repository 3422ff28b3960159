//! Which run of the machine this is.

use std::path::Path;

use crate::error::{Context, StoreError};

const PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot: it changes with every start of the machine.
pub(crate) fn current() -> Result<String, StoreError> {
    let text = std::fs::read_to_string(PATH).context("reading", Path::new(PATH))?;
    Ok(text.trim().to_owned())
}
