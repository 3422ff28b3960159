//! Why a daemon cannot be used, and what a user can do, in one sentence.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use rustls::{CertificateError, Error as TlsError};

/// Of what others write, so much is told.
const LONGEST_WORDS: usize = 300;

/// A connection to a socket failed.
pub(super) fn of_socket(socket: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "there is no such socket".to_owned(),
        ErrorKind::PermissionDenied => {
            "this user may not use it (permission denied): add yourself to the docker group, which is as good as root \
             (`sudo usermod -aG docker $USER`, then log in again), or run Docker or Podman rootless"
                .to_owned()
        }
        ErrorKind::ConnectionRefused => {
            let kind = std::fs::metadata(socket).map(|facts| facts.file_type());
            if kind.is_ok_and(|kind| !kind.is_socket()) {
                "it is not a socket".to_owned()
            } else {
                "nobody listens there any more: start the daemon again".to_owned()
            }
        }
        ErrorKind::WouldBlock => {
            "the daemon takes no connections: it hangs, or is overloaded".to_owned()
        }
        _ => format!("connecting failed: {error}"),
    }
}

/// A connection was made, and then nothing came.
pub(super) fn silent(patience: Duration) -> String {
    format!(
        "it does not answer within {} s: it hangs, is still starting, or is no daemon",
        patience.as_secs()
    )
}

/// The daemon runs containers of another system.
pub(super) fn not_linux(system: &str) -> String {
    format!(
        "it runs containers of {}: switch it to Linux containers",
        plain(system)
    )
}

/// The daemon's API lacks what is needed.
pub(super) fn too_old(version: &str, api: (usize, usize), needed: (usize, usize)) -> String {
    format!(
        "its version {} with API {}.{} is too old: API {}.{} is needed, which Docker 20.10 and Podman 4 have",
        plain(version),
        api.0,
        api.1,
        needed.0,
        needed.1
    )
}

/// A request failed.
pub(super) fn of_client(error: &Error) -> String {
    match error {
        Error::RequestTimeoutError => "it does not answer: it hangs, or is no daemon".to_owned(),
        Error::DockerResponseServerError { message, .. }
            if message.contains("HTTP request to an HTTPS server") =>
        {
            "it speaks TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to where ca.pem, cert.pem and key.pem are"
                .to_owned()
        }
        Error::DockerResponseServerError {
            status_code,
            message,
        } => format!(
            "what answers is no Docker API, or refuses: {status_code}: {}",
            plain(message)
        ),
        Error::JsonDataError { .. }
        | Error::APIVersionParseError {}
        | Error::JsonSerdeError { .. }
        | Error::StrParseError { .. } => "what answers is no Docker API".to_owned(),
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. } => {
            of_connection(error)
        }
        other => plain(&other.to_string()),
    }
}

/// The connection could not be made, or broke.
fn of_connection(error: &Error) -> String {
    let inner = innermost(error);
    let words = plain(&inner.to_string());
    if let Some(reason) = inner.downcast_ref().and_then(of_tls) {
        return format!("{reason} ({words})");
    }
    let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
    if kind == Some(ErrorKind::ConnectionRefused) {
        return "nobody listens there (connection refused): start the daemon, or let it listen there"
            .to_owned();
    }
    // hyper's own words; its type is no dependency of ours.
    if words.contains("invalid HTTP") {
        return "what answers does not speak HTTP, so it is no Docker API".to_owned();
    }
    format!("the connection failed: {words}")
}

/// What rustls says, for users.
fn of_tls(error: &TlsError) -> Option<&'static str> {
    use CertificateError as Bad;
    Some(match error {
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                "its certificate is not signed by the CA in ca.pem: take the CA of this daemon"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "its certificate is for another name: use the host that it was made for"
            }
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. } => {
                "its certificate is not valid at this time: renew it, or set the clock"
            }
            _ => "its certificate cannot be trusted",
        },
        TlsError::AlertReceived(_) => {
            "it refuses the client's certificate: take a cert.pem and key.pem that are signed by the CA it trusts"
        }
        TlsError::InvalidMessage(_) => {
            "it does not speak TLS: unset DOCKER_TLS_VERIFY, or let it listen with --tlsverify"
        }
        _ => return None,
    })
}

/// What really happened, without the layers around it.
fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut error = error;
    loop {
        // An I/O error hides what it was made of: its source is the source of that.
        let inside: Option<&(dyn StdError + 'static)> = match error.downcast_ref::<io::Error>() {
            Some(outer) => outer.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
        match inside {
            Some(inside) => error = inside,
            None => return error,
        }
    }
}

/// Words of somebody else, fit for a line of a message.
fn plain(words: &str) -> String {
    let words = words.trim();
    let mut text: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_WORDS)
        .collect();
    if text.len() < words.len() {
        text.push('…');
    }
    text
}
