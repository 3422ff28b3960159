//! Blobs as streams: cuts are mended by going on where they broke off.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::Repository;
use super::answer::{Doing, Failure};
use super::client::Inner;
use super::pipe::{self, AsyncWriter, BlockingReader};
use super::repository::pass_over;
use super::request::{Call, Session, Target};
use super::retry::Retry;
use super::runtime::{broken, or_cancelled};
use crate::{Descriptor, OciError};

/// A server that sends less than this within the idle time is as good as silent.
const LEAST_BYTES: u64 = 4 << 10;

/// Less than this before a cut is no progress: a server must not lead us on byte by byte.
const PROGRESS: u64 = 64 << 10;

/// Begins a download. Waits until the first server that has the blob answers.
pub(super) fn open(
    repository: &Repository,
    blob: &Descriptor,
) -> Result<Box<dyn Read + Send>, OciError> {
    let (writer, reader) = pipe::to_thread();
    let (opened, is_open) = mpsc::sync_channel(1);
    let client = Arc::clone(&repository.client);
    let mut download = Download {
        repository: repository.clone(),
        blob: blob.clone(),
        at: 0,
        entity: None,
        opened: Some(opened),
    };
    let task = client.runtime.handle().spawn(async move {
        let cancel = download.repository.client.options.cancel.clone();
        let outcome = or_cancelled(&cancel, download.run(&writer)).await;
        match (download.opened.take(), outcome) {
            (Some(opened), Err(error)) => {
                let _ = opened.send(Err(error));
            }
            (_, outcome) => writer.end(outcome),
        }
    });
    let reader = BlobReader {
        reader,
        task: task.abort_handle(),
        _client: client,
    };
    is_open.recv().unwrap_or_else(|_| Err(broken()))?;
    Ok(Box::new(reader))
}

/// The reader's side. Dropped, it ends the download.
struct BlobReader {
    reader: BlockingReader,
    task: AbortHandle,
    /// Whose threads do the work.
    _client: Arc<Inner>,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One download, wherever its bytes come from.
struct Download {
    repository: Repository,
    blob: Descriptor,
    /// How many bytes were handed over.
    at: u64,
    /// What the server that is asked now calls this content.
    entity: Option<HeaderValue>,
    /// Told once, when the first bytes are about to come.
    opened: Option<SyncSender<Result<(), OciError>>>,
}

/// Why a transfer goes no further.
enum Stop {
    Failed(Failure),
    /// Nobody wants the rest.
    Unwanted,
}

impl<T: Into<Failure>> From<T> for Stop {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

impl Download {
    /// Asks the mirrors, the registry, and the addresses that a foreign layer names.
    async fn run(&mut self, writer: &AsyncWriter) -> Result<(), OciError> {
        for mirror in self.repository.mirrors() {
            let call = self.call(&mirror);
            let retry = Retry::new(0, mirror.idle());
            match self.from(&mirror, &call, retry, writer).await {
                Ok(()) => return Ok(()),
                Err(error @ OciError::NotFound { .. }) => {
                    tracing::debug!("mirror {}: {error}", mirror.endpoint.name);
                }
                Err(error) => pass_over(&mirror, &error),
            }
        }
        let registry = self.repository.registry()?;
        let call = self.call(&registry);
        let retry = self.repository.retry();
        let mut outcome = self.from(&registry, &call, retry, writer).await;
        for url in self.blob.urls.clone() {
            if outcome.is_ok() {
                break;
            }
            let Some(call) = self.foreign_call(&registry, &url) else {
                continue;
            };
            let retry = self.repository.retry();
            outcome = self.from(&registry, &call, retry, writer).await;
        }
        outcome
    }

    fn call(&self, session: &Session) -> Call {
        let digest = &self.blob.digest;
        let what = format!("reading {digest}");
        let part = format!("blobs/{digest}");
        self.repository.call(session, Method::GET, &part, what)
    }

    /// Only where it is encrypted: the registry's word is all that we have for this address.
    fn foreign_call(&self, registry: &Session, url: &str) -> Option<Call> {
        let url = Url::parse(url).ok().filter(|url| url.scheme() == "https")?;
        let mut call = self.call(registry);
        call.doing = Doing {
            what: format!("reading {}", self.blob.digest),
            place: url.host_str().unwrap_or_default().to_owned(),
        };
        call.target = Target::Address(url);
        Some(call)
    }

