//! Which program carries the traffic of Podman's containers.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::endpoint::Endpoint;
use crate::engine::{EngineInfo, Outbound};

/// Most bytes of an answer that are read.
const MOST_BYTES: u64 = 1 << 20;

/// Time for the answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What Podman says of its machine, in its own API. That of Docker has no place for it.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    host: Host,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Host {
    #[serde(rename = "slirp4netns")]
    slirp: Option<Program>,
    pasta: Option<Program>,
}

#[derive(Debug, Deserialize)]
struct Program {
    #[serde(default)]
    executable: String,
}

impl Program {
    fn is_there(program: Option<&Self>) -> bool {
        program.is_some_and(|program| !program.executable.is_empty())
    }
}

/// The program that Podman has. Where it cannot be asked (it is on another machine), what its version has by default.
pub(super) async fn find(endpoint: &Endpoint, info: &EngineInfo) -> Option<Outbound> {
    let host = match endpoint {
        // What they open, as the user who runs Podman: that is who may use its socket.
        Endpoint::Unix(_) if info.rootless && !may_open_tunnels() => return None,
        Endpoint::Unix(socket) => ask(socket).await,
        _ => None,
    };
    choose(host.as_ref(), &info.version, info.rootless)
}

/// Some machines leave the device to root.
fn may_open_tunnels() -> bool {
    let wanted = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    rustix::fs::access("/dev/net/tun", wanted).is_ok()
}

/// Podman takes pasta from version 5 on, and only without root: with root it is refused.
fn choose(host: Option<&Host>, version: &str, rootless: bool) -> Option<Outbound> {
    let major: u32 = version.split('.').next()?.parse().ok()?;
    let takes_pasta = major >= 5 && rootless;
    let Some(host) = host else {
        return Some(if takes_pasta {
            Outbound::Pasta
        } else {
            Outbound::Slirp
        });
    };
    // In Podman 4 the field of pasta is not there, whether it is installed or not.
    if takes_pasta && Program::is_there(host.pasta.as_ref()) {
        Some(Outbound::Pasta)
    } else if Program::is_there(host.slirp.as_ref()) {
        Some(Outbound::Slirp)
    } else {
        None
    }
}

async fn ask(socket: &Path) -> Option<Host> {
    let answer = tokio::time::timeout(PATIENCE, get(socket)).await;
    parse(&answer.ok()?.ok()?)
}

/// HTTP 1.0: the answer ends with the connection, and is not in chunks.
async fn get(socket: &Path) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(b"GET /v4.0.0/libpod/info HTTP/1.0\r\nHost: podman\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Host> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = answer.split_at(end);
    let status = head.split(|byte| *byte == b' ').nth(1)?;
    if status != b"200" {
        return None;
    }
    let answer: Answer = serde_json::from_slice(&body[4..]).ok()?;
    Some(answer.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(slirp: Option<&str>, pasta: Option<&str>) -> Host {
        let program = |path: Option<&str>| {
            path.map(|path| Program {
                executable: path.into(),
            })
        };
        Host {
            slirp: program(slirp),
            pasta: program(pasta),
        }
    }

    #[test]
    fn the_program_is_one_that_podman_has_and_takes() {
        let (slirp, pasta) = (Some("/usr/bin/slirp4netns"), Some("/usr/bin/pasta"));
        for (has, version, rootless, expected) in [
            (host(slirp, None), "4.3.1", false, Some(Outbound::Slirp)),
            (host(slirp, pasta), "5.2.0", true, Some(Outbound::Pasta)),
            (host(slirp, pasta), "5.2.0", false, Some(Outbound::Slirp)),
            (host(None, pasta), "5.2.0", false, None),
            (host(Some(""), None), "4.3.1", true, None),
            (host(None, None), "5.2.0", true, None),
        ] {
            let chosen = choose(Some(&has), version, rootless);
            assert_eq!(chosen, expected, "{has:?} {version} {rootless}");
        }
        assert_eq!(choose(None, "5.0.0", true), Some(Outbound::Pasta));
        assert_eq!(choose(None, "4.9.4", true), Some(Outbound::Slirp));
    }

    #[test]
    fn an_answer_that_is_none_says_nothing() {
        let good =
            b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"host\":{\"slirp4netns\":{\"executable\":\"/x\"}}}";
        let found = parse(good).unwrap();
        assert!(Program::is_there(found.slirp.as_ref()));
        for bad in [
            &b""[..],
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.0 404 Not Found\r\n\r\n{\"host\":{}}",
            b"\r\n\r\n{\"host\":{}}",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
