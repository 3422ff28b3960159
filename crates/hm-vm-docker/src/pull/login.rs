//! Names and passwords for registries, as daemons are told them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::auth::DockerCredentials;
use bollard::{BollardRequest, Docker};
use hm_vm_oci::{Credential, CredentialFiles, Reference};

/// What Docker Hub is called where names and passwords are kept.
const HUB: &str = "https://index.docker.io/v1/";

/// What a user has for a registry.
#[derive(Default)]
pub(super) struct Login {
    /// The value of the header that brings it.
    header: Option<String>,
    /// What could not be read or asked, for messages.
    pub(super) troubles: Vec<String>,
}

impl Login {
    /// Looks for it. May run helpers, which takes up to 30 s for each.
    pub(super) async fn find(files: CredentialFiles, reference: Reference) -> Result<Self> {
        let look = move || {
            let found = files.find(reference.registry(), reference.repository());
            let header = found
                .credential
                .map(|credential| header(&credential, reference.registry()));
            Ok(Self {
                header: header.transpose()?,
                troubles: found.troubles,
            })
        };
        tokio::task::spawn_blocking(look)
            .await
            .context("looking for names and passwords for registries")?
    }

    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        self.header.is_some()
    }

    /// A client that brings it along.
    ///
    /// Not by the client's own option: that writes it in the usual base64, and daemons read the one for URLs. What has a `+` or
    /// `/` in the usual one does not arrive then, and nobody says so.
    pub(super) fn bring(&self, docker: &Docker) -> Docker {
        let docker = docker.clone();
        let Some(header) = self.header.clone() else {
            return docker;
        };
        let header: Arc<str> = header.into();
        docker.with_request_modifier(move |mut request: BollardRequest| {
            // Base64 is always a valid value.
            if let Ok(value) = header.parse() {
                request.headers_mut().insert("X-Registry-Auth", value);
            }
            request
        })
    }
}

fn header(credential: &Credential, registry: &str) -> Result<String> {
    let server = if registry == "docker.io" {
        HUB
    } else {
        registry
    };
    let mut told = DockerCredentials {
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    };
    match credential {
        Credential::Password { user, password } => {
            told.username = Some(user.clone());
            told.password = Some(password.expose().to_owned());
        }
        Credential::Identity(token) => told.identitytoken = Some(token.expose().to_owned()),
        Credential::Bearer(token) => told.registrytoken = Some(token.expose().to_owned()),
    }
    let text = serde_json::to_string(&told).context("writing down a login")?;
    Ok(URL_SAFE.encode(text))
}

#[cfg(test)]
mod tests {
    use hm_vm_oci::Secret;

    use super::*;

    #[test]
    fn all_bytes_of_a_password_arrive() {
        let credential = Credential::Password {
            user: "me".into(),
            password: Secret::new("???>>>~~~ü"),
        };
        let text = header(&credential, "docker.io").unwrap();
        assert!(!text.contains(['+', '/']), "{text}");
        let told: DockerCredentials =
            serde_json::from_slice(&URL_SAFE.decode(&text).unwrap()).unwrap();
        assert_eq!(told.username.as_deref(), Some("me"));
        assert_eq!(told.password.as_deref(), Some("???>>>~~~ü"));
        assert_eq!(told.serveraddress.as_deref(), Some(HUB));

        let text = header(&Credential::Identity(Secret::new("t")), "h:5").unwrap();
        let told: DockerCredentials =
            serde_json::from_slice(&URL_SAFE.decode(&text).unwrap()).unwrap();
        assert_eq!(told.identitytoken.as_deref(), Some("t"));
        assert_eq!(
            (told.username, told.serveraddress.as_deref()),
            (None, Some("h:5"))
        );
    }
}
