//! Names of images as Docker's users write them.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, OciError};

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Its older name.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Who owns the repositories there that name no user.
const OFFICIAL_USER: &str = "library";
const DEFAULT_TAG: &str = "latest";
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

/// A name of an image: `alpine`, `alpine:3`, `localhost:5000/x`, `registry.example/o/r:tag@sha256:…`.
///
/// Without a registry it is Docker Hub's (`docker.io`), there without a user `library`'s; without tag and digest
/// the tag is `latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
}

impl Reference {
    /// Host of the registry, with its port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository there: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; a reference with a digest may have none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; when there is one, the tag is only for people.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

/// In full: `docker.io/library/alpine:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// By Docker's rules, the grammar of `distribution/reference`. Only a first part with a `.`, a `:` or an upper-case
/// letter, or `localhost`, is a registry.
impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        parse(text).map_err(|reason| OciError::invalid(format!("image name {text:?}"), reason))
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err("64 hexadecimal digits are an image's id, not a name".to_owned());
    }
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) => (name, Some(parse_digest(digest)?)),
    };
    let (registry, rest) = split_registry(name);
    let (path, tag) = match rest.split_once(':') {
        None => (rest, None),
        Some((path, tag)) => (path, Some(tag)),
    };
    check_registry(registry)?;
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        check_path(path)?;
        format!("{OFFICIAL_USER}/{path}")
    } else {
        check_path(path)?;
        path.to_owned()
    };
    if repository.len() > LONGEST_REPOSITORY {
        return Err(format!(
            "its repository is longer than {LONGEST_REPOSITORY} characters"
        ));
    }
    let tag = match tag {
        Some(tag) => {
            check_tag(tag)?;
            Some(tag.to_owned())
        }
        None if digest.is_none() => Some(DEFAULT_TAG.to_owned()),
        None => None,
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// The registry, and what follows it.
fn split_registry(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_REGISTRY, name);
    };
    if first == LEGACY_REGISTRY {
        return (DEFAULT_REGISTRY, rest);
    }
    let is_registry = first == "localhost"
        || first.contains(['.', ':'])
        // No user's name has upper case, so that this can only be a host.
        || first.chars().any(char::is_uppercase);
    if is_registry {
        (first, rest)
    } else {
        (DEFAULT_REGISTRY, name)
    }
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err(format!("{registry:?} has no \"]\" after its address"));
        };
        if address.is_empty()
            || !address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        {
            return Err(format!("{address:?} is no IPv6 address"));
        }
        match after.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if after.is_empty() => (None, None),
            None => return Err(format!("{registry:?} is no host")),
        }
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        }
    };
    if host.is_some_and(|host| !host.split('.').all(is_host_part)) {
        return Err(format!("{registry:?} is no host"));
    }
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("the port of {registry:?} is no number"));
    }
    Ok(())
}

fn is_host_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('-')
        && !part.ends_with('-')
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("it names no repository".to_owned());
    }
    if path.chars().any(char::is_uppercase) {
        return Err(format!(
            "the repository {path:?} has upper-case letters; only lower case is allowed"
        ));
    }
    match path.split('/').find(|part| !is_path_part(part)) {
        None => Ok(()),
        Some("") => Err("two \"/\" have nothing between or after them".to_owned()),
        Some(part) => Err(format!(
            "{part:?} may have only lower-case letters and digits, with one of . _ __ or dashes between them"
        )),
    }
}

/// Letters and digits, with a separator between each two groups: `.`, `_`, `__`, or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let separators_are_right = bytes
        .split(|byte| is_word(*byte))
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        });
    is_word(first) && is_word(last) && separators_are_right
}

