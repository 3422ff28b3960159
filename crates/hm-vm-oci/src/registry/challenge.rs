//! What a server asks of us in `WWW-Authenticate`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a server wants to be told who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By name and password.
    Basic,
    /// By a token, which somebody else gives.
    Bearer {
        /// Whom to ask: an URL.
        realm: String,
        /// For whom the token is.
        service: Option<String>,
        /// What the server thinks that we need.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of what an answer offers: tokens before passwords.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer") {
                let value = |name: &str| {
                    let mut found = parameters(rest).into_iter();
                    found.find(|(key, _)| key == name).map(|(_, value)| value)
                };
                if let Some(realm) = value("realm") {
                    return Some(Self::Bearer {
                        realm,
                        service: value("service"),
                        scope: value("scope"),
                    });
                }
            }
        }
        basic
    }
}

/// `name="value", name=value, …`, names in lower case. Ends where it cannot be read.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().to_ascii_lowercase();
        let mut value = String::new();
        let after = after.trim_start();
        let next = if let Some(quoted) = after.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            loop {
                match characters.next() {
                    None => return found,
                    Some((at, '"')) => break &quoted[at + 1..],
                    Some((_, '\\')) => value.extend(characters.next().map(|(_, escaped)| escaped)),
                    Some((_, character)) => value.push(character),
                }
            }
        } else {
            let end = after.find([',', ' ']).unwrap_or(after.len());
            after[..end].clone_into(&mut value);
            &after[end..]
        };
        found.push((name, value));
        rest = next.trim_start_matches([' ', ',']);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        assert_eq!(read(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(read(&["basic"]), Some(Challenge::Basic));
        assert_eq!(
            read(&[
                "Basic realm=\"x\"",
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\""
            ]),
            bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push")),
        );
        assert_eq!(
            read(&["Bearer  Realm=https://a/t , service=\"a \\\"b\\\"\""]),
            bearer("https://a/t", Some("a \"b\""), None),
        );
        for wrong in [
            "",
            "Digest x=y",
            "Bearer",
            "Bearer service=\"s\"",
            "Bearer realm=\"x",
        ] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
    }
}
