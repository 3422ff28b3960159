//! Blobs to a registry: only what it lacks, in one piece, streamed.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream;
use hm_vm_core::{Progress, ProgressUnit};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::time::{Instant, sleep};

use super::Repository;
use super::answer::{Failure, read_bounded};
use super::endpoint::may_follow;
use super::pipe::{self, AsyncReader, BlockingWriter};
use super::request::{Call, Session, location};
use super::retry::Retry;
use super::runtime::{broken, or_cancelled};
use crate::{Descriptor, OciError};

/// How much is read at a time.
const PIECE: usize = 128 << 10;
/// The slowest that a registry may store what it has got, in bytes a second, beyond the time that it has anyway.
const SLOWEST_STORING: u64 = 20_000_000;
/// A request to begin has an answer without content.
const MOST_UNWANTED: u64 = 64 << 10;

type Open<'a> = &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>;
type Outcome = Result<(), Failure>;

/// Writes a blob unless it is there. The caller's thread reads it.
pub(super) fn put(
    repository: &Repository,
    blob: &Descriptor,
    open: Open<'_>,
    progress: &Progress,
) -> Result<(), OciError> {
    let runtime = &repository.client.runtime;
    let cancel = &repository.client.options.cancel;
    progress.begin(ProgressUnit::Bytes, Some(blob.size));
    let mut retry = repository.retry();
    loop {
        let (this, wanted) = (repository.clone(), blob.clone());
        let begun = runtime.wait(
            cancel,
            async move { this.begin_upload(&wanted, retry).await },
        );
        let (retry_again, place) = begun?;
        retry = retry_again;
        let Some(place) = place else {
            progress.complete();
            return Ok(());
        };
        progress.begin(ProgressUnit::Bytes, Some(blob.size));
        let Err(failure) = send(repository, blob, place, open, progress)? else {
            return Ok(());
        };
        retry = runtime.wait(cancel, async move {
            retry.after(failure).await?;
            Ok(retry)
        })?;
    }
}

/// Sends all bytes once. The outer failure is one on our side, which no repetition mends.
fn send(
    repository: &Repository,
    blob: &Descriptor,
    place: Url,
    open: Open<'_>,
    progress: &Progress,
) -> Result<Outcome, OciError> {
    let mut input = open().map_err(|error| reading(blob, error))?;
    let (writer, reader) = pipe::to_task();
    let (sender, outcome) = mpsc::sync_channel(1);
    let (this, wanted) = (repository.clone(), blob.clone());
    let cancel = repository.client.options.cancel.clone();
    repository.client.runtime.handle().spawn(async move {
        let work = async { Ok(this.finish_upload(&wanted, place, reader).await) };
        let _ = sender.send(or_cancelled(&cancel, work).await);
    });
    match feed(&mut input, blob, writer, progress, &outcome)? {
        Some(outcome) => outcome,
        None => outcome.recv().unwrap_or_else(|_| Err(broken())),
    }
}

type Answer = Result<Outcome, OciError>;

/// Hands the bytes over, until all are or the server has answered. The last piece is kept until it is known to be the
/// last one: what has the wrong length never becomes whole.
fn feed(
    input: &mut dyn Read,
    blob: &Descriptor,
    writer: BlockingWriter,
    progress: &Progress,
    outcome: &Receiver<Answer>,
) -> Result<Option<Answer>, OciError> {
    let mut left = blob.size;
    let mut last = Bytes::new();
    loop {
        let mut piece = vec![0; PIECE];
        let count = match input.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading(blob, error)),
        };
        if count == 0 {
            break;
        }
        left = left
            .checked_sub(count as u64)
            .ok_or_else(|| wrong_size(blob, "it is longer than it should be"))?;
        piece.truncate(count);
        let ready = std::mem::replace(&mut last, Bytes::from(piece));
        progress.add(ready.len() as u64);
        if !ready.is_empty() && writer.write(ready).is_err() {
            return Ok(None);
        }
        if let Ok(answer) = outcome.try_recv() {
            return Ok(Some(answer));
        }
    }
    if left > 0 {
        return Err(wrong_size(blob, "it is shorter than it should be"));
    }
    progress.add(last.len() as u64);
    if !last.is_empty() && writer.write(last).is_err() {
        return Ok(None);
    }
    writer.end(Ok(()));
    Ok(None)
}

fn reading(blob: &Descriptor, source: io::Error) -> OciError {
    OciError::Io {
        doing: "reading",
        path: blob.digest.to_string(),
        source,
    }
}

fn wrong_size(blob: &Descriptor, reason: &str) -> OciError {
    OciError::Mismatch {
        what: blob.digest.to_string(),
        reason: reason.to_owned(),
    }
}

