//! All places where a daemon may listen, in their order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::address::{self, Endpoint, TlsFiles, TlsNeed};
use super::contexts;
use crate::engine::EngineKind;

/// The variables that say where daemons listen.
const VARIABLES: [&str; 9] = [
    "CONTAINER_HOST",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "XDG_RUNTIME_DIR",
];

/// Looks for daemons as the command line programs of Docker and Podman do:
///
/// 1. `DOCKER_HOST`, with `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`;
/// 2. the context of `DOCKER_CONTEXT`, or `currentContext` of `$DOCKER_CONFIG/config.json` (`~/.docker/config.json`);
/// 3. Docker's usual sockets: `/var/run/docker.sock`, and the rootless `$XDG_RUNTIME_DIR/docker.sock` and
///    `~/.docker/run/docker.sock`;
/// 4. `CONTAINER_HOST`;
/// 5. Podman's usual sockets: `$XDG_RUNTIME_DIR/podman/podman.sock` and `/run/podman/podman.sock`.
///
/// What a user has chosen (1, 2 and 4) is final: when it cannot be used, that is an error, and nothing behind it is tried.
#[derive(Clone, Debug)]
pub struct EndpointSearch {
    variables: BTreeMap<&'static str, OsString>,
    kind: Option<EngineKind>,
    /// `/`, but in tests.
    system: PathBuf,
}

/// One place where a daemon may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Who names it: `DOCKER_HOST`, `the context "remote"`, `Docker's usual socket`.
    pub origin: String,
    /// Whose places it is one of. Who really answers there may differ: `/var/run/docker.sock` may be Podman's.
    pub kind: EngineKind,
    /// Where it is; or why that cannot be used or told.
    pub endpoint: Result<Endpoint, String>,
    /// Whether the user has chosen it, so that nothing behind it may be tried.
    pub is_final: bool,
}

