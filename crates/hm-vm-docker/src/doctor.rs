//! What this machine has of daemons, and what they can do for the backend.

use std::path::PathBuf;
use std::time::Duration;

use hm_vm_core::{Limit, NetworkPolicy};

use crate::endpoint::{Candidate, Endpoint, EndpointSearch, advice};
use crate::engine::{EngineInfo, EngineKind};
use crate::{limits, network};

/// How long each daemon may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether something can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingState {
    /// It can.
    Ok,
    /// It can, but not for everything.
    Weak,
    /// It cannot.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub state: FindingState,
    /// What was found.
    pub detail: String,
    /// What the user can do.
    pub fix: Option<String>,
}

/// Looks at all daemons of a search. Changes nothing. Blocks: each daemon has two seconds to answer.
///
/// Where there is none, that is one finding, which is [`FindingState::Missing`]; nothing is wrong with the machine then, where the
/// sandbox works.
pub fn examine(search: &EndpointSearch) -> Vec<Finding> {
    let mut seen = Vec::new();
    let mut findings = Vec::new();
    for candidate in search.candidates() {
        if is_there(&candidate, &mut seen) {
            findings.extend(look(search, &candidate));
        }
    }
    if findings.is_empty() {
        findings.push(Finding {
            name: search
                .kind()
                .map_or("docker, podman", EngineKind::name)
                .to_owned(),
            state: FindingState::Missing,
            detail: "there is no daemon".to_owned(),
            fix: Some(advice(search.kind()).to_owned()),
        });
    }
    findings
}

/// Whether there is something to look at, for the first time. What a user has chosen is always looked at.
fn is_there(candidate: &Candidate, seen: &mut Vec<PathBuf>) -> bool {
    let Ok(Endpoint::Unix(socket)) = &candidate.endpoint else {
        return true;
    };
    // Podman's socket may also be Docker's usual one, by a link.
    let real = socket.canonicalize().unwrap_or_else(|_| socket.clone());
    let is_absent = matches!(socket.try_exists(), Ok(false)) && !candidate.is_final;
    if is_absent || seen.contains(&real) {
        return false;
    }
    seen.push(real);
    true
}

fn look(search: &EndpointSearch, candidate: &Candidate) -> Vec<Finding> {
    match search.ask(candidate, PATIENCE) {
        Err(reason) => vec![Finding {
            name: candidate.kind.name().to_owned(),
            state: FindingState::Missing,
            detail: candidate.refused(&reason),
            fix: None,
        }],
        Ok((endpoint, info)) => {
            vec![
                who(&endpoint, candidate, &info),
                limits(&info),
                outbound(&info),
            ]
        }
    }
}

fn who(endpoint: &Endpoint, candidate: &Candidate, info: &EngineInfo) -> Finding {
    let (major, minor) = info.api;
    let detail = format!(
        "{info}, API {major}.{minor}, cgroup v{}, at {endpoint} ({})",
        info.cgroup_version, candidate.origin
    );
    let helper = hm_vm_sys::helper::PROCESSOR;
    let name = info.kind.name().to_owned();
    if info.processor == helper {
        return Finding {
            name,
            state: FindingState::Ok,
            detail,
            fix: None,
        };
    }
    Finding {
        name,
        state: FindingState::Missing,
        detail: format!(
            "{detail}: its machine is a {}, and the helper of this program is for {helper}",
            info.processor
        ),
        fix: Some(format!("use the hmvm for {}", info.processor)),
    }
}

fn limits(info: &EngineInfo) -> Finding {
    let refusal = |limit: Limit| Some((limit, limits::refusal(info, limit)?));
    let refused: Vec<_> = Limit::ALL.into_iter().filter_map(refusal).collect();
    let is_refused = |limit: &Limit| refused.iter().any(|(other, _)| other == limit);
    let can: Vec<_> = Limit::ALL
        .into_iter()
        .filter(|limit| !is_refused(limit))
        .map(Limit::name)
        .collect();
    let can = if can.is_empty() {
        "none".to_owned()
    } else {
        can.join(", ")
    };
    let reasons = refused
        .iter()
        .map(|(limit, reason)| format!("; no {}: {reason}", limit.name()));
    Finding {
        name: format!("{} limits", info.kind.name()),
        state: if refused.is_empty() {
            FindingState::Ok
        } else {
            FindingState::Weak
        },
        detail: format!("{can}{}", reasons.collect::<String>()),
        fix: None,
    }
}

fn outbound(info: &EngineInfo) -> Finding {
    let name = format!("{} outbound network", info.kind.name());
    if network::offered(info).contains(&NetworkPolicy::Outbound) {
        return Finding {
            name,
            state: FindingState::Ok,
            detail: "available".to_owned(),
            fix: None,
        };
    }
    let (detail, fix) = match info.kind {
        EngineKind::Docker => (
            "the daemon makes no bridges that keep containers apart",
            "start dockerd without --bridge=none and --iptables=false",
        ),
        EngineKind::Podman => (
            "there is neither slirp4netns nor pasta",
            "install slirp4netns or passt on the machine of Podman",
        ),
    };
    Finding {
        name,
        state: FindingState::Weak,
        detail: detail.to_owned(),
        fix: Some(fix.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;

    fn search(root: &Path) -> EndpointSearch {
        EndpointSearch::new(|_| None).in_system(root)
    }

    #[test]
    fn nobody_is_one_finding_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let findings = examine(&search(root.path()));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].state, FindingState::Missing);
        assert!(
            findings[0]
                .fix
                .as_deref()
                .unwrap()
                .contains("podman system service")
        );
        let docker = examine(&search(root.path()).only(EngineKind::Docker));
        assert_eq!(docker[0].name, "docker");
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["var/run", "run/podman"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let socket = root.path().join("var/run/docker.sock");
        // Connections are made, and nobody takes them.
        let _silent = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, root.path().join("run/podman/podman.sock")).unwrap();
        let findings = examine(&search(root.path()));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].state, FindingState::Missing);
        assert!(
            findings[0].detail.contains("does not answer within 2 s"),
            "{findings:?}"
        );
    }
}
