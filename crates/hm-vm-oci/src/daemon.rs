//! Images that a Docker daemon has, by way of the export of its engine.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hm_vm_core::{Cancellation, Progress, ProgressUnit};
use reqwest::{Client, Response, StatusCode};

use crate::archive::open_archive;
use crate::{OciError, Source};

/// Of an answer that is a failure, so much is told.
const LONGEST_MESSAGE: usize = 4096;

/// How a Docker daemon is asked.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Its socket.
    pub socket: PathBuf,
    /// Directory for the image, in a file without a name, as long as the source is used.
    pub scratch: PathBuf,
    /// How many bytes that may have.
    pub limit: u64,
    /// How long the daemon may say nothing. It puts all layers together before the first byte comes.
    pub idle_timeout: Duration,
    /// Counts the bytes that come.
    pub progress: Progress,
    /// Ends the transfer.
    pub cancel: Cancellation,
}

/// The usual socket, `/var/tmp`, at most 64 GiB, five minutes of silence.
impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            socket: "/var/run/docker.sock".into(),
            scratch: "/var/tmp".into(),
            limit: 64 << 30,
            idle_timeout: Duration::from_secs(300),
            progress: Progress::new(),
            cancel: Cancellation::new(),
        }
    }
}

/// Fetches an image from a Docker daemon, which is what `docker save NAME` writes, and opens it: all of it has come when
/// this returns. `name` is a name or id as the daemon knows it.
///
/// # Errors
///
/// [`OciError::Invalid`] for a name that cannot be one, and for an image that is too large;
/// [`OciError::NotFound`] when the daemon has no such image; [`OciError::Unreachable`], [`OciError::Answer`],
/// [`OciError::Io`], [`OciError::Cancelled`].
pub fn open_daemon(name: &str, options: &DaemonOptions) -> Result<Arc<dyn Source>, OciError> {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_usual) || name.split('/').any(|part| part == "..") {
        return Err(OciError::invalid(
            format!("image name {name:?}"),
            "the Docker daemon has no image of such a name",
        ));
    }
    options.cancel.check().map_err(OciError::Cancelled)?;
    let scratch = &options.scratch;
    let mut file = tempfile::tempfile_in(scratch).map_err(|error| {
        OciError::of_io("making a file without a name in", scratch.display(), error)
    })?;
    // A thread of its own: the caller's may belong to a runtime, in which no other one can run.
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| OciError::of_io("starting", "a runtime", error))?;
            runtime.block_on(fetch(name, options, &mut file))
        });
        match fetching.join() {
            Ok(fetched) => fetched,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    open_archive(file, &options.socket, None)
}

async fn fetch(name: &str, options: &DaemonOptions, file: &mut File) -> Result<(), OciError> {
    tokio::select! {
        biased;
        cause = options.cancel.cancelled() => Err(OciError::Cancelled(cause.into())),
        fetched = transfer(name, options, file) => fetched,
    }
}

async fn transfer(name: &str, options: &DaemonOptions, file: &mut File) -> Result<(), OciError> {
    let place = options.socket.display().to_string();
    let doing = format!("fetching the image {name}");
    let unreachable = |error: reqwest::Error| OciError::Unreachable {
        doing: doing.clone(),
        place: place.clone(),
        reason: innermost(&error),
    };
    let client = client(options, unreachable)?;
    let request = client.get(format!("http://docker/images/{name}/get"));
    let mut answer = request.send().await.map_err(unreachable)?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return Err(OciError::NotFound {
                what: format!("image {name}"),
                place,
            });
        }
        status => {
            let reason = format!("{status}: {}", message(&mut answer).await);
            return Err(OciError::Answer {
                doing,
                place,
                reason,
            });
        }
    }
    options
        .progress
        .begin(ProgressUnit::Bytes, answer.content_length());
    let mut left = options.limit;
    while let Some(bytes) = answer.chunk().await.map_err(unreachable)? {
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let reason = format!("it has more than {} bytes", options.limit);
            OciError::invalid(format!("image {name} of {place}"), reason)
        })?;
        file.write_all(&bytes).map_err(|error| {
            OciError::of_io("writing an image to", options.scratch.display(), error)
        })?;
        options.progress.add(bytes.len() as u64);
    }
    options.progress.complete();
    Ok(())
}

fn client(
    options: &DaemonOptions,
    failed: impl FnOnce(reqwest::Error) -> OciError,
) -> Result<Client, OciError> {
    // Nothing here is encrypted, but the client wants to know how it would be.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OciError::invalid("TLS", error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .unix_socket(options.socket.as_path())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .read_timeout(options.idle_timeout)
        .build()
        .map_err(failed)
}

/// The beginning of what a daemon says of its failure.
async fn message(answer: &mut Response) -> String {
    let mut text = Vec::new();
    while let Ok(Some(bytes)) = answer.chunk().await {
        text.extend_from_slice(&bytes[..bytes.len().min(LONGEST_MESSAGE - text.len())]);
        if text.len() == LONGEST_MESSAGE {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    text.chars().filter(|c| !c.is_control()).collect()
}

/// What really happened, without the layers around it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
