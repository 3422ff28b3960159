//! Where users keep credentials.

use std::ffi::OsString;
use std::fs::File as FsFile;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::format::{File, Place};
use super::helper;
use super::secret::Found;

/// A larger file is nothing that a login has written.
const MOST_BYTES: u64 = 4 << 20;
/// A helper may ask its user for a password.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// The files in which a user's credentials are looked for, the first one first, and where the helpers are that they
/// name. Files that do not exist are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    files: Vec<PathBuf>,
    /// Directories.
    helpers: Vec<PathBuf>,
}

impl CredentialFiles {
    /// These files, and helpers (`docker-credential-NAME`) from these directories.
    pub fn new(
        files: impl IntoIterator<Item = PathBuf>,
        helpers: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        Self {
            files: files.into_iter().collect(),
            helpers: helpers.into_iter().collect(),
        }
    }

    /// Those of Docker and Podman, as the variables of the environment say, which the caller looks up:
    /// `$REGISTRY_AUTH_FILE` alone of Podman's if it is set, else `$XDG_RUNTIME_DIR/containers/auth.json` and
    /// `$XDG_CONFIG_HOME/containers/auth.json` (or `~/.config/…`); then `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`. Helpers are looked for in `$PATH`.
    pub fn standard(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let place = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = place("HOME");
        let mut files = Vec::new();
        if let Some(file) = place("REGISTRY_AUTH_FILE") {
            files.push(file);
        } else {
            let config =
                place("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
            let directories = [place("XDG_RUNTIME_DIR"), config];
            files.extend(
                directories
                    .into_iter()
                    .flatten()
                    .map(|directory| directory.join("containers/auth.json")),
            );
        }
        let docker = place("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker")));
        files.extend(docker.map(|directory| directory.join("config.json")));
        let path = variable("PATH").unwrap_or_default();
        Self {
            files,
            helpers: std::env::split_paths(&path).collect(),
        }
    }

    /// Looks for what a user has for a repository. Runs helpers: waits for each of them for 30 s at most.
    pub fn find(&self, registry: &str, repository: &str) -> Found {
        let mut found = Found::default();
        for path in &self.files {
            let file = match read(path) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(trouble) => {
                    found.troubles.push(trouble);
                    continue;
                }
            };
            for place in file.places(registry, repository) {
                let outcome = match place {
                    Place::Here(credential) => Ok(Some(credential)),
                    Place::Broken(why) => Err(format!("{}: {why}", path.display())),
                    Place::Helper { name, server } => {
                        helper::ask(&self.helpers, name, &server, HELPER_LIMIT)
                    }
                };
                match outcome {
                    Ok(Some(credential)) => {
                        found.credential = Some(credential);
                        return found;
                    }
                    Ok(None) => {}
                    Err(trouble) => found.troubles.push(trouble),
                }
            }
        }
        found
    }
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("reading {}: {why}", path.display());
    let file = match FsFile::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(&error)),
    };
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(failed(&"it is too large"));
    }
    // Podman makes empty files.
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    // serde's own words may hold parts of the content.
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        failed(&format_args!(
            "it is not valid at line {}, column {}",
            error.line(),
            error.column()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_where_the_tools_have_them() {
        let files = |variables: &[(&str, &str)]| {
            let variables: std::collections::HashMap<_, _> = variables.iter().copied().collect();
            let found = CredentialFiles::standard(|name| variables.get(name).map(OsString::from));
            let text = |path: &PathBuf| path.display().to_string();
            found.files.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            files(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/u")]),
            [
                "/run/u/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json"
            ]
        );
        assert_eq!(
            files(&[
                ("HOME", "/h"),
                ("XDG_RUNTIME_DIR", "/run/u"),
                ("REGISTRY_AUTH_FILE", "/a.json"),
                ("DOCKER_CONFIG", "/d"),
            ]),
            ["/a.json", "/d/config.json"]
        );
        assert!(files(&[("HOME", "")]).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = CredentialFiles::new(
            [
                dir.path().join("absent"),
                file("empty", " \n"),
                file("broken", r#"{"auths": {"h": {"auth": "hidden"#),
                file("bad", r#"{"auths": {"h": {"auth": "hidden"}}}"#),
                file(
                    "helper",
                    r#"{"credHelpers": {"h": "no-such-helper", "i": "a/b"}}"#,
                ),
                file("good", r#"{"auths": {"h": {"auth": "dTE6cA=="}}}"#),
            ],
            [],
        );
        let found = files.find("h", "x");
        assert!(found.credential.is_some());
        assert_eq!(found.troubles.len(), 3, "{:?}", found.troubles);
        assert!(!format!("{found:?}").contains("hidden"));
        assert!(found.troubles[2].contains("docker-credential-no-such-helper"));
        assert!(files.find("other", "x").credential.is_none());
        assert!(files.find("i", "x").troubles[1].contains("no name"));
    }
}
