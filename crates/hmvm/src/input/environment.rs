//! The one door to the environment of the process.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::Problem;
use crate::input::values::EnvArgument;
use crate::output::sanitize::sanitize_path;

/// What the program takes from its environment, read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `HMVM_STORE`.
    pub(crate) store: Option<PathBuf>,
    /// `HMVM_LOG`: what is logged, as in `hm_vm=debug`.
    pub(crate) log: Option<String>,
    /// `NO_COLOR` is set to something.
    pub(crate) no_color: bool,
    /// `TERM`.
    pub(crate) term: Option<String>,
    data_home: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl Environment {
    /// Reads it. A variable that is set to nothing counts as not set.
    pub(crate) fn read() -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        Self {
            store: variable("HMVM_STORE").map(PathBuf::from),
            log: text("HMVM_LOG"),
            no_color: variable("NO_COLOR").is_some(),
            term: text("TERM"),
            data_home: variable("XDG_DATA_HOME").map(PathBuf::from),
            home: variable("HOME").map(PathBuf::from),
        }
    }

    /// Directory of the store: the option, `HMVM_STORE`, `$XDG_DATA_HOME/hm-vm`, or
    /// `~/.local/share/hm-vm`; absolute.
    pub(crate) fn store_root(&self, option: Option<&Path>) -> Result<PathBuf, Problem> {
        if let Some(given) = option.or(self.store.as_deref()) {
            return absolute(given);
        }
        // The XDG specification says that relative paths are to be ignored.
        let data_home = self.data_home.clone().filter(|path| path.is_absolute());
        let home = || self.home.as_ref().map(|home| home.join(".local/share"));
        match data_home.or_else(home).filter(|path| path.is_absolute()) {
            Some(directory) => Ok(directory.join("hm-vm")),
            None => Err(Problem::new(
                "no place for the store: neither XDG_DATA_HOME nor HOME is set",
            )
            .hint("give one: --store DIR, or HMVM_STORE=DIR")),
        }
    }
}

/// A path as it is seen from the root.
///
/// # Errors
///
/// It is relative, and the working directory is gone.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    std::path::absolute(path).map_err(|error| {
        let shown = sanitize_path(path);
        if error.kind() == std::io::ErrorKind::NotFound {
            return Problem::new(format!("{shown}: the working directory of hmvm is gone"))
                .hint("go to a directory that exists, or write the path from the root");
        }
        Problem::new(format!("{shown}: {error}")).hint("write the path from the root")
    })
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Turns the `-e` options into pairs; values that are not given come from the environment.
pub(crate) fn declared(arguments: &[EnvArgument]) -> Result<Vec<(String, String)>, Problem> {
    arguments
        .iter()
        .map(|argument| {
            let name = argument.name.clone();
            match &argument.value {
                Some(value) => Ok((name, value.clone())),
                None => taken_over(&name).map(|value| (name, value)),
            }
        })
        .collect()
}

fn taken_over(name: &str) -> Result<String, Problem> {
    let value = env::var_os(name).ok_or_else(|| {
        Problem::new(format!("-e {name}: the variable is not set here"))
            .hint(format!("give it a value: -e {name}=VALUE"))
    })?;
    value
        .into_string()
        .map_err(|_| Problem::new(format!("-e {name}: the value it has here is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_where_the_first_of_them_says() {
        let mut environment = Environment {
            store: Some("/env".into()),
            data_home: Some("/data".into()),
            home: Some("/home/u".into()),
            ..Environment::default()
        };
        let root = |environment: &Environment, option: Option<&str>| {
            environment
                .store_root(option.map(Path::new))
                .expect("a place")
        };
        assert_eq!(root(&environment, Some("/given")), Path::new("/given"));
        assert_eq!(root(&environment, None), Path::new("/env"));
        environment.store = None;
        assert_eq!(root(&environment, None), Path::new("/data/hm-vm"));
        environment.data_home = Some("relative".into());
        assert_eq!(
            root(&environment, None),
            Path::new("/home/u/.local/share/hm-vm")
        );
        environment.home = None;
        assert!(environment.store_root(None).is_err());
    }
}