impl Repository {
    /// Asks for the blob, then for a place for it: none when it is there.
    async fn begin_upload(
        &self,
        blob: &Descriptor,
        mut retry: Retry,
    ) -> Result<(Retry, Option<Url>), OciError> {
        let session = self.registry()?;
        loop {
            let begun = match self.ask_for_blob(&session, blob).await {
                Ok(true) => Ok(None),
                Ok(false) => self.find_place(&session, blob).await,
                Err(failure) => Err(failure),
            };
            match begun {
                Ok(place) => return Ok((retry, place)),
                Err(failure) => retry.after(failure).await?,
            }
        }
    }

    async fn find_place(
        &self,
        session: &Session,
        blob: &Descriptor,
    ) -> Result<Option<Url>, Failure> {
        for from in self.mounts() {
            let part = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
            let mut call = self.upload_call(session, &part, blob);
            call.access.also = vec![session.endpoint.repository(from)];
            match self.place_of(session, &call).await {
                // Begun as an upload instead: that is as good, unless another repository may have it.
                Ok(place) if place.is_none() || self.mounts().len() == 1 => return Ok(place),
                Ok(_) => {}
                // We may not read there.
                Err(failure) if !failure.may_pass => {
                    tracing::debug!(error = %failure.error, "mounting from {from}");
                }
                Err(failure) => return Err(failure),
            }
        }
        let call = self.upload_call(session, "blobs/uploads/", blob);
        self.place_of(session, &call).await
    }

    fn upload_call(&self, session: &Session, part: &str, blob: &Descriptor) -> Call {
        let what = format!("writing {}", blob.digest);
        let mut call = self.call(session, Method::POST, part, what);
        let nothing = HeaderValue::from_static("0");
        call.headers.insert(CONTENT_LENGTH, nothing);
        call
    }

    async fn place_of(&self, session: &Session, call: &Call) -> Result<Option<Url>, Failure> {
        let response = session.send(call).await?;
        match response.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => {
                let place = location(&response, &call.doing)?;
                may_follow(response.url(), &place, &self.client.options)
                    .map_err(|why| call.doing.answer(why))?;
                let _ = read_bounded(response, MOST_UNWANTED, session.idle()).await;
                Ok(Some(place))
            }
            _ => Err(session.refusal(call, response).await),
        }
    }

    async fn finish_upload(
        &self,
        blob: &Descriptor,
        mut place: Url,
        reader: AsyncReader,
    ) -> Result<(), Failure> {
        let session = self.registry()?;
        let call = self.upload_call(&session, "blobs/uploads/", blob);
        place
            .query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let client = session.endpoint.client(&place, &self.client)?;
        let mut request = client
            .put(place.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.size);
        if session.endpoint.owns(&place) {
            let known = session
                .known_authorization(&call.access, &call.doing)
                .await?;
            if let Some(known) = known {
                request = request.header(AUTHORIZATION, known);
            }
        }
        let sent = Arc::new(AtomicU64::new(0));
        let watch = Watched {
            pipe: reader.watch(),
            sent: Arc::clone(&sent),
            size: blob.size,
        };
        let body = Body::wrap_stream(stream::unfold(reader, move |reader| {
            let sent = Arc::clone(&sent);
            async move {
                let chunk = reader.next().await?;
                let chunk = chunk.inspect(|chunk| {
                    sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                });
                Some((chunk, reader))
            }
        }));
        let response = watch
            .run(request.body(body).send(), &session, &call)
            .await?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            status => {
                let mut failure = session.refusal(&call, response).await;
                // What we were allowed a moment ago: the token is too old.
                failure.may_pass |= status == StatusCode::UNAUTHORIZED;
                Err(failure)
            }
        }
    }
}

/// Watches whether an upload goes on.
struct Watched {
    pipe: pipe::Watch,
    /// Bytes that the connection has taken.
    sent: Arc<AtomicU64>,
    size: u64,
}

impl Watched {
    async fn run(
        &self,
        answer: impl Future<Output = reqwest::Result<Response>>,
        session: &Session,
        call: &Call,
    ) -> Result<Response, Failure> {
        let idle = session.idle();
        let mut answer = std::pin::pin!(answer);
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            match select(answer.as_mut(), std::pin::pin!(sleep(idle / 8))).await {
                Either::Left((outcome, _)) => {
                    return outcome.map_err(|error| call.doing.transport(error));
                }
                Either::Right(_) => {}
            }
            let sent = self.sent.load(Ordering::Relaxed);
            let all_sent = sent >= self.size;
            if sent != seen || self.pipe.waits_for_writer() && !all_sent {
                (seen, since) = (sent, Instant::now());
            }
            let options = &session.client.options;
            let patience = if all_sent {
                options.storing_timeout + Duration::from_secs(self.size / SLOWEST_STORING)
            } else {
                idle + options.connect_timeout
            };
            if since.elapsed() > patience {
                let reason = "it takes nothing more";
                return Err(Failure::for_now(call.doing.unreachable(reason)));
            }
        }
    }
}
