//! The one door to the environment of the process.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hm_vm::oci::{CredentialFiles, Proxies};

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
    /// The first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set says UTF-8.
    pub(crate) utf8: bool,
    /// `HMVM_REMOTE_CACHE`, as `--remote-cache` takes it.
    pub(crate) remote_cache: Option<String>,
    /// Where Docker and Podman keep credentials for registries.
    pub(crate) credentials: CredentialFiles,
    /// What is between this machine and registries.
    pub(crate) proxies: Proxies,
    /// `DOCKER_HOST`.
    pub(crate) docker_host: Option<String>,
    config: Option<PathBuf>,
    config_home: Option<PathBuf>,
    data_home: Option<PathBuf>,
    home: Option<PathBuf>,
}

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigPlace {
    /// Its path.
    pub(crate) path: PathBuf,
    /// `HMVM_CONFIG` says so: it must be there.
    pub(crate) is_named: bool,
}

impl Environment {
    /// Reads it. A variable that is set to nothing counts as not set.
    pub(crate) fn read() -> Self {
        Self {
            store: path("HMVM_STORE"),
            log: text("HMVM_LOG"),
            no_color: variable("NO_COLOR").is_some(),
            term: text("TERM"),
            utf8: ["LC_ALL", "LC_CTYPE", "LANG"]
                .into_iter()
                .find_map(text)
                .is_some_and(|locale| names_utf8(&locale)),
            remote_cache: text("HMVM_REMOTE_CACHE"),
            credentials: CredentialFiles::standard(variable),
            proxies: proxies(),
            docker_host: text("DOCKER_HOST"),
            config: path("HMVM_CONFIG"),
            config_home: path("XDG_CONFIG_HOME"),
            data_home: path("XDG_DATA_HOME"),
            home: path("HOME"),
        }
    }

    /// The configuration file: `HMVM_CONFIG`, `$XDG_CONFIG_HOME/hm-vm/config.toml`, or
    /// `~/.config/hm-vm/config.toml`; absolute. `None` where there is no place for one.
    pub(crate) fn config_place(&self) -> Result<Option<ConfigPlace>, Problem> {
        if let Some(named) = &self.config {
            return Ok(Some(ConfigPlace {
                path: absolute(named)?,
                is_named: true,
            }));
        }
        let config_home = self.config_home.clone().filter(|path| path.is_absolute());
        let home = || self.home.as_ref().map(|home| home.join(".config"));
        let directory = config_home.or_else(home).filter(|path| path.is_absolute());
        Ok(directory.map(|directory| ConfigPlace {
            path: directory.join("hm-vm/config.toml"),
            is_named: false,
        }))
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

/// The usual variables, in small letters or else in capitals.
fn proxies() -> Proxies {
    let either = |small: &str| text(small).or_else(|| text(&small.to_ascii_uppercase()));
    Proxies {
        https: either("https_proxy"),
        http: either("http_proxy"),
        all: either("all_proxy"),
        no_proxy: either("no_proxy"),
    }
}

fn names_utf8(locale: &str) -> bool {
    let (_, charset) = locale.split_once('.').unwrap_or_default();
    let charset = charset.split('@').next().unwrap_or_default();
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
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

/// The whole environment, for the conditions of pipelines. What is not UTF-8 is left out.
pub(crate) fn all() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The options that the program was started with, for records. What is not UTF-8 is shown with replacements.
pub(crate) fn arguments() -> Vec<String> {
    env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect()
}

/// The value of a variable that holds a secret.
pub(crate) fn secret(name: &str) -> Option<Vec<u8>> {
    env::var_os(name).map(OsString::into_encoded_bytes)
}

/// The user's home.
pub(crate) fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from)
}

fn text(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

fn path(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from)
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
    fn a_locale_says_its_character_set() {
        for locale in ["C.UTF-8", "de_DE.utf8@euro"] {
            assert!(names_utf8(locale), "{locale}");
        }
        for locale in ["", "C", "POSIX", "de_DE.ISO-8859-1", "UTF-8"] {
            assert!(!names_utf8(locale), "{locale}");
        }
    }

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

    #[test]
    fn the_configuration_is_where_the_first_of_them_says() {
        let mut environment = Environment {
            config: Some("/named.toml".into()),
            config_home: Some("/config".into()),
            home: Some("/home/u".into()),
            ..Environment::default()
        };
        let place = |environment: &Environment| {
            let place = environment.config_place().expect("a working directory");
            place.map(|place| (place.path, place.is_named))
        };
        let expected = |path: &str, is_named| Some((PathBuf::from(path), is_named));
        assert_eq!(place(&environment), expected("/named.toml", true));
        environment.config = None;
        let usual = "/config/hm-vm/config.toml";
        assert_eq!(place(&environment), expected(usual, false));
        environment.config_home = Some("relative".into());
        let usual = "/home/u/.config/hm-vm/config.toml";
        assert_eq!(place(&environment), expected(usual, false));
        environment.home = None;
        assert_eq!(place(&environment), None);
    }
}