impl EndpointSearch {
    /// As the variables of an environment say, which the caller looks up. Those that are empty count as not set.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let known = VARIABLES.into_iter().filter_map(|name| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some((name, value))
        });
        Self {
            variables: known.collect(),
            kind: None,
            system: "/".into(),
        }
    }

    /// As the environment of this process says.
    pub fn from_environment() -> Self {
        Self::new(crate::environment::variable_of_login)
    }

    /// Only daemons of this kind.
    ///
    /// For Podman, `CONTAINER_HOST` comes first, and a `DOCKER_HOST` or a socket of Docker's counts when it is Podman that
    /// answers there.
    #[must_use]
    pub fn only(mut self, kind: EngineKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// The kind that is looked for, if not any.
    pub fn kind(&self) -> Option<EngineKind> {
        self.kind
    }

    /// Looks for the sockets of the system below `root`.
    #[cfg(test)]
    pub(crate) fn in_system(mut self, root: &Path) -> Self {
        self.system = root.to_owned();
        self
    }

    /// All places, in their order. Reads the configuration of Docker's client, and asks nobody. Nothing follows a
    /// [final](Candidate::is_final) one.
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut all = match self.kind {
            None => [self.docker(), self.podman()].concat(),
            Some(EngineKind::Docker) => self.docker(),
            Some(EngineKind::Podman) => {
                let mut docker = self.docker();
                for candidate in &mut docker {
                    candidate.is_final = false;
                }
                [self.podman(), docker].concat()
            }
        };
        if let Some(last) = all.iter().position(|candidate| candidate.is_final) {
            all.truncate(last + 1);
        }
        all
    }

    fn docker(&self) -> Vec<Candidate> {
        let mut all: Vec<_> = self
            .docker_host()
            .or_else(|| self.context())
            .into_iter()
            .collect();
        let mut sockets = vec![(
            "Docker's usual socket",
            self.system.join("var/run/docker.sock"),
        )];
        if let Some(runtime) = self.directory("XDG_RUNTIME_DIR") {
            sockets.push(("the socket of rootless Docker", runtime.join("docker.sock")));
        }
        if let Some(home) = self.directory("HOME") {
            let socket = home.join(".docker/run/docker.sock");
            sockets.push(("the socket of the user's own Docker", socket));
        }
        all.extend(usual(EngineKind::Docker, sockets));
        all
    }

    fn podman(&self) -> Vec<Candidate> {
        let mut all: Vec<_> = self.container_host().into_iter().collect();
        let mut sockets = Vec::new();
        if let Some(runtime) = self.directory("XDG_RUNTIME_DIR") {
            let socket = runtime.join("podman/podman.sock");
            sockets.push(("the socket of rootless Podman", socket));
        }
        let socket = self.system.join("run/podman/podman.sock");
        sockets.push(("Podman's usual socket", socket));
        all.extend(usual(EngineKind::Podman, sockets));
        all
    }

    fn docker_host(&self) -> Option<Candidate> {
        let endpoint = self
            .text("DOCKER_HOST")?
            .and_then(|host| address::parse(&host, |need| self.tls(need)));
        Some(chosen("DOCKER_HOST", EngineKind::Docker, endpoint))
    }

    fn container_host(&self) -> Option<Candidate> {
        let endpoint = self
            .text("CONTAINER_HOST")?
            .and_then(|host| address::parse(&host, |need| self.tls(need)));
        Some(chosen("CONTAINER_HOST", EngineKind::Podman, endpoint))
    }

    fn context(&self) -> Option<Candidate> {
        let config = self.config();
        let name = match self.text("DOCKER_CONTEXT") {
            Some(Err(error)) => {
                return Some(chosen("DOCKER_CONTEXT", EngineKind::Docker, Err(error)));
            }
            Some(Ok(name)) if name == contexts::DEFAULT => return None,
            Some(Ok(name)) => name,
            None => match contexts::current(config.as_deref()?) {
                Ok(name) => name?,
                // As Docker's client has it, this does not keep anybody from the usual sockets.
                Err(error) => {
                    let mut broken = chosen(
                        "the configuration of docker",
                        EngineKind::Docker,
                        Err(error),
                    );
                    broken.is_final = false;
                    return Some(broken);
                }
            },
        };
        let endpoint = match config {
            Some(config) => contexts::endpoint(&config, &name),
            None => Err("neither DOCKER_CONFIG nor HOME says where contexts are".to_owned()),
        };
        let origin = format!("the context {name:?}");
        Some(chosen(origin, EngineKind::Docker, endpoint))
    }

    /// Docker's client asks for TLS by one variable, and has its files where another one says.
    fn tls(&self, need: TlsNeed) -> Result<Option<TlsFiles>, String> {
        if !self.variables.contains_key("DOCKER_TLS_VERIFY") && need == TlsNeed::AsSet {
            if self.variables.contains_key("DOCKER_TLS") {
                return Err(
                    "DOCKER_TLS, which is TLS without a check of the daemon's certificate, is not supported: set \
                     DOCKER_TLS_VERIFY=1"
                        .to_owned(),
                );
            }
            return Ok(None);
        }
        let directory = self.directory("DOCKER_CERT_PATH").or_else(|| self.config());
        let directory =
            directory.ok_or("DOCKER_CERT_PATH does not say where the files for TLS are")?;
        TlsFiles::of_directory(&directory).map(Some)
    }

    /// Where Docker's client keeps its configuration.
    fn config(&self) -> Option<PathBuf> {
        let home = || Some(self.directory("HOME")?.join(".docker"));
        self.directory("DOCKER_CONFIG").or_else(home)
    }

    fn directory(&self, variable: &str) -> Option<PathBuf> {
        self.variables.get(variable).map(PathBuf::from)
    }

    fn text(&self, variable: &str) -> Option<Result<String, String>> {
        let value = self.variables.get(variable)?;
        let text = value.to_str().map(str::to_owned);
        Some(text.ok_or_else(|| format!("{} is not UTF-8", Path::new(value).display())))
    }
}

/// As [`from_environment`](EndpointSearch::from_environment).
impl Default for EndpointSearch {
    fn default() -> Self {
        Self::from_environment()
    }
}

fn chosen(
    origin: impl Into<String>,
    kind: EngineKind,
    endpoint: Result<Endpoint, String>,
) -> Candidate {
    Candidate {
        origin: origin.into(),
        kind,
        endpoint,
        is_final: true,
    }
}

