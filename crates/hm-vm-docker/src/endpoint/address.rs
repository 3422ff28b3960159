//! Where a daemon listens, and how that is written.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port, of another machine mostly.
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// For TLS. Without, the connection is plain.
        tls: Option<TlsFiles>,
    },
}

/// The files for TLS with certificates of both sides, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// Who signed the daemon's certificate.
    pub ca: PathBuf,
    /// The client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address, tls: None } => write!(f, "tcp://{address}"),
            Self::Tcp { address, .. } => write!(f, "tcp://{address} with TLS"),
        }
    }
}

impl TlsFiles {
    /// The files of a directory, with the names that Docker gives them.
    ///
    /// # Errors
    ///
    /// One of them is missing.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, String> {
        let file = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(format!(
                    "TLS needs ca.pem, cert.pem and key.pem, and {} is no file",
                    path.display()
                ))
            }
        };
        Ok(Self {
            ca: file("ca.pem")?,
            certificate: file("cert.pem")?,
            key: file("key.pem")?,
        })
    }
}

/// Ports where daemons listen, without TLS and with it.
const PORTS: [&str; 2] = ["2375", "2376"];

/// Reads what stands in `DOCKER_HOST`, in contexts and in `CONTAINER_HOST`. `tls` gives the files where the place of that
/// text asks for TLS.
///
/// # Errors
///
/// Why it is not an address, or not one that can be used, and what to do instead.
pub(super) fn parse(
    text: &str,
    tls: impl FnOnce(TlsNeed) -> Result<Option<TlsFiles>, String>,
) -> Result<Endpoint, String> {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some(parts) => parts,
        // Podman also writes unix:/run/podman/podman.sock.
        None => match text.strip_prefix("unix:") {
            Some(path) => ("unix", path),
            None => {
                return Err(format!(
                    "{text:?} is no address: it begins with unix:// or tcp://"
                ));
            }
        },
    };
    match scheme {
        "unix" if rest.is_empty() => Err(format!("{text:?} names no socket")),
        "unix" => Ok(Endpoint::Unix(rest.into())),
        "tcp" | "http" => tcp(text, rest, tls(TlsNeed::AsSet)?),
        "https" => tcp(text, rest, tls(TlsNeed::Always)?),
        "ssh" => Err(no_ssh(text)),
        "fd" => Err(format!(
            "{text:?} is for daemons that systemd starts, not for clients: use the daemon's unix:// socket"
        )),
        "npipe" => Err(format!(
            "{text:?} is a pipe of Windows: use a unix:// or tcp:// address"
        )),
        other => Err(format!(
            "{text:?}: {other} is no known protocol: use unix:// or tcp://"
        )),
    }
}

/// Whether an address can do without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsNeed {
    /// TLS if settings beside the address ask for it.
    AsSet,
    /// The address itself asks for TLS.
    Always,
}

fn tcp(text: &str, rest: &str, tls: Option<TlsFiles>) -> Result<Endpoint, String> {
    let wrong = |why: &str| Err(format!("{text:?}: {why}"));
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return wrong("daemons behind a path are not supported, only HOST:PORT");
    }
    if rest.contains('@') {
        return wrong("daemons know no users");
    }
    let (host, port) = match rest.rsplit_once(':') {
        // The colons of a plain IPv6 address.
        Some((_, after)) if after.ends_with(']') => (rest, None),
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !is_bracketed {
        return wrong("an IPv6 address is written in brackets: [::1]:2375");
    }
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-[]:%".contains(&byte);
    if !host.bytes().all(usual) {
        return wrong("that is no host");
    }
    let host = if host.is_empty() { "localhost" } else { host };
    let port = port.unwrap_or(PORTS[usize::from(tls.is_some())]);
    if port.parse::<u16>().is_err() {
        return wrong("the port is no number");
    }
    Ok(Endpoint::Tcp {
        address: format!("{host}:{port}"),
        tls,
    })
}

fn no_ssh(text: &str) -> String {
    let rest = text.trim_start_matches("ssh://");
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) if !path.is_empty() => (host, format!("/{path}")),
        Some((host, _)) => (host, "/var/run/docker.sock".to_owned()),
        None => (rest, "/var/run/docker.sock".to_owned()),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, format!("-p {port} ")),
        None => (host, String::new()),
    };
    format!(
        "{text:?}: ssh is not supported; make a tunnel with `ssh -nNT {port}-L /tmp/docker.sock:{path} {host}` and set \
         DOCKER_HOST=unix:///tmp/docker.sock"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Result<String, String> {
        parse(text, |_| Ok(None)).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn addresses_are_read_as_docker_writes_them() {
        for (text, expected) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            (
                "unix:/run/podman/podman.sock",
                "unix:///run/podman/podman.sock",
            ),
            (" unix:///a b ", "unix:///a b"),
            ("tcp://host:1234", "tcp://host:1234"),
            ("tcp://host", "tcp://host:2375"),
            ("tcp://:99/", "tcp://localhost:99"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("http://10.0.0.1:2375/", "tcp://10.0.0.1:2375"),
        ] {
            assert_eq!(plain(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        for (text, part) in [
            ("", "begins with unix://"),
            ("/var/run/docker.sock", "begins with unix://"),
            ("unix://", "names no socket"),
            ("tcp://host:port", "port is no number"),
            ("tcp://host:70000", "port is no number"),
            ("tcp://host:1/prefix", "behind a path"),
            ("tcp://me@host:1", "no users"),
            ("tcp://::1:2375", "in brackets"),
            ("tcp://a b", "no host"),
            ("fd://", "systemd"),
            ("npipe:////./pipe/docker_engine", "Windows"),
            ("gopher://x", "no known protocol"),
        ] {
            let error = plain(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let tunnel = plain("ssh://me@host:22/run/user/1000/docker.sock").unwrap_err();
        let command = "`ssh -nNT -p 22 -L /tmp/docker.sock:/run/user/1000/docker.sock me@host`";
        assert!(tunnel.contains(command), "{tunnel}");
        let tunnel = plain("ssh://host").unwrap_err();
        assert!(
            tunnel.contains("-L /tmp/docker.sock:/var/run/docker.sock host`"),
            "{tunnel}"
        );
    }

    #[test]
    fn tls_has_a_port_of_its_own_and_needs_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let missing = TlsFiles::of_directory(dir.path()).unwrap_err();
        assert!(missing.contains("ca.pem is no file"), "{missing}");
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let files = TlsFiles::of_directory(dir.path()).unwrap();
        let with_tls = |need| {
            assert_eq!(need, TlsNeed::Always);
            Ok(Some(files.clone()))
        };
        let endpoint = parse("https://host", with_tls).unwrap();
        assert_eq!(endpoint.to_string(), "tcp://host:2376 with TLS");
    }
}
