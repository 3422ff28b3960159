//! The rows of a pulled image.

use hm_vm_oci::Resolved;
use rusqlite::{OptionalExtension, Transaction, params};

use super::ImageLayer;
use super::count::Count;
use super::image::Known;
use super::short::Final;
use crate::background::Job;
use crate::db::Failure;
use crate::db::stack::{self, LayerKind};
use crate::error::StoreError;
use crate::layers::Held;
use crate::store::{NewImage, Pulled, Store, image_rows, now_micros};

/// What an image is entered with.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) known: &'a Known,
    pub(super) image: &'a Resolved,
    pub(super) reference: Option<&'a str>,
}

impl Entry<'_> {
    fn row<'b>(&'b self, size: Count, notices: &'b [String]) -> NewImage<'b> {
        NewImage {
            name: self.name,
            digest: &self.known.digest,
            bytes: size.bytes,
            entries: size.entries,
            notices,
            pulled: Some(Pulled {
                reference: self.reference,
                manifest: self.image.manifest_digest.to_string(),
                platform: self.known.platform.to_string(),
            }),
        }
    }
}

impl Store {
    /// Notes that nothing has changed, where nothing has. Returns whether that is so.
    pub(super) fn still_is(&self, entry: &Entry<'_>) -> Result<bool, StoreError> {
        self.core().db.write("looking at an image", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE images SET reference = coalesce(?5, reference),
                         checked = CASE WHEN ?5 IS NULL THEN checked ELSE ?4 END
                     WHERE name = ?1 AND digest = ?2 AND manifest = ?3",
                )?
                .execute(params![
                    entry.name,
                    entry.known.digest,
                    entry.image.manifest_digest.to_string(),
                    now_micros(),
                    entry.reference
                ])?;
            Ok(changed > 0)
        })
    }

    /// Gives an image that is here another name. Returns whether it is here.
    pub(super) fn enter_known(&self, entry: &Entry<'_>) -> Result<bool, StoreError> {
        let core = self.core();
        let doomed = core.db.write("adding an image", |tx| {
            let here: Option<(i64, u64, u64, String)> = tx
                .prepare_cached(
                    "SELECT stack, bytes, entries, notices FROM images
                     WHERE digest = ?1 AND manifest IS NOT NULL ORDER BY name = ?2 DESC LIMIT 1",
                )?
                .query_row([&entry.known.digest, entry.name], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .optional()?;
            let Some((stack, bytes, entries, notices)) = here else {
                return Ok(None);
            };
            let notices: Vec<String> = serde_json::from_str(&notices).unwrap_or_default();
            let row = entry.row(Count { bytes, entries }, &notices);
            Ok(Some(replace(tx, self, &row, stack)?))
        })?;
        self.settle(doomed.unwrap_or(false));
        Ok(doomed.is_some())
    }

    /// Enters a new image.
    pub(super) fn enter_new(
        &self,
        entry: &Entry<'_>,
        layers: Vec<Final<'_>>,
        size: Count,
        notices: &[String],
        held: Held,
    ) -> Result<(), StoreError> {
        let described = ImageLayer::all(entry.image);
        let described = serde_json::to_string(&described).unwrap_or_default();
        let row = entry.row(size, notices);
        let doomed = self.core().db.write("adding an image", |tx| {
            let numbers: Vec<i64> = layers.iter().map(Final::layer).collect();
            for layer in &layers {
                if let Final::Own(pending) = layer {
                    stack::publish_layer(tx, pending.layer(), LayerKind::Image)?;
                }
            }
            let base = numbers.len();
            let stack = stack::create(tx, numbers, false, base, None)?;
            let (config, digest) = (&entry.known.config, &entry.known.digest);
            stack::set_version(tx, stack.id, digest, Some(config), Some(&described))?;
            let doomed = replace(tx, self, &row, stack.id)?;
            Ok(held.give_back(tx)? | doomed)
        })?;
        held.given_back();
        for layer in layers {
            if let Final::Own(pending) = layer {
                pending.published();
            }
        }
        self.settle(doomed);
        Ok(())
    }

    fn settle(&self, doomed: bool) {
        self.add_job(Job::Settle);
        if doomed {
            self.add_job(Job::Doomed);
        }
    }
}

/// Puts the row in place of an older one. Returns whether any layer was doomed.
fn replace(
    tx: &Transaction<'_>,
    store: &Store,
    row: &NewImage<'_>,
    stack: i64,
) -> Result<bool, Failure> {
    let core = store.core();
    let old = image_rows::replace(tx, row, stack, &core.boot)?;
    match old {
        Some(old) => Ok(stack::release(tx, old, core.session.id)?),
        None => Ok(false),
    }
}