fn check_tag(tag: &str) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if tag.is_empty() {
        return Err("its tag is empty".to_owned());
    }
    if tag.len() > LONGEST_TAG {
        return Err(format!("its tag is longer than {LONGEST_TAG} characters"));
    }
    let rest_is_right = tag
        .bytes()
        .all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
    if !is_word(tag.as_bytes()[0]) || !rest_is_right {
        return Err(format!(
            "the tag {tag:?} may have only letters, digits, \"_\", \".\" and \"-\", and begins with none of the last two"
        ));
    }
    Ok(())
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error: OciError| match error {
        OciError::Invalid { reason, .. } => format!("its digest {text:?}: {reason}"),
        error => error.to_string(),
    })
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    fn reason(text: &str) -> String {
        text.parse::<Reference>().unwrap_err().to_string()
    }

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        for (text, expected) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/alpine:3", "docker.io/library/alpine:3"),
            ("index.docker.io/o/r", "docker.io/o/r:latest"),
            ("user/x", "docker.io/user/x:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("local/x", "docker.io/local/x:latest"),
            ("Host/x", "Host/x:latest"),
            ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080"),
            ("test.com:tag", "docker.io/library/test.com:tag"),
            ("test:5000/repo", "test:5000/repo:latest"),
            ("127.0.0.1:5000/a/b:T_1.x-y", "127.0.0.1:5000/a/b:T_1.x-y"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("[fd00:1:2::3]/x:1", "[fd00:1:2::3]/x:1"),
            ("a-b---c/d__e.f_g", "docker.io/a-b---c/d__e.f_g:latest"),
            ("xn--n3h.com/myimage:a", "xn--n3h.com/myimage:a"),
        ] {
            assert_eq!(full(text), expected, "{text}");
        }
        let by_digest = format!("alpine@{DIGEST}");
        assert_eq!(full(&by_digest), format!("docker.io/library/{by_digest}"));
        let by_both = format!("registry.example/o/r:tag@{DIGEST}");
        assert_eq!(full(&by_both), by_both);
    }

    #[test]
    fn wrong_names_are_refused_with_a_reason() {
        for (text, part) in [
            ("", "empty"),
            (":tag", "names no repository"),
            ("Alpine", "upper-case"),
            ("o/R:tag", "upper-case"),
            ("x:", "tag is empty"),
            ("x:-a", "tag"),
            ("x:a/b:c", "is no number"),
            ("a//b", "nothing between"),
            ("a/", "nothing between"),
            ("/a", "nothing between"),
            ("a/-b", "only lower-case letters"),
            ("a/b-", "only lower-case letters"),
            ("a/b..c", "only lower-case letters"),
            ("a/b___c", "only lower-case letters"),
            ("a/b._c", "only lower-case letters"),
            ("aa/asdf$$^/aa", "only lower-case letters"),
            ("-foo.com/bar", "is no host"),
            ("foo_bar.com/x", "is no host"),
            ("host.:80/x", "is no host"),
            ("host:x/x", "is no number"),
            ("[::1/x", "no \"]\""),
            ("[fe80::1%eth0]/x", "no IPv6 address"),
            ("[]:5000/x", "no IPv6 address"),
            ("x@", "digest"),
            ("x@sha512:00", "only sha256"),
            ("x@sha256:12", "64 lower-case"),
            ("https://host/x", "is no number"),
            (&DIGEST[7..], "image's id"),
        ] {
            assert!(reason(text).contains(part), "{text}: {}", reason(text));
        }
        assert!(full(&format!("x:{}", "t".repeat(128))).ends_with('t'));
        assert!(reason(&format!("x:{}", "t".repeat(129))).contains("longer than 128"));
        assert!(full(&format!("h.x/{}", "r".repeat(255))).starts_with("h.x/r"));
        assert!(reason(&format!("h.x/{}", "r".repeat(256))).contains("longer than 255"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            registry in r"(([a-zA-Z0-9]{1,4}(\.[a-z0-9]{1,3}){1,2}|\[[0-9a-f]{0,3}:[0-9a-f:]{1,6}\]|localhost)(:[0-9]{1,5})?/)?",
            path in r"[a-z0-9]{1,5}((_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}(\.[a-z0-9]{1,3}){0,2}){0,2}",
            tag in r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?",
            with_digest in any::<bool>(),
        ) {
            let digest = if with_digest { format!("@{DIGEST}") } else { String::new() };
            let text = format!("{registry}{path}{tag}{digest}");
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
        }

        #[test]
        fn nothing_that_is_read_changes_when_it_is_written(text in r"[a-zA-Z0-9.:/@_\[\]-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            }
        }
    }
}