fn usual(
    kind: EngineKind,
    sockets: Vec<(&'static str, PathBuf)>,
) -> impl Iterator<Item = Candidate> {
    sockets.into_iter().map(move |(origin, socket)| Candidate {
        origin: origin.to_owned(),
        kind,
        endpoint: Ok(Endpoint::Unix(socket)),
        is_final: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(variables: &[(&str, &str)]) -> EndpointSearch {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        EndpointSearch::new(|name| variables.get(name).map(OsString::from))
    }

    /// `ORIGIN: PLACE`, with a `!` where nothing may follow.
    fn places(search: &EndpointSearch) -> Vec<String> {
        let candidates = search.candidates();
        let place = |candidate: &Candidate| {
            let end = if candidate.is_final { "!" } else { "" };
            match &candidate.endpoint {
                Ok(endpoint) => format!("{endpoint}{end}"),
                Err(error) => format!("{}: {error}{end}", candidate.origin),
            }
        };
        candidates.iter().map(place).collect()
    }

    const DOCKER: [&str; 3] = [
        "unix:///var/run/docker.sock",
        "unix:///run/u/docker.sock",
        "unix:///h/.docker/run/docker.sock",
    ];
    const PODMAN: [&str; 2] = [
        "unix:///run/u/podman/podman.sock",
        "unix:///run/podman/podman.sock",
    ];
    const LOGIN: [(&str, &str); 2] = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/u")];

    fn with(more: &[(&'static str, &'static str)]) -> EndpointSearch {
        search(&[&LOGIN, more].concat())
    }

    #[test]
    fn without_a_choice_the_usual_sockets_are_tried() {
        assert_eq!(places(&with(&[])), [&DOCKER[..], &PODMAN].concat());
        assert_eq!(places(&with(&[]).only(EngineKind::Docker)), DOCKER);
        let podman = with(&[]).only(EngineKind::Podman);
        assert_eq!(places(&podman), [&PODMAN[..], &DOCKER].concat());
        assert_eq!(
            places(&search(&[("HOME", ""), ("DOCKER_HOST", "")])),
            [
                "unix:///var/run/docker.sock",
                "unix:///run/podman/podman.sock"
            ]
        );
    }

    #[test]
    fn what_the_user_chose_is_final() {
        let host = ("DOCKER_HOST", "unix:///x");
        assert_eq!(places(&with(&[host])), ["unix:///x!"]);
        assert_eq!(
            places(&with(&[host, ("DOCKER_CONTEXT", "c")])),
            ["unix:///x!"]
        );
        assert_eq!(
            places(&with(&[host]).only(EngineKind::Podman)),
            [&PODMAN[..], &["unix:///x"], &DOCKER].concat()
        );
        let ssh = &places(&with(&[("DOCKER_HOST", "ssh://h")]))[..];
        assert!(ssh.len() == 1 && ssh[0].contains("tunnel"), "{ssh:?}");

        let container = ("CONTAINER_HOST", "unix:///y");
        assert_eq!(
            places(&with(&[container])),
            [&DOCKER[..], &["unix:///y!"]].concat()
        );
        assert_eq!(
            places(&with(&[container, host]).only(EngineKind::Podman)),
            ["unix:///y!"]
        );
    }

    #[test]
    fn tls_is_asked_for_by_variables() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let place = dir.path().to_str().unwrap();
        let host = ("DOCKER_HOST", "tcp://h");
        let verify = ("DOCKER_TLS_VERIFY", "1");
        let tls = ["tcp://h:2376 with TLS!"];
        assert_eq!(
            places(&search(&[host, verify, ("DOCKER_CERT_PATH", place)])),
            tls
        );
        assert_eq!(
            places(&search(&[host, verify, ("DOCKER_CONFIG", place)])),
            tls
        );
        assert_eq!(
            places(&search(&[host, ("DOCKER_CERT_PATH", place)])),
            ["tcp://h:2375!"]
        );
        let missing = places(&search(&[host, verify, ("HOME", "/h")]));
        assert!(
            missing[0].contains("/h/.docker/ca.pem is no file"),
            "{missing:?}"
        );
        let nowhere = places(&search(&[host, verify]));
        assert!(nowhere[0].contains("DOCKER_CERT_PATH"), "{nowhere:?}");
        let unchecked = places(&search(&[host, ("DOCKER_TLS", "1")]));
        assert!(
            unchecked[0].contains("DOCKER_TLS_VERIFY=1"),
            "{unchecked:?}"
        );
    }

    #[test]
    fn contexts_are_a_choice_and_broken_files_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let config = ("DOCKER_CONFIG", dir.path().to_str().unwrap());
        let chosen = places(&search(&[config, ("DOCKER_CONTEXT", "nobody")]));
        assert!(
            chosen.len() == 1 && chosen[0].contains("no context \"nobody\""),
            "{chosen:?}"
        );
        let usual = places(&search(&[config]));
        assert_eq!(
            places(&search(&[config, ("DOCKER_CONTEXT", "default")])),
            usual
        );

        std::fs::write(dir.path().join("config.json"), r#"{"currentContext": "c"}"#).unwrap();
        let current = places(&search(&[config]));
        assert!(
            current.len() == 1 && current[0].contains("no context \"c\""),
            "{current:?}"
        );
        assert_eq!(
            places(&search(&[config, ("DOCKER_CONTEXT", "default")])),
            usual
        );

        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        let broken = places(&search(&[config]));
        assert!(
            broken[0].contains("not valid") && broken.len() == usual.len() + 1,
            "{broken:?}"
        );
        assert_eq!(broken[1..], usual[..]);
    }
}
