//! The format of Docker's `config.json` and Podman's `auth.json`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::secret::{Credential, Secret};

/// What the name of Docker Hub is in these files, and for helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Some put no padding behind.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct File {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Where to look next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// This is it.
    Here(Credential),
    /// The entry is there, but says nothing that can be read.
    Broken(String),
    /// A helper of this name knows it under this server's name.
    Helper { name: &'a str, server: String },
}

impl File {
    /// Places to look at for a repository of a registry, the most specific first.
    pub(super) fn places<'a>(&'a self, registry: &str, repository: &str) -> Vec<Place<'a>> {
        let keys = keys(registry, repository);
        let mut places = Vec::new();
        let helper = |name: &'a String, key: &str| {
            (!name.is_empty()).then(|| Place::Helper {
                name,
                server: server_name(key),
            })
        };
        for key in &keys {
            places.extend(find(&self.cred_helpers, key).and_then(|name| helper(name, key)));
            places.extend(find(&self.auths, key).and_then(|entry| entry.place(key)));
        }
        if let Some(store) = &self.creds_store {
            places.extend(helper(store, registry));
        }
        places
    }
}

impl Entry {
    fn place(&self, key: &str) -> Option<Place<'static>> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.registrytoken) {
            return Some(Place::Here(Credential::Bearer(Secret::new(token))));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Some(Place::Here(Credential::Identity(Secret::new(token))));
        }
        if let Some(auth) = filled(&self.auth) {
            return Some(decode(&auth).map_or_else(
                || {
                    Place::Broken(format!(
                        "the entry for {key} is not NAME:PASSWORD in base64"
                    ))
                },
                Place::Here,
            ));
        }
        let (user, password) = (filled(&self.username)?, filled(&self.password)?);
        Some(Place::Here(Credential::Password {
            user,
            password: Secret::new(password),
        }))
    }
}

fn decode(auth: &str) -> Option<Credential> {
    let bytes = BASE64.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    // Docker pads with NUL bytes.
    let password = password.trim_matches('\0');
    Some(if user == super::helper::TOKEN_USER {
        Credential::Identity(Secret::new(password))
    } else {
        Credential::Password {
            user: user.to_owned(),
            password: Secret::new(password),
        }
    })
}

/// `host/a/b`, `host/a`, `host`.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let full = format!("{registry}/{repository}");
    let mut keys = vec![full.clone()];
    keys.extend(
        full.rmatch_indices('/')
            .map(|(at, _)| full[..at].to_owned()),
    );
    keys
}

/// The entry of a key, in whatever form the key is written.
fn find<'a, T>(entries: &'a Option<BTreeMap<String, T>>, key: &str) -> Option<&'a T> {
    let entries = entries.as_ref()?;
    entries.get(key).or_else(|| {
        let same = |(written, _): &(&String, &T)| normal(written) == normal(key);
        entries.iter().find(same).map(|(_, entry)| entry)
    })
}

/// A key without the forms that older versions wrote: `https://host/v1/`. Docker Hub has one name then.
fn normal(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let text = match bare {
        // Only a host is written as an URL.
        Some(url) => url.split('/').next().unwrap_or(url),
        None => key.trim_end_matches('/'),
    };
    let (host, rest) = match text.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (text, None),
    };
    let host = if HUB_NAMES.contains(&host) {
        HUB_NAMES[0]
    } else {
        host
    };
    match rest {
        Some("v1" | "v2") | None => host.to_owned(),
        Some(rest) => format!("{host}/{rest}"),
    }
}

/// What helpers call a server.
fn server_name(key: &str) -> String {
    if HUB_NAMES.contains(&key) {
        HUB_KEY.to_owned()
    } else {
        key.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        serde_json::from_str(text).unwrap()
    }

    fn user(place: &Place<'_>) -> String {
        match place {
            Place::Here(Credential::Password { user, .. }) => user.clone(),
            place => panic!("{place:?}"),
        }
    }

    #[test]
    fn the_most_specific_entry_is_the_first() {
        // u1:p, u2:p, u3:p
        let file = file(
            r#"{"auths": {"h:5000": {"auth": "dTE6cA=="}, "h:5000/a": {"auth": "dTI6cA"},
                "h:5000/a/b": {"username": "u3", "password": "p"}, "h:5000/a/x": {"auth": "dTE6cA=="}}}"#,
        );
        let users = |repository: &str| -> Vec<String> {
            let places = file.places("h:5000", repository);
            places.iter().map(user).collect()
        };
        assert_eq!(users("a/b"), ["u3", "u2", "u1"]);
        assert_eq!(users("a/c"), ["u2", "u1"]);
        assert_eq!(users("ab"), ["u1"]);
        assert!(file.places("h", "a/b").is_empty());
    }

    #[test]
    fn docker_hub_has_many_names() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
            "https://registry-1.docker.io",
        ] {
            let file = file(&format!(
                r#"{{"auths": {{"{key}": {{"auth": "dTE6cA=="}}}}}}"#
            ));
            let places = file.places("docker.io", "library/alpine");
            assert_eq!(places.iter().map(user).collect::<Vec<_>>(), ["u1"], "{key}");
        }
        let file = file(r#"{"credsStore": "desktop", "auths": {"docker.io": {}}}"#);
        let expected = Place::Helper {
            name: "desktop",
            server: "https://index.docker.io/v1/".to_owned(),
        };
        assert_eq!(file.places("docker.io", "library/x"), [expected]);
    }

    #[test]
    fn helpers_come_before_entries_and_the_store_last() {
        let file = file(
            r#"{"credsStore": "all", "credHelpers": {"h": "mine"}, "auths": {"https://h/v1/": {"auth": "dTE6cA=="}}}"#,
        );
        let helper = |name| Place::Helper {
            name,
            server: "h".to_owned(),
        };
        let places = file.places("h", "x");
        assert_eq!(places.len(), 3);
        assert_eq!((&places[0], &places[2]), (&helper("mine"), &helper("all")));
    }

    #[test]
    fn tokens_are_not_passwords() {
        let file = file(
            r#"{"auths": {"h": {"auth": "dTE6cA==", "identitytoken": "t"}, "i": {"registrytoken": "r"},
                "j": {"auth": "PHRva2VuPjpw"}, "k": {"auth": "!"}}}"#,
        );
        let place = |host: &str| file.places(host, "x").remove(0);
        let identity = |token| Place::Here(Credential::Identity(Secret::new(token)));
        assert_eq!(place("h"), identity("t"));
        assert_eq!(
            place("i"),
            Place::Here(Credential::Bearer(Secret::new("r")))
        );
        assert_eq!(place("j"), identity("p"));
        assert!(matches!(place("k"), Place::Broken(_)));
    }
}
