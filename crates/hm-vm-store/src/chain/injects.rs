//! What is known of injected trees, for snapshots that come from elsewhere.
//!
//! A later inject to the same place removes what the earlier one brought and it does not bring, so the list
//! of that must come along.

use std::io::Read;

use hm_vm_oci::{OciError, Verified};
use rusqlite::{OptionalExtension, Transaction, params};

use super::id::ChainInject;
use super::missing::Wanted;
use crate::db::Failure;
use crate::error::StoreError;
use crate::inject::Tree;
use crate::store::now_micros;

/// A list larger than this is refused: it is read as a whole. That of a million files has some 64 MiB.
const MAX_BYTES: u64 = 128 << 20;

/// Media type of a list of injected files.
pub(super) const MEDIA_TYPE: &str = "application/vnd.hm-vm.inject.v1";

/// What was injected at one place.
pub(super) struct Inject {
    place: String,
    /// By which its row is found again.
    request: String,
    digest: String,
    manifest: Vec<u8>,
}

/// All that was injected.
pub(super) struct Injects {
    pub(super) injects: Vec<Inject>,
    /// Bytes that came for it.
    pub(super) bytes: u64,
}

/// Finds the lists here, or fetches them.
pub(super) fn bring(wanted: &Wanted<'_>, injects: &[ChainInject]) -> Result<Injects, StoreError> {
    let mut brought = Injects {
        injects: Vec::new(),
        bytes: 0,
    };
    for inject in injects {
        check(inject)?;
        let request = format!("adopted {} {}", inject.manifest.digest, inject.place);
        let (digest, manifest) = match find(wanted, &request)? {
            Some(found) => found,
            None => {
                brought.bytes += inject.manifest.size;
                fetch(wanted, inject)?
            }
        };
        brought.injects.push(Inject {
            place: inject.place.clone(),
            request,
            digest,
            manifest,
        });
    }
    Ok(brought)
}

fn check(inject: &ChainInject) -> Result<(), StoreError> {
    let reason = if !inject.place.starts_with('/') || inject.place.contains('\0') {
        "it is not an absolute path"
    } else if inject.place.len() > 4096 {
        "it is too long"
    } else if inject.manifest.size > MAX_BYTES {
        "the list of what was injected there is too long"
    } else {
        return Ok(());
    };
    Err(StoreError::invalid(
        format!("guest directory {:?}", inject.place),
        reason,
    ))
}

fn find(wanted: &Wanted<'_>, request: &str) -> Result<Option<(String, Vec<u8>)>, StoreError> {
    let db = &wanted.store.core().db;
    db.read("reading an earlier inject", |connection| {
        Ok(connection
            .prepare_cached("SELECT digest, manifest FROM injects WHERE request = ?1")?
            .query_row([request], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    })
}

fn fetch(wanted: &Wanted<'_>, inject: &ChainInject) -> Result<(String, Vec<u8>), StoreError> {
    let blob = &inject.manifest;
    let input = wanted.source.open(blob)?;
    let mut manifest = Vec::new();
    // No more than was announced: the check fails at the first byte beyond.
    Verified::new(wanted.watched(input), blob)
        .read_to_end(&mut manifest)
        .map_err(|error| wanted.failure(error))?;
    let tree = Tree::decode(&manifest).map_err(|error| {
        StoreError::Oci(OciError::Mismatch {
            what: blob.digest.to_string(),
            reason: error.to_string(),
        })
    })?;
    Ok((tree.digest().to_owned(), manifest))
}

/// Records what was injected into a stack.
pub(super) fn note(tx: &Transaction<'_>, stack: i64, injects: &[Inject]) -> Result<(), Failure> {
    for inject in injects {
        let id: i64 = tx
            .prepare_cached(
                "INSERT INTO injects (request, place, digest, manifest, layer, last_used)
                 VALUES (?1, ?2, ?3, ?4, NULL, ?5)
                 ON CONFLICT (request) DO UPDATE SET last_used = excluded.last_used
                 RETURNING id",
            )?
            .query_row(
                params![
                    inject.request,
                    inject.place,
                    inject.digest,
                    inject.manifest,
                    now_micros()
                ],
                |row| row.get(0),
            )?;
        tx.prepare_cached(
            "INSERT OR REPLACE INTO stack_injects (stack, path, inject) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![stack, inject.place, id])?;
    }
    Ok(())
}