    /// Takes the rest from one server.
    async fn from(
        &mut self,
        session: &Session,
        call: &Call,
        mut retry: Retry,
        writer: &AsyncWriter,
    ) -> Result<(), OciError> {
        self.entity = None;
        loop {
            let before = self.at;
            match self.attempt(session, call, writer).await {
                Ok(()) | Err(Stop::Unwanted) => return Ok(()),
                Err(Stop::Failed(failure)) => {
                    if self.at - before >= PROGRESS {
                        retry.progress();
                    }
                    retry.after(failure).await?;
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        session: &Session,
        call: &Call,
        writer: &AsyncWriter,
    ) -> Result<(), Stop> {
        let mut call = call.clone();
        if self.at > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.at));
            call.headers.extend(range.map(|range| (RANGE, range)));
            let same = self.entity.clone();
            call.headers.extend(same.map(|entity| (IF_RANGE, entity)));
        }
        let response = session.send(&call).await?;
        let skip = match response.status() {
            StatusCode::OK => self.at,
            StatusCode::PARTIAL_CONTENT if self.at > 0 => {
                self.check_range(response.headers(), &call.doing)?;
                0
            }
            StatusCode::NOT_FOUND => {
                let _ = session.refusal(&call, response).await;
                return Err(Stop::from(OciError::NotFound {
                    what: self.blob.digest.to_string(),
                    place: call.doing.place,
                }));
            }
            _ => return Err(session.refusal(&call, response).await.into()),
        };
        self.check_length(&response, skip)?;
        self.entity = strong_entity(response.headers());
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(Ok(()));
        }
        self.transfer(session, &call.doing, response, skip, writer)
            .await
    }

    /// Passes on what comes, but for the first bytes, which we have.
    async fn transfer(
        &mut self,
        session: &Session,
        doing: &Doing,
        mut response: Response,
        mut skip: u64,
        writer: &AsyncWriter,
    ) -> Result<(), Stop> {
        // One byte too many is enough for the reader to see that the rest is wrong.
        let most = self.blob.size.saturating_add(1);
        let mut deadline = Instant::now() + session.idle();
        let mut since_deadline = 0;
        loop {
            let chunk = match timeout_at(deadline, response.chunk()).await {
                // All is there: how the connection ends is nobody's concern.
                Ok(Err(_)) | Err(_) if self.at == self.blob.size => return Ok(()),
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => return Err(doing.transport(error).into()),
                Err(_) => {
                    let reason = "it sends nothing more";
                    return Err(Failure::for_now(doing.unreachable(reason)).into());
                }
            };
            let Some(mut chunk) = chunk else {
                return self.check_end();
            };
            since_deadline += chunk.len() as u64;
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            drop(chunk.split_to(usize::try_from(known).unwrap_or(chunk.len())));
            let room = usize::try_from(most - self.at).unwrap_or(usize::MAX);
            chunk.truncate(room);
            if !chunk.is_empty() {
                self.at += chunk.len() as u64;
                writer.write(chunk).await.map_err(|_| Stop::Unwanted)?;
            }
            if self.at >= most {
                return Ok(());
            }
            // The reader's time is not the server's.
            if since_deadline >= LEAST_BYTES {
                since_deadline = 0;
                deadline = Instant::now() + session.idle();
            }
        }
    }

    fn check_end(&self) -> Result<(), Stop> {
        if self.at >= self.blob.size {
            return Ok(());
        }
        let missing = self.blob.size - self.at;
        Err(Failure::for_now(self.mismatch(format!(
            "{missing} of its {} bytes are missing",
            self.blob.size
        )))
        .into())
    }

    /// A length that is told must be the right one: what is wrong from the start need not be read.
    fn check_length(&self, response: &Response, skip: u64) -> Result<(), Stop> {
        let expected = self.blob.size
            - if skip > 0 {
                0
            } else {
                self.at.min(self.blob.size)
            };
        match response.content_length() {
            Some(length) if length != expected => Err(Stop::from(self.mismatch(format!(
                "{length} bytes of it are offered where there should be {expected}"
            )))),
            _ => Ok(()),
        }
    }

    /// `bytes FIRST-LAST/SIZE` must be what we asked for.
    fn check_range(&self, headers: &HeaderMap, doing: &Doing) -> Result<(), Stop> {
        let text = headers.get(CONTENT_RANGE);
        let text = text.and_then(|text| text.to_str().ok()).unwrap_or_default();
        let first = text
            .strip_prefix("bytes ")
            .and_then(|range| range.split_once('-'));
        if first.and_then(|(first, _)| first.parse().ok()) == Some(self.at) {
            return Ok(());
        }
        let reason = format!(
            "with the range {text:?}, and was asked for one from {}",
            self.at
        );
        Err(Stop::from(doing.answer(reason)))
    }

    fn mismatch(&self, reason: String) -> OciError {
        OciError::Mismatch {
            what: self.blob.digest.to_string(),
            reason,
        }
    }
}

/// Weak names do not say that the bytes are the same.
fn strong_entity(headers: &HeaderMap) -> Option<HeaderValue> {
    let entity: HeaderName = ETAG;
    let value = headers.get(entity)?;
    (!value.as_bytes().starts_with(b"W/")).then(|| value.clone())
}
