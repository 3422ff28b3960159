//! What a daemon says when it cannot pull.

use bollard::errors::Error as ClientError;
use hm_vm_core::Error;
use hm_vm_oci::{Platform, Reference};

use crate::error::DockerError;

/// What was being pulled.
pub(super) struct Pulling<'a> {
    /// As the user wrote it.
    pub(super) name: &'a str,
    pub(super) reference: &'a Reference,
    /// `None` where the daemon chooses.
    pub(super) platform: Option<&'a Platform>,
    /// Whether a login was sent along.
    pub(super) with_login: bool,
    /// Why there may be none.
    pub(super) troubles: &'a [String],
}

/// Words of a registry that does not have the image, or does not say so to everybody.
const MISSING: [&str; 7] = [
    "manifest unknown",
    "name unknown",
    "pull access denied",
    "repository does not exist",
    "requested access to the resource is denied",
    "no such image",
    "not found",
];
/// Words of a registry that wants to know who asks.
const LOGIN: [&str; 5] = [
    "no basic auth credentials",
    "unauthorized",
    "authentication required",
    "incorrect username or password",
    "invalid username/password",
];
/// Words about an index without an image that fits.
const PLATFORM: [&str; 3] = [
    "no matching manifest",
    "no image found in manifest list",
    "no image found in image index",
];

impl Pulling<'_> {
    fn doing(&self) -> String {
        format!("pulling {}", self.reference)
    }

    /// A failure of a request, or one that came while its answer was read.
    pub(super) fn of_client(&self, error: ClientError) -> anyhow::Error {
        match error {
            ClientError::DockerStreamError { error } => self.of_words(None, &error),
            ClientError::DockerResponseServerError {
                status_code,
                message,
            } => self.of_words(Some(status_code), &words(&message)),
            source => DockerError::Connection {
                doing: self.doing(),
                source,
            }
            .contract(),
        }
    }

    /// A failure in the daemon's own words.
    fn of_words(&self, status: Option<u16>, message: &str) -> anyhow::Error {
        let text = message.to_ascii_lowercase();
        let is = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let failed = |doing: String| DockerError::Failed {
            doing,
            message: message.to_owned(),
        };
        if is(&PLATFORM) {
            let wanted = match self.platform {
                Some(platform) => platform.to_string(),
                None => "the daemon's platform".to_owned(),
            };
            let error = Error::InvalidInput {
                what: format!("image {:?}", self.name),
                reason: format!("the registry does not have it for {wanted}, which is asked for"),
            };
            return anyhow::Error::new(error).context(failed(self.doing()).to_string());
        }
        if is(&LOGIN) {
            let advice = self.login_advice();
            return anyhow::Error::new(failed(self.doing())).context(advice);
        }
        if status == Some(404) || is(&MISSING) {
            let error = Error::ImageNotFound {
                image: self.name.to_owned(),
            };
            let told = failed(self.doing()).to_string();
            return anyhow::Error::new(error).context(match self.troubles {
                [] => told,
                troubles => format!("{told} ({})", troubles.join("; ")),
            });
        }
        failed(self.doing()).contract()
    }

    fn login_advice(&self) -> String {
        let registry = self.reference.registry();
        let advice = if self.with_login {
            format!(
                "{registry} refuses the login that is there for it: renew it with `docker login {registry}`"
            )
        } else {
            format!(
                "{registry} wants a login: `docker login {registry}` or `podman login {registry}`"
            )
        };
        match self.troubles {
            [] => advice,
            troubles => format!("{advice} ({})", troubles.join("; ")),
        }
    }
}

/// Podman answers a failure with the lines of a pull.
fn words(message: &str) -> String {
    let mut lines = message.lines().rev().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = ["error", "message", "cause"]
            .iter()
            .find_map(|key| line.get(key)?.as_str())?;
        Some(text.to_owned())
    });
    lines.next().unwrap_or_else(|| message.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: Option<u16>, message: &str) -> anyhow::Error {
        let pulling = Pulling {
            name: "x",
            reference: &"x".parse().unwrap(),
            platform: Some(&"linux/arm64".parse().unwrap()),
            with_login: false,
            troubles: &["the helper is broken".to_owned()],
        };
        pulling.of_words(status, message)
    }

    #[test]
    fn failures_are_told_apart_by_the_daemons_words() {
        for (status, message) in [
            (
                None,
                "manifest for x:latest not found: manifest unknown: manifest unknown",
            ),
            (
                Some(404),
                "pull access denied for x, repository does not exist or may require 'docker login': denied",
            ),
            (Some(404), "anything"),
            (
                Some(500),
                "initializing source docker://x:latest: reading manifest latest in h/x: name unknown",
            ),
        ] {
            let error = of(status, message);
            let found = error.downcast_ref::<Error>();
            assert!(
                matches!(found, Some(Error::ImageNotFound { image }) if image == "x"),
                "{error:?}"
            );
            let told = format!("{error:#}");
            assert!(
                told.contains(message) && told.contains("helper is broken"),
                "{told}"
            );
        }
        let platform = of(
            None,
            "no matching manifest for linux/arm64/v8 in the manifest list entries",
        );
        let found = platform.downcast_ref::<Error>();
        assert!(
            matches!(found, Some(Error::InvalidInput { .. })),
            "{platform:?}"
        );
        assert!(format!("{platform:#}").contains("linux/arm64, which is asked for"));

        let login = of(
            Some(500),
            "Get http://h/v2/x/manifests/1: no basic auth credentials",
        );
        assert!(login.downcast_ref::<Error>().is_none(), "{login:?}");
        let told = format!("{login:#}");
        assert!(
            told.contains("`docker login docker.io`") && told.contains("helper is broken"),
            "{told}"
        );

        let full = of(None, "write /var/lib/docker/tmp/x: no space left on device");
        assert!(
            matches!(full.downcast_ref::<Error>(), Some(Error::NoSpace { .. })),
            "{full:?}"
        );
        let other = of(None, "dial tcp: lookup h: no such host");
        assert!(other.downcast_ref::<Error>().is_none(), "{other:?}");
    }

    #[test]
    fn podmans_lines_are_read() {
        assert_eq!(words("plain words \n"), "plain words");
        let lines =
            "{\"status\":\"Pulling\"}\n{\"errorDetail\":{\"message\":\"m\"},\"error\":\"no\"}\n";
        assert_eq!(words(lines), "no");
    }
}
