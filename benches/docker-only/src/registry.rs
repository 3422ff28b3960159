//! The crate's registry of snapshots.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use docker_only::{ImageRegistry, SnapshotId};

/// A registry that is full.
pub struct Registry(ImageRegistry);

impl Registry {
    /// Fills a file with `count` entries by SQL, since filling it through the crate takes hours, then opens it with
    /// just that capacity. The time is that of opening.
    pub fn filled(path: &Path, count: u64) -> anyhow::Result<(Self, Duration)> {
        let capacity = NonZeroU64::new(count).context("a registry holds at least one entry")?;
        if !path.exists() {
            drop(ImageRegistry::open(path, capacity)?);
            let mut connection = rusqlite::Connection::open(path)?;
            let transaction = connection.transaction()?;
            {
                let mut insert =
                    transaction.prepare("INSERT INTO snapshots VALUES (?1, ?2, ?3)")?;
                for index in 0..count {
                    insert.execute((
                        format!("key:{index}"),
                        format!("snapshot:{index}"),
                        1_000_000 + index,
                    ))?;
                }
            }
            transaction.commit()?;
        }
        let start = Instant::now();
        let registry = ImageRegistry::open(path, capacity)?;
        Ok((Self(registry), start.elapsed()))
    }

    /// Times one `get`.
    pub fn get(&self, key: &str) -> Duration {
        let start = Instant::now();
        let _ = self.0.get(key);
        start.elapsed()
    }

    /// Times one `put`, which evicts.
    pub fn put(&self, key: &str) -> Duration {
        let snapshot = SnapshotId::new(key);
        let start = Instant::now();
        let _ = self.0.put(key, &snapshot);
        start.elapsed()
    }
}
