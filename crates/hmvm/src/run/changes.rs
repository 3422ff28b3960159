//! What git says has changed, for `if = 'changed("…")'`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Paths below `directory` that differ from `revision`, or, without one, from where the branch left its
/// upstream (from the last commit, where there is no upstream): committed or not, new files included.
/// `None` when that cannot be told: no git, no repository.
///
/// # Errors
///
/// A revision was named that git does not know.
pub(super) fn changed_paths(
    directory: &Path,
    revision: Option<&str>,
) -> anyhow::Result<Option<Vec<String>>> {
    if git(directory, &["rev-parse", "--is-inside-work-tree"]).is_err() {
        return Ok(None);
    }
    let base = match revision {
        Some(revision) => {
            let commit = format!("{revision}^{{commit}}");
            match git(
                directory,
                &[
                    "rev-parse",
                    "--verify",
                    "--quiet",
                    "--end-of-options",
                    &commit,
                ],
            ) {
                Ok(commit) => one_line(&commit),
                Err(_) => bail!(
                    "git does not know the revision {revision:?} that changed() compares with"
                ),
            }
        }
        None => match git(directory, &["merge-base", "HEAD", "@{upstream}"]) {
            Ok(commit) => one_line(&commit),
            Err(_) => "HEAD".to_owned(),
        },
    };
    let differing = git(
        directory,
        &[
            "diff",
            "--name-only",
            "--no-renames",
            "-z",
            "--relative",
            &base,
            "--",
            ".",
        ],
    );
    let Ok(differing) = differing else {
        // A repository without a commit: everything is new.
        return Ok(None);
    };
    let new = git(
        directory,
        &[
            "ls-files",
            "--others",
            "--exclude-standard",
            "-z",
            "--",
            ".",
        ],
    )?;
    let paths = differing.split('\0').chain(new.split('\0'));
    Ok(Some(
        paths
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    ))
}

fn one_line(text: &str) -> String {
    text.trim().to_owned()
}

/// Runs git for its output.
fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        // Neither the user's hooks nor a pager has a part in this.
        .args(["-c", "core.fsmonitor=false", "-c", "core.quotePath=false"])
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .context("running git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn repository() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for arguments in [
            &["init", "-q", "-b", "main"][..],
            &["config", "user.email", "a@example.org"],
            &["config", "user.name", "A"],
        ] {
            git(place.path(), arguments).unwrap();
        }
        place
    }

    fn commit(place: &Path, name: &str) {
        git(place, &["add", "-A"]).unwrap();
        git(place, &["commit", "-q", "-m", name]).unwrap();
    }

    #[test]
    fn what_differs_from_the_last_commit_has_changed() {
        let place = repository();
        let place = place.path();
        fs::create_dir(place.join("sub")).unwrap();
        for name in ["same", "edited", "removed", "sub/deep"] {
            fs::write(place.join(name), "1").unwrap();
        }
        fs::write(place.join(".gitignore"), "ignored\n").unwrap();
        commit(place, "first");
        fs::write(place.join("edited"), "2").unwrap();
        fs::write(place.join("new"), "").unwrap();
        fs::write(place.join("ignored"), "").unwrap();
        fs::write(place.join("sub/deep"), "2").unwrap();
        fs::remove_file(place.join("removed")).unwrap();
        let mut found = changed_paths(place, None).unwrap().unwrap();
        found.sort();
        assert_eq!(found, ["edited", "new", "removed", "sub/deep"]);
        let below = changed_paths(&place.join("sub"), None).unwrap().unwrap();
        assert_eq!(below, ["deep"]);
    }

    #[test]
    fn a_named_revision_is_compared_with() {
        let place = repository();
        let place = place.path();
        fs::write(place.join("a"), "1").unwrap();
        commit(place, "first");
        git(place, &["branch", "base"]).unwrap();
        fs::write(place.join("b"), "1").unwrap();
        commit(place, "second");
        assert_eq!(
            changed_paths(place, None).unwrap().unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(changed_paths(place, Some("base")).unwrap().unwrap(), ["b"]);
        assert!(changed_paths(place, Some("nonsense")).is_err());
        assert!(changed_paths(place, Some("--output=x")).is_err());
    }

    #[test]
    fn without_a_repository_nothing_can_be_told() {
        let place = tempfile::tempdir_in("/tmp").unwrap();
        assert_eq!(changed_paths(place.path(), None).unwrap(), None);
    }
}
