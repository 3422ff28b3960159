//! The rows of images, and the names that lead to them.

use std::time::SystemTime;

use hm_vm_oci::{Digest, Platform, Reference};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::error::StoreError;
use crate::store::image_defaults::ImageDefaults;
use crate::store::{now_micros, snapshots};

/// Name of the image that is this machine's own root file system.
pub(crate) const HOST: &str = "host";

/// An image, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name: what it was imported as, or its reference in full.
    pub name: String,
    /// Digest of its content: of its configuration where it came with one, else of its files.
    pub digest: String,
    /// When it was imported.
    pub created: SystemTime,
    /// Bytes of all its files together; 0 for `host`. Of an image with layers, those of each layer.
    pub bytes: u64,
    /// Number of its files, directories and links; 0 for `host`. Of an image with layers, those of each layer.
    pub entries: u64,
    /// What the user should know of its import.
    pub notices: Vec<String>,
    /// Where it was pulled from, in full: `docker.io/library/alpine:latest`.
    pub reference: Option<String>,
    /// Digest of what was found there under that name: a manifest or an index.
    pub manifest: Option<Digest>,
    /// What it runs on, where that is known.
    pub platform: Option<Platform>,
    /// When its place was last asked what the name stands for. `None` for images that cannot be asked for again.
    pub checked: Option<SystemTime>,
    /// What commands get that ask for nothing else.
    pub defaults: ImageDefaults,
}

/// Joined: `images` has `i`, `image_versions` has `v`.
const SELECT: &str = "SELECT i.name, i.digest, i.created, i.bytes, i.entries, i.notices,
    i.reference, i.manifest, i.platform, i.checked, v.config
    FROM images i JOIN stacks s ON s.id = i.stack LEFT JOIN image_versions v ON v.id = s.version";

/// A new image's row, but for its stack.
pub(crate) struct NewImage<'a> {
    pub(crate) name: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) notices: &'a [String],
    pub(crate) pulled: Option<Pulled<'a>>,
}

/// What is known of a pulled image only.
pub(crate) struct Pulled<'a> {
    pub(crate) reference: Option<&'a str>,
    pub(crate) manifest: String,
    pub(crate) platform: String,
}

/// All images, by name.
pub(crate) fn list(connection: &Connection) -> rusqlite::Result<Vec<ImageInfo>> {
    connection
        .prepare_cached(&format!("{SELECT} ORDER BY i.name"))?
        .query_map([], read)?
        .collect()
}

/// The image of exactly this name.
pub(crate) fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<ImageInfo>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE i.name = ?1"))?
        .query_row([name], read)
        .optional()
}

/// The name of the image that a user means: the exact name first, then the reference in full.
pub(crate) fn resolve(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let mut exists =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE name = ?1)")?;
    if exists.query_row([name], |row| row.get(0))? {
        return Ok(Some(name.to_owned()));
    }
    let Some(full) = canonical(name) else {
        return Ok(None);
    };
    let there: bool = exists.query_row([&full], |row| row.get(0))?;
    Ok(there.then_some(full))
}

/// A reference in full, if the name is one.
pub(crate) fn canonical(name: &str) -> Option<String> {
    if name == HOST {
        return None;
    }
    let reference: Reference = name.parse().ok()?;
    Some(reference.to_string())
}

/// Digest of the image that a user means.
pub(crate) fn digest(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let Some(name) = resolve(connection, name)? else {
        return Ok(None);
    };
    connection
        .prepare_cached("SELECT digest FROM images WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// Name and stack of the image that a user means.
pub(crate) fn stack(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<(String, i64)>> {
    let Some(name) = resolve(connection, name)? else {
        return Ok(None);
    };
    connection
        .prepare_cached("SELECT name, stack FROM images WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Writes the row. The stack of an image that had the name is returned: it is to be released.
pub(crate) fn replace(
    tx: &Transaction<'_>,
    image: &NewImage<'_>,
    stack: i64,
    boot: &str,
) -> rusqlite::Result<Option<i64>> {
    let old: Option<i64> = tx
        .prepare_cached("DELETE FROM images WHERE name = ?1 RETURNING stack")?
        .query_row([image.name], |row| row.get(0))
        .optional()?;
    let notices = serde_json::to_string(image.notices).unwrap_or_default();
    let now = now_micros();
    let pulled = image.pulled.as_ref();
    tx.prepare_cached(
        "INSERT INTO images (name, digest, created, stack, bytes, entries, notices, durable, boot,
             reference, manifest, platform, checked)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        image.name,
        image.digest,
        now,
        stack,
        image.bytes,
        image.entries,
        notices,
        boot,
        pulled.and_then(|pulled| pulled.reference),
        pulled.map(|pulled| &pulled.manifest),
        pulled.map(|pulled| &pulled.platform),
        pulled.and_then(|pulled| pulled.reference).map(|_| now),
    ])?;
    Ok(old)
}

fn read(row: &Row<'_>) -> rusqlite::Result<ImageInfo> {
    let notices: String = row.get(5)?;
    let (manifest, platform): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
    let checked: Option<i64> = row.get(9)?;
    let config: Option<String> = row.get(10)?;
    Ok(ImageInfo {
        name: row.get(0)?,
        digest: row.get(1)?,
        created: snapshots::time(row.get(2)?),
        bytes: row.get(3)?,
        entries: row.get(4)?,
        notices: serde_json::from_str(&notices).unwrap_or_default(),
        reference: row.get(6)?,
        manifest: manifest.and_then(|text| text.parse().ok()),
        platform: platform.and_then(|text| text.parse().ok()),
        checked: checked.map(snapshots::time),
        defaults: ImageDefaults::of_stored(config.as_deref()),
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name == HOST {
        "the name stands for this machine itself"
    } else if name.len() > LONGEST_NAME {
        "it is longer than 512 bytes"
    } else if name.starts_with('-') {
        "it begins with a dash"
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "it contains white space or control characters"
    } else {
        return Ok(());
    };
    Err(StoreError::invalid(format!("image name {name:?}"), reason))
}

/// A repository has 255 characters, a tag 128, a digest 71; a host comes before.
const LONGEST_NAME: usize = 512;

pub(crate) fn not_found(name: &str) -> StoreError {
    StoreError::ImageNotFound {
        image: name.to_owned(),
    }
}
