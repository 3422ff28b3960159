//! What an image's configuration says of the commands that run in it.

use std::path::{Component, Path};

use hm_vm_oci::ImageConfig;
use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;

/// The kernel takes no longer string in an environment (`MAX_ARG_STRLEN`).
const LONGEST_VARIABLE: usize = 128 * 1024 - 1;

/// All variables of an image together: half of what commands and their environment may have.
const MOST_VARIABLES: usize = 512 * 1024;

/// Paths of the kernel end at 4096.
const LONGEST_PATH: usize = 4000;

/// Names of users and groups.
const LONGEST_USER: usize = 512;

/// What a command gets that says nothing of it: from the image's configuration. Empty for images without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// Variables over the backend's own, in the image's order; of two with one name the later counts.
    pub env: Vec<(String, String)>,
    /// Who runs commands: `NAME`, `UID`, or either with `:GROUP`.
    pub user: Option<String>,
    /// Where they run: absolute, without `.` and `..`. It need not exist.
    pub working_dir: Option<String>,
}

impl ImageDefaults {
    /// Those of a configuration. What makes no sense to Docker either is left out: variables without a `=`, or
    /// without a name.
    ///
    /// # Errors
    ///
    /// Why no command could run with them.
    pub(crate) fn of(config: &ImageConfig) -> Result<Self, String> {
        let Some(execution) = &config.config else {
            return Ok(Self::default());
        };
        let mut bytes = 0;
        let mut env = Vec::new();
        for variable in execution.env.iter().flatten() {
            let Some((name, value)) = variable.split_once('=') else {
                continue;
            };
            if name.is_empty() {
                continue;
            }
            if variable.contains('\0') {
                return Err(format!("the variable {name:?} has a zero byte"));
            }
            bytes += variable.len() + 1;
            if variable.len() > LONGEST_VARIABLE || bytes > MOST_VARIABLES {
                return Err(format!(
                    "with the variable {name:?}, its environment is too large"
                ));
            }
            env.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self {
            env,
            user: user(execution.user.as_deref().unwrap_or(""))?,
            working_dir: directory(execution.working_dir.as_deref().unwrap_or(""))?,
        })
    }

    /// Those of a configuration in the database, which was checked when it came in.
    pub(crate) fn of_stored(config: Option<&str>) -> Self {
        config
            .and_then(|text| ImageConfig::parse(text.as_bytes()).ok())
            .and_then(|config| Self::of(&config).ok())
            .unwrap_or_default()
    }
}

/// Docker takes `1000:` for `1000`, and `:staff` for root in another group.
fn user(text: &str) -> Result<Option<String>, String> {
    if text.len() > LONGEST_USER || text.contains('\0') {
        return Err("its user is no name".to_owned());
    }
    let text = text.strip_suffix(':').unwrap_or(text);
    Ok(match text {
        "" => None,
        text if text.starts_with(':') => Some(format!("0{text}")),
        text => Some(text.to_owned()),
    })
}

fn directory(text: &str) -> Result<Option<String>, String> {
    if text.len() > LONGEST_PATH || text.contains('\0') {
        return Err("its working directory is no path".to_owned());
    }
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = Vec::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(Some(format!("/{}", parts.join("/"))))
}

/// The configuration of the image that a stack began with, as text.
pub(crate) fn config_of_stack(
    connection: &Connection,
    stack: i64,
) -> rusqlite::Result<Option<String>> {
    let found = connection
        .prepare_cached(
            "SELECT config FROM stacks JOIN image_versions ON image_versions.id = version
             WHERE stacks.id = ?1",
        )?
        .query_row([stack], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

/// A configuration that was kept as text.
pub(crate) fn parse_stored(text: Option<String>) -> Result<Option<ImageConfig>, StoreError> {
    let parse = |text: String| ImageConfig::parse(text.as_bytes());
    Ok(text.map(parse).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(execution: &str) -> Result<ImageDefaults, String> {
        let text = format!(r#"{{"rootfs":{{}},"config":{execution}}}"#);
        ImageDefaults::of(&ImageConfig::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn what_an_image_says_is_taken_as_docker_takes_it() {
        let found = defaults(
            r#"{"Env":["A=1","B","=x","C=d=e","A=2"],"User":"1000:","WorkingDir":"/a/./b/../c/"}"#,
        )
        .unwrap();
        let pairs: Vec<(&str, &str)> = (found.env.iter())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, [("A", "1"), ("C", "d=e"), ("A", "2")]);
        assert_eq!(found.user.as_deref(), Some("1000"));
        assert_eq!(found.working_dir.as_deref(), Some("/a/c"));
        let of = |execution: &str| defaults(execution).unwrap();
        assert_eq!(of(r#"{"User":":5"}"#).user.as_deref(), Some("0:5"));
        assert_eq!(of(r#"{"User":":"}"#).user, None);
        let dir = |text: &str| of(&format!(r#"{{"WorkingDir":"{text}"}}"#)).working_dir;
        assert_eq!(dir("a").as_deref(), Some("/a"));
        assert_eq!(dir("/../..").as_deref(), Some("/"));
        assert_eq!(of("null"), ImageDefaults::default());
    }

    #[test]
    fn what_no_command_could_have_is_refused() {
        let long = "x".repeat(LONGEST_VARIABLE);
        let many = vec![format!(r#""A={}""#, "x".repeat(100_000)); 6].join(",");
        for wrong in [
            r#"{"Env":["A=\u0000"]}"#.to_owned(),
            format!(r#"{{"Env":["A={long}"]}}"#),
            format!(r#"{{"Env":[{many}]}}"#),
            r#"{"User":"a\u0000"}"#.to_owned(),
            r#"{"WorkingDir":"/\u0000"}"#.to_owned(),
            format!(r#"{{"WorkingDir":"/{long}"}}"#),
        ] {
            assert!(defaults(&wrong).is_err(), "{wrong:.80}");
        }
    }
}
