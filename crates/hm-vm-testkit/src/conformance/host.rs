//! What the suite sees of the machine that it runs on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

/// A word that appears nowhere else on this machine.
pub(super) fn marker() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos());
    format!("hmvm-marker-{}-{time}-{number}", std::process::id())
}

/// Command lines of the host's processes that contain `marker`. A guest whose processes the host
/// does not see, such as a machine of its own, never has any.
pub(super) fn processes_with(marker: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(marker))
        .collect()
}

/// Waits until `find` finds nothing, and fails with what it found last after half a minute.
pub(super) async fn until_none<F>(what: &str, mut find: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Vec<String>>,
{
    let mut found = Vec::new();
    for _ in 0..1500 {
        found = find().await;
        if found.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{what}: {found:#?}")
}

/// The largest amount of memory that this process ever had in use, in KiB.
pub(super) fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
