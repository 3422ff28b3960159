//! What a shared cache is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whether results are given to a shared cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// It is asked, and nothing is written to it.
    ReadOnly,
    /// Results are given to it as well.
    #[default]
    ReadWrite,
}

/// Shows a line to the user.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How a shared cache is used. Times limit what its failures may cost; how long a connection may take and how long
/// the other side may say nothing is for the registry's client to limit: 3 s and 10 s are good values.
#[derive(Clone)]
pub struct OciCacheOptions {
    /// Whether results are given to it.
    pub mode: CacheMode,
    /// How long the answer about one key may take: 5 s.
    pub lookup_time: Duration,
    /// How many keys are asked for at once: 16.
    pub lookups_at_once: usize,
    /// How long the fetching of a result may take, beside the time for its bytes: 10 s.
    pub fetch_time: Duration,
    /// The slowest that bytes may come, in bytes per second: 1 MiB.
    pub slowest: u64,
    /// After so many failures one after the other it is not used any more: 3.
    pub failures: u32,
    /// After so much time lost in failures it is not used any more: 20 s.
    pub patience: Duration,
    /// A result with more bytes than this to fetch is left alone: 64 GiB.
    pub max_bytes: u64,
    /// Results that may wait to be given to it: 1000. Others are not given.
    pub queue: usize,
    /// Shows what the user should know, each kind of failure once. Without it they are logged.
    pub notice: Option<Notice>,
}

impl Default for OciCacheOptions {
    fn default() -> Self {
        Self {
            mode: CacheMode::default(),
            lookup_time: Duration::from_secs(5),
            lookups_at_once: 16,
            fetch_time: Duration::from_secs(10),
            slowest: 1 << 20,
            failures: 3,
            patience: Duration::from_secs(20),
            max_bytes: 64 << 30,
            queue: 1000,
            notice: None,
        }
    }
}

impl fmt::Debug for OciCacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciCacheOptions")
            .field("mode", &self.mode)
            .field("lookup_time", &self.lookup_time)
            .field("lookups_at_once", &self.lookups_at_once)
            .field("fetch_time", &self.fetch_time)
            .field("slowest", &self.slowest)
            .field("failures", &self.failures)
            .field("patience", &self.patience)
            .field("max_bytes", &self.max_bytes)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
