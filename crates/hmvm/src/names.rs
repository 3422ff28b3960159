//! Ids and keys as a person writes and reads them: abbreviated where unique.

use hm_vm::registry::Entry;
use hm_vm::{Error, ImageRegistry, SnapshotId};

use crate::app::App;
use crate::backend::{Keeper, daemon};
use crate::failure::{Problem, contract};
use crate::output::sanitize::{sanitize, sanitize_path};

/// Characters of an id that are shown.
const SHORT: usize = 12;

/// How many candidates an ambiguous abbreviation lists.
const CANDIDATES: usize = 5;

/// An id, abbreviated for reading. Those of snapshots in daemons are digests, whose first digits say enough.
pub(crate) fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.char_indices()
        .nth(SHORT)
        .map_or(id, |(end, _)| &id[..end])
}

/// A digest, abbreviated for reading: its first digits.
pub(crate) fn short_digest(digest: &str) -> &str {
    short(digest)
}

/// The known name that `name` was probably meant to be.
pub(crate) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let close = known
        .into_iter()
        .map(|other| (strsim::osa_distance(&lower, &other.to_lowercase()), other))
        .filter(|(distance, _)| *distance <= (lower.chars().count() / 3).clamp(1, 3));
    close
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// A key, abbreviated for reading: derived keys to their first digits, others to what fits.
pub(crate) fn short_key(key: &str) -> String {
    if is_derived(key) {
        let digits = key.find('-').map_or(0, |dash| dash + 1) + SHORT;
        return key[..digits].to_owned();
    }
    let shown = sanitize(key);
    if shown.chars().count() <= 40 {
        return shown.into_owned();
    }
    let mut cut: String = shown.chars().take(39).collect();
    cut.push('…');
    cut
}

/// Whether a key was derived from content, and not made up by a user.
fn is_derived(key: &str) -> bool {
    key.strip_prefix("hm")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(format, digits)| {
            format.bytes().all(|byte| byte.is_ascii_digit())
                && digits.len() == 64
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

/// The snapshot that an id or a unique beginning of one names.
///
/// # Errors
///
/// No such snapshot, or several. Where another backend has it, that is said.
pub(crate) fn snapshot(app: &App, keeper: &Keeper, text: &str) -> anyhow::Result<SnapshotId> {
    if text.is_empty() {
        return Err(Problem::new("the id of the snapshot is empty")
            .hint("hmvm snapshot ls lists the snapshots")
            .into());
    }
    let error = match keeper.resolve(text) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let contract = contract(&error);
    let Some(Error::SnapshotNotFound { .. }) = contract else {
        return Err(error);
    };
    let Some(other) = daemon::other_keeper(app, keeper, text) else {
        return Err(error);
    };
    let (here, there) = (keeper.name(), other.name());
    let problem = Problem::new(format!(
        "snapshot {text:?} is kept by {there}, not by {here}"
    ));
    Err(error.context(problem.hint(format!(
        "--backend {there} uses it there; hmvm snapshot copy {text} --backend {there} --to {here} brings it over"
    ))))
}

/// The snapshot that an id, a key, or a unique beginning of one of them names.
///
/// # Errors
///
/// No such snapshot, or several.
pub(crate) fn snapshot_or_key(
    app: &App,
    keeper: &Keeper,
    text: &str,
) -> anyhow::Result<SnapshotId> {
    let error = match snapshot(app, keeper, text) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let is_unknown = matches!(contract(&error), Some(Error::SnapshotNotFound { .. }));
    match entry(&keeper.registry(app)?, text) {
        Ok(entry) if is_unknown => Ok(entry.snapshot),
        _ => Err(error),
    }
}

/// The entry of the cache that a key, a unique beginning of one, or the id of a snapshot names.
///
/// # Errors
///
/// No such entry, or several.
pub(crate) fn entry(registry: &ImageRegistry, text: &str) -> anyhow::Result<Entry> {
    if let Some(entry) = registry.entry(text)? {
        return Ok(entry);
    }
    let begins = |candidate: &str| !text.is_empty() && candidate.starts_with(text);
    let found: Vec<Entry> = registry
        .entries()?
        .into_iter()
        .filter(|entry| {
            let digits = entry.key.split_once('-').map_or("", |(_, digits)| digits);
            begins(&entry.key)
                || (is_derived(&entry.key) && begins(digits))
                || begins(&entry.snapshot)
        })
        .collect();
    one(
        text,
        "key or snapshot",
        found,
        |entry| entry.key.clone(),
        "hmvm cache ls lists the keys",
    )
}

fn one<T>(
    text: &str,
    what: &str,
    mut found: Vec<T>,
    name: impl Fn(&T) -> String,
    list: &str,
) -> anyhow::Result<T> {
    if found.len() > 1 {
        let mut names: Vec<String> = found
            .iter()
            .take(CANDIDATES)
            .map(|candidate| short_key(&name(candidate)))
            .collect();
        if found.len() > CANDIDATES {
            names.push(format!("{} more", found.len() - CANDIDATES));
        }
        let message = format!("{what} {text:?} is ambiguous: {}", names.join(", "));
        return Err(Problem::new(message).hint("write more of it").into());
    }
    found.pop().ok_or_else(|| {
        Problem::new(format!("{what} {text:?} not found"))
            .hint(list)
            .into()
    })
}

/// `SNAPSHOT:/path`, as `cat` and `cp` take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestPath {
    /// Id of the snapshot, or a beginning of it.
    pub(crate) snapshot: String,
    /// Absolute path inside.
    pub(crate) path: String,
}

/// Reads `SNAPSHOT:/path`.
pub(crate) fn parse_guest_path(text: &str) -> Result<GuestPath, String> {
    match text.split_once(":/") {
        Some((snapshot, path)) if !snapshot.is_empty() => Ok(GuestPath {
            snapshot: snapshot.to_owned(),
            path: format!("/{path}"),
        }),
        _ => Err("not of the form SNAPSHOT:/path\nhint: as in 3f2a81:/src/report.txt".into()),
    }
}

/// How to see what a snapshot has.
pub(crate) fn look_hint(path: &GuestPath) -> String {
    let snapshot = short(&path.snapshot);
    format!("hmvm exec --from {snapshot} --cache off -- ls -l DIR shows what is there")
}

impl std::fmt::Display for GuestPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.snapshot, sanitize_path(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shortened_so_that_they_can_be_told_apart() {
        let derived = format!("hm1-{}", "0123456789abcdef".repeat(4));
        assert_eq!(short_key(&derived), "hm1-0123456789ab");
        assert_eq!(short_key("mine\n"), "mine\\n");
        assert_eq!(short_key(&"x".repeat(50)).chars().count(), 40);
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
        assert_eq!(short("grün"), "grün");
    }

    #[test]
    fn guest_paths() {
        let path = parse_guest_path("ab:/c:/d").expect("a path");
        assert_eq!(
            (path.snapshot.as_str(), path.path.as_str()),
            ("ab", "/c:/d")
        );
        for bad in ["", "ab", "ab:c", ":/c"] {
            assert!(parse_guest_path(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
