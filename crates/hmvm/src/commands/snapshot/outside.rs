//! Files of snapshots that a daemon keeps.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hm_vm::docker::DockerBackend;
use hm_vm::store::Store;
use hm_vm::{OutputReport, OutputRequest, SnapshotId, VmBackend as _};

use crate::backend::wait;
use crate::failure::{Problem, hinted};
use crate::names::{GuestPath, look_hint};
use crate::output::sanitize::sanitize_path;
use crate::output::ui::write_out;

/// Brings a file or a directory out: into `target` where that is a directory, else under that name.
pub(super) fn out_of_daemon(
    (daemon, store): (&DockerBackend, &Store),
    id: &SnapshotId,
    from: &GuestPath,
    target: &Path,
) -> anyhow::Result<OutputReport> {
    if target.is_dir() {
        return copy(daemon, id, from, target);
    }
    let aside = Aside::new(store);
    let report = copy(daemon, id, from, &aside.0)?;
    let found = aside.0.join(split(from)?.1);
    let writing = || format!("writing {}", sanitize_path(target));
    let kind = fs::symlink_metadata(&found).with_context(writing)?;
    if kind.is_dir() {
        // What is aside may be on another file system: the daemon is asked once more.
        return request(daemon, id, &from.path, "**".into(), target);
    }
    if kind.is_symlink() {
        symlink(fs::read_link(&found).with_context(writing)?, target).with_context(writing)?;
    } else {
        fs::copy(&found, target).with_context(writing)?;
    }
    Ok(report)
}

/// Prints a file.
pub(super) fn print_of_daemon(
    (daemon, store): (&DockerBackend, &Store),
    id: &SnapshotId,
    file: &GuestPath,
) -> anyhow::Result<()> {
    let aside = Aside::new(store);
    copy(daemon, id, file, &aside.0)?;
    let found = aside.0.join(split(file)?.1);
    let kind = fs::symlink_metadata(&found).with_context(|| format!("reading {file}"))?;
    if !kind.is_file() {
        return Err(Problem::new(format!("{file} is no file"))
            .hint(look_hint(file))
            .into());
    }
    let mut content = File::open(&found).with_context(|| format!("reading {file}"))?;
    write_out(|out| io::copy(&mut content, out).map(|_bytes| ()))
}

/// A directory that goes with this value; with the program's next start, should it be killed.
struct Aside(PathBuf);

impl Aside {
    fn new(store: &Store) -> Self {
        Self(store.temporary_file())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn copy(
    daemon: &DockerBackend,
    id: &SnapshotId,
    from: &GuestPath,
    to: &Path,
) -> anyhow::Result<OutputReport> {
    let (base, name) = split(from)?;
    let report = request(daemon, id, base, escaped(name), to)?;
    if !report.unmatched.is_empty() {
        return Err(
            Problem::new(format!("{from}: there is nothing of that name"))
                .hint(look_hint(from))
                .into(),
        );
    }
    Ok(report)
}

fn request(
    daemon: &DockerBackend,
    id: &SnapshotId,
    base: &str,
    pattern: String,
    to: &Path,
) -> anyhow::Result<OutputReport> {
    let request = OutputRequest {
        patterns: vec![pattern],
        base: base.to_owned(),
        to: to.to_owned(),
    };
    wait(daemon.copy_outputs(id, &request))?
}

/// The directory that a file is in, and its name there.
fn split(path: &GuestPath) -> anyhow::Result<(&str, &str)> {
    let trimmed = path.path.trim_end_matches('/');
    let whole = || {
        let problem = Problem::new(format!("{path} names no file or directory by its name"));
        hinted(problem, look_hint(path))
    };
    let (base, name) = trimmed.rsplit_once('/').ok_or_else(whole)?;
    if matches!(name, "" | "." | "..") {
        return Err(whole());
    }
    Ok((if base.is_empty() { "/" } else { base }, name))
}

/// A name as a pattern that means nothing else.
fn escaped(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for letter in name.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            pattern.extend(['[', letter, ']']);
        } else {
            pattern.push(letter);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::parse_guest_path;

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        let path = |text: &str| parse_guest_path(text).expect("a path");
        assert_eq!(split(&path("s:/a")).expect("a name"), ("/", "a"));
        assert_eq!(split(&path("s:/a/b c/")).expect("a name"), ("/a", "b c"));
        for wrong in ["s:/", "s:/a/..", "s:/."] {
            assert!(split(&path(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(escaped("a*b[1]"), "a[*]b[[]1[]]");
    }
}
