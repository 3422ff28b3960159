//! The way to a daemon.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use hm_vm_core::Error;
use tokio::net::UnixStream;

use super::info::{EngineInfo, EngineKind};
use super::{reason, tls};
use crate::endpoint::Endpoint;

/// Seconds that one request may take until its answer begins. Answers that come late by their nature (`wait`, `commit`, `load`) are
/// asked for with a client of their own.
const TIME_LIMIT: u64 = 120;
/// What this needs: the platform of a container. Docker 20.10 and Podman 4 have it.
const OLDEST_API: (usize, usize) = (1, 41);

/// Connects, and asks who it is.
///
/// # Errors
///
/// [`Error::BackendUnavailable`].
pub(super) async fn connect(endpoint: &Endpoint) -> Result<(Docker, EngineInfo), Error> {
    let connected = open(endpoint).await;
    connected.map_err(|reason| Error::BackendUnavailable {
        backend: EngineKind::Docker.name().into(),
        reason: format!("{endpoint}: {reason}"),
    })
}

/// Asks who listens there, within a time. Blocks the thread, and may be called on any.
///
/// # Errors
///
/// Why nobody answers, or who answers cannot be used, and what to do.
pub(crate) fn ask(endpoint: &Endpoint, patience: Duration) -> Result<EngineInfo, String> {
    let asking = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("starting a runtime: {error}"))?;
        let answer = runtime.block_on(async {
            let answer = tokio::time::timeout(patience, open(endpoint)).await;
            answer.unwrap_or_else(|_| Err(reason::silent(patience)))
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        answer.map(|(_, info)| info)
    };
    // The caller's thread may belong to a runtime, in which no other one can run.
    std::thread::scope(|scope| {
        let asked = scope.spawn(asking).join();
        asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn open(endpoint: &Endpoint) -> Result<(Docker, EngineInfo), String> {
    if let Endpoint::Unix(socket) = endpoint {
        // The client's own words do not tell why a socket cannot be used.
        let connected = UnixStream::connect(socket).await;
        connected.map_err(|error| reason::of_socket(socket, &error))?;
    }
    let failed = |error: bollard::errors::Error| reason::of_client(&error);
    let docker = client(endpoint)?;
    // Once: Podman asks the machine's package manager for its answer, which takes seconds. The client's own negotiation asks the same.
    let version = docker.version().await.map_err(failed)?;
    let spoken = docker.client_version();
    let own = (spoken.major_version, spoken.minor_version);
    let api = version.api_version.as_deref().and_then(api_version);
    let api = api
        .ok_or("what answers is no Docker API: it names no version of one")?
        .min(own);
    if api < OLDEST_API {
        return Err(reason::too_old(
            version.version.as_deref().unwrap_or("unknown"),
            api,
            OLDEST_API,
        ));
    }
    let info = docker.info().await.map_err(failed)?;
    if let Some(system) = info.os_type.as_deref().filter(|system| *system != "linux") {
        return Err(reason::not_linux(system));
    }
    let mut info = EngineInfo::new(version, info, api, matches!(endpoint, Endpoint::Unix(_)));
    if let Endpoint::Unix(socket) = endpoint
        && let Ok(socket) = std::fs::metadata(socket)
    {
        info.socket_of(socket.uid());
    }
    info.outbound = crate::network::find_outbound(&docker, endpoint, &info).await;
    Ok((docker, info))
}

/// `MAJOR.MINOR`.
fn api_version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Connects without asking anything.
fn client(endpoint: &Endpoint) -> Result<Docker, String> {
    let path = |path: &Path| path.to_str().map(str::to_owned);
    let made = match endpoint {
        Endpoint::Unix(socket) => {
            let socket = path(socket).ok_or("its path must be UTF-8")?;
            Docker::connect_with_unix(&socket, TIME_LIMIT, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp { address, tls: None } => {
            Docker::connect_with_http(&format!("tcp://{address}"), TIME_LIMIT, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp {
            address,
            tls: Some(files),
        } => return tls::client(address, files, TIME_LIMIT),
    };
    made.map_err(|error| reason::of_client(&error))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Asks a server that answers every request with this text.
    fn ask_server(answer: &'static str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let asked = BufReader::new(connection.try_clone().unwrap());
                let lines = asked.lines().map_while(Result::ok);
                // To the end of the request's head. Who asks may be gone then.
                if lines.take_while(|line| !line.is_empty()).count() > 0 {
                    drop(connection.write_all(answer.as_bytes()));
                }
            }
        });
        ask(&Endpoint::Unix(socket), Duration::from_secs(60)).unwrap_err()
    }

    #[test]
    fn who_is_no_daemon_for_us_is_told_so() {
        for (answer, part) in [
            ("hello\r\n\r\n", "does not speak HTTP"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
                "no Docker API",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
                "no Docker API",
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!",
                "403: no!",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nConnection: close\r\n\r\n\
                 {\"ApiVersion\":\"1.24\",\"Version\":\"1.12.3\"}",
                "its version 1.12.3 with API 1.24 is too old: API 1.41 is needed",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 41\r\nConnection: close\r\n\r\n\
                 {\"ApiVersion\":\"1.41\",\"OSType\":\"windows\" }",
                "it runs containers of windows",
            ),
        ] {
            let reason = ask_server(answer);
            assert!(reason.contains(part), "{part:?} is missing: {reason}");
        }
    }
}
