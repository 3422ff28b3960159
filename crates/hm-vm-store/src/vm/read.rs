//! Reading a file of a VM at rest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Context, StoreError};
use crate::view::merged::{Merged, Node};
use crate::view::resolve::resolve;
use crate::view::{guest_error, layer_paths};
use crate::vm::files::VmFiles;

/// What tells the writable directory from layers, whose numbers begin at 1.
const UPPER: i64 = -1;

impl VmFiles {
    /// The regular file at the absolute guest path, as the next command would find it. `None` when there is
    /// nothing. Symbolic links are followed inside the guest only. Call it at rest.
    ///
    /// `upper` is the directory that the VM writes to, where that is not [`upper`](Self::upper).
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidInput`] when there is something else than a regular file, or one of more than
    /// `limit` bytes; [`StoreError::VmRemoved`], or a failure to read.
    pub fn read_file(
        &self,
        upper: Option<&Path>,
        guest: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.lock_at_rest()?;
        let own = self.upper_path();
        let upper = upper.unwrap_or(&own);
        let core = self.store.core();
        let mut paths = vec![(UPPER, upper.to_owned())];
        paths.extend(layer_paths(core, &state.stack));
        let path = Path::new(guest);
        let read = || -> io::Result<Option<Vec<u8>>> {
            let tree = Merged::open(paths.iter().map(|(id, path)| (*id, path.as_path())))?;
            match resolve(&tree, guest.as_bytes(), true)?.node {
                None => Ok(None),
                Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
                Some(Node::Leaf(leaf)) => {
                    let file = File::from(tree.open_file(&leaf)?);
                    let mut content = Vec::new();
                    file.take(limit.saturating_add(1))
                        .read_to_end(&mut content)?;
                    Ok(Some(content))
                }
            }
        };
        let found = core.files.run(read)?;
        let found = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(error).context("reading the VM's files in", upper);
            }
            other => other.map_err(|error| guest_error(path, error))?,
        };
        if found
            .as_ref()
            .is_some_and(|content| content.len() as u64 > limit)
        {
            return Err(StoreError::invalid(
                format!("guest file {guest:?}"),
                format!("it has more than {limit} bytes"),
            ));
        }
        Ok(found)
    }
}
