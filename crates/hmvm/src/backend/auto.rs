//! Whether the sandbox works here, remembered.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hm_vm::sandbox::lacking;
use hm_vm::store::Store;

/// How long it is believed that the sandbox works.
const BELIEVED: Duration = Duration::from_secs(24 * 60 * 60);

/// What this machine lacks for the sandbox, in one line; `None` where it works.
///
/// It takes a few milliseconds to find out, which is much beside a cache hit: that it works is noted in the store,
/// for this boot, this container and this user. That it does not is found out each time: it may have been mended.
pub(super) fn sandbox_lacks(store: &Store, is_weaker: bool) -> Option<String> {
    let place = place(store.root());
    let here = here();
    if is_noted(&place, &here) {
        return None;
    }
    let mut lacking = lacking(store.root());
    if is_weaker {
        // What may be gone without is up to the VM.
        lacking.retain(|check| ["user namespaces", "overlay", "kernel"].contains(&&*check.name));
    }
    if lacking.is_empty() {
        if !is_weaker {
            // It is found out again where this cannot be written.
            let _unnoted = fs::write(&place, here);
        }
        return None;
    }
    let words = lacking
        .iter()
        .map(|check| format!("{}: {}", check.name, check.detail));
    Some(words.collect::<Vec<_>>().join(", "))
}

/// To be called when the sandbox has failed where it was believed to work.
pub(crate) fn forget_that_it_works(store: &Path) {
    let _gone = fs::remove_file(place(store));
}

fn place(store: &Path) -> PathBuf {
    store.join("sandbox-works")
}

fn is_noted(place: &Path, here: &str) -> bool {
    let Ok(metadata) = fs::metadata(place) else {
        return false;
    };
    let age = metadata
        .modified()
        .map(|time| SystemTime::now().duration_since(time));
    matches!(age, Ok(Ok(age)) if age < BELIEVED)
        && metadata.len() == here.len() as u64
        && fs::read_to_string(place).is_ok_and(|text| text == here)
}

/// This boot of this machine, this container, this user.
fn here() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = |name: &str| {
        fs::read_link(format!("/proc/self/ns/{name}")).map_or_else(
            |_| String::new(),
            |target| target.to_string_lossy().into_owned(),
        )
    };
    let user = rustix::process::geteuid().as_raw();
    format!(
        "{} {} {} {user}\n",
        boot.trim(),
        namespace("mnt"),
        namespace("user")
    )
}
