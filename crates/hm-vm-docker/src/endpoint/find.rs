//! Which of all places is used.

use std::time::Duration;

use anyhow::Result;
use hm_vm_core::Error;

use super::address::Endpoint;
use super::search::{Candidate, EndpointSearch};
use crate::engine::{self, EngineInfo, EngineKind};

/// How long a daemon may take to say who it is. Those that systemd starts on the first connection need some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

impl EndpointSearch {
    /// The first place where somebody answers who can be used. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::BackendUnavailable`] with all places that were tried, why not, and what to do.
    pub fn find(&self) -> Result<Endpoint> {
        let mut tried = Vec::new();
        for candidate in self.candidates() {
            match self.ask(&candidate, PATIENCE) {
                Ok((endpoint, _)) => return Ok(endpoint),
                Err(reason) if candidate.is_final => {
                    tried.push((candidate, reason));
                    break;
                }
                Err(reason) => tried.push((candidate, reason)),
            }
        }
        Err(self.nobody(&tried).into())
    }

    /// Asks who listens at a place; the reason why it cannot be used otherwise.
    pub(crate) fn ask(
        &self,
        candidate: &Candidate,
        patience: Duration,
    ) -> Result<(Endpoint, EngineInfo), String> {
        let endpoint = candidate.endpoint.clone()?;
        let info = engine::ask(&endpoint, patience)?;
        match self.kind() {
            Some(kind) if kind != info.kind => Err(format!(
                "{} answers there, and not {}",
                info.kind.title(),
                kind.title()
            )),
            _ => Ok((endpoint, info)),
        }
    }

    fn nobody(&self, tried: &[(Candidate, String)]) -> Error {
        let places: Vec<_> = tried
            .iter()
            .map(|(candidate, reason)| candidate.refused(reason))
            .collect();
        let is_chosen = tried
            .last()
            .is_some_and(|(candidate, _)| candidate.is_final);
        let kind = self.kind();
        let what = kind.map_or("Docker or Podman", EngineKind::title);
        let advice = if is_chosen {
            String::new()
        } else {
            format!("; {}", advice(kind))
        };
        Error::BackendUnavailable {
            backend: kind.unwrap_or(EngineKind::Docker).name().to_owned(),
            reason: format!(
                "no daemon of {what} can be used: {}{advice}",
                places.join("; ")
            ),
        }
    }
}

/// What a user can do where there is no daemon.
pub(crate) fn advice(kind: Option<EngineKind>) -> &'static str {
    match kind {
        Some(EngineKind::Docker) => {
            "install Docker and start it (`systemctl start docker`, or rootless `systemctl --user start docker`)"
        }
        Some(EngineKind::Podman) => {
            "install Podman and start its service (`systemctl --user start podman.socket`, or `podman system service -t 0`)"
        }
        None => {
            "start Docker (`systemctl start docker`) or Podman's service (`systemctl --user start podman.socket`, or \
             `podman system service -t 0`)"
        }
    }
}

impl Candidate {
    /// For messages: where it is, who says so, and why not.
    pub(crate) fn refused(&self, reason: &str) -> String {
        match &self.endpoint {
            Ok(endpoint) => format!("{endpoint} ({}): {reason}", self.origin),
            Err(_) => format!("{}: {reason}", self.origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(error: &anyhow::Error) -> &str {
        match error.downcast_ref::<Error>() {
            Some(Error::BackendUnavailable { reason, .. }) => reason,
            _ => panic!("{error:?}"),
        }
    }

    #[test]
    fn when_there_is_nobody_all_places_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        std::fs::create_dir_all(root.join("var/run")).unwrap();
        // Bound, and nobody listens any more.
        let refused = root.join("var/run/docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&refused).unwrap());
        std::fs::create_dir_all(root.join("run/podman")).unwrap();
        std::fs::write(root.join("run/podman/podman.sock"), "").unwrap();
        let runtime = root.join("user");
        let search = EndpointSearch::new(|name| {
            (name == "XDG_RUNTIME_DIR").then(|| runtime.clone().into_os_string())
        })
        .in_system(&root);

        let error = search.find().unwrap_err();
        let text = reason(&error);
        for part in [
            "docker.sock (Docker's usual socket): nobody listens there any more",
            "user/docker.sock (the socket of rootless Docker): there is no such socket",
            "podman.sock (Podman's usual socket): it is not a socket",
            "systemctl start docker",
            "podman system service",
        ] {
            assert!(text.contains(part), "{part:?} is missing: {text}");
        }
        let podman = search.clone().only(EngineKind::Podman).find().unwrap_err();
        assert!(
            !reason(&podman).contains("systemctl start docker"),
            "{podman}"
        );
    }

    #[test]
    fn nothing_is_tried_after_a_choice() {
        let search = EndpointSearch::new(|name| {
            (name == "DOCKER_HOST").then(|| "unix:///nowhere/at/all".into())
        });
        let error = search.find().unwrap_err();
        let text = reason(&error);
        assert!(
            text.contains("unix:///nowhere/at/all (DOCKER_HOST): there is no such socket"),
            "{text}"
        );
        assert!(!text.contains("usual socket"), "{text}");
    }
}
