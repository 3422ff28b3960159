//! One request to the helper, and all that comes of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Result;
use bollard::container::LogOutput;
use bytes::Bytes;
use futures_util::{Stream as AsyncStream, StreamExt as _};
use hm_vm_core::{CancelCause, Cancellation, Error, ResourceUsage, Stream};
use hm_vm_sys::helper::{MarkerScan, Nonce, Report, kill_frame, signal_frame};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep_until;

use super::output::{Chunk, JobSide};

/// Time in which the helper, having killed everything, must say something.
const PATIENCE: Duration = Duration::from_secs(10);

/// As good as forever, and still a point in time.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const SIGTERM: u32 = 15;

/// The way to a helper, and from it.
pub(super) struct Connection {
    pub(super) input: Pin<Box<dyn AsyncWrite + Send>>,
    pub(super) output:
        Pin<Box<dyn AsyncStream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Job {
    /// The whole frame.
    pub(crate) frame: Vec<u8>,
    /// What marks the end of both streams.
    pub(crate) nonce: Nonce,
    /// Ends it early.
    pub(crate) stop: Cancellation,
    /// Between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) report: Report,
    pub(crate) usage: ResourceUsage,
    /// Why it was stopped, if it was.
    pub(crate) stopped: Option<Error>,
}

/// Why there is no report.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection ended, or said what cannot be.
    Connection(String),
    /// The helper does not answer, although everything was to be killed.
    Silent,
}

/// How far the end of a command is.
enum Phase {
    Running,
    /// SIGTERM was sent; SIGKILL is sent then.
    Terminating(tokio::time::Instant),
    /// SIGKILL was sent; the helper is to say something until then.
    Killed(tokio::time::Instant),
}

/// A job under way.
pub(super) struct Running<'a> {
    connection: &'a mut Connection,
    side: JobSide,
    stop: Cancellation,
    grace: Duration,
    stdout: MarkerScan,
    stderr: MarkerScan,
    /// What is still to be written to the helper.
    queue: VecDeque<Bytes>,
    /// Whether the first of these is sent in part: then the rest must follow, whatever happens.
    is_midway: bool,
    /// Whether what was written may still be in a buffer, as that of TLS.
    is_unflushed: bool,
    /// What is still to be taken by the caller. Nothing is read meanwhile.
    pending: VecDeque<Chunk>,
    phase: Phase,
    stopped: Option<Error>,
    patience: Duration,
}

/// What happened next.
enum Event {
    Abandoned,
    Stopped(CancelCause),
    Kill,
    Silent,
    Sent(std::io::Result<Sent>),
    Input(Vec<u8>),
    Taken,
    Output(Option<Result<LogOutput, bollard::errors::Error>>),
}

impl<'a> Running<'a> {
    pub(super) fn new(connection: &'a mut Connection, job: Job, side: JobSide) -> Self {
        Self {
            connection,
            side,
            stop: job.stop,
            grace: job.grace,
            stdout: MarkerScan::stdout(job.nonce.clone()),
            stderr: MarkerScan::stderr(job.nonce),
            queue: VecDeque::from([Bytes::from(job.frame)]),
            is_midway: false,
            is_unflushed: false,
            pending: VecDeque::new(),
            phase: Phase::Running,
            stopped: None,
            patience: PATIENCE,
        }
    }

    /// Runs it to its end.
    pub(super) async fn end(mut self) -> Result<Ended, Lost> {
        let began = Instant::now();
        loop {
            if self.is_complete() {
                let report = self.stdout.report();
                let report =
                    report.ok_or_else(|| Lost::Connection("its report makes no sense".into()))?;
                return Ok(Ended {
                    usage: usage(&report, began.elapsed()),
                    report,
                    stopped: self.stopped,
                });
            }
            let event = self.next().await;
            self.handle(event)?;
        }
    }

    /// Whether both streams had their end, the caller has all of them, and the helper waits for another request.
    fn is_complete(&self) -> bool {
        let ended = self.stdout.is_complete() && self.stderr.is_complete();
        ended && self.pending.is_empty() && !self.is_midway
    }

    async fn next(&mut self) -> Event {
        let is_killed = matches!(self.phase, Phase::Killed(_));
        let is_running = matches!(self.phase, Phase::Running);
        let time = match self.phase {
            Phase::Running => None,
            Phase::Terminating(time) | Phase::Killed(time) => Some(time),
        };
        let timer = async {
            match time {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        let front = self.queue.front().cloned().unwrap_or_default();
        let waits = !self.pending.is_empty();
        tokio::select! {
            biased;
            () = self.side.output.closed(), if !is_killed => Event::Abandoned,
            cause = self.stop.cancelled(), if is_running => Event::Stopped(cause),
            () = self.stop.killed(), if !is_killed && !is_running => Event::Kill,
            // While the caller does not take output, the helper cannot say anything.
            () = timer, if time.is_some() && !(is_killed && waits) => {
                if is_killed { Event::Silent } else { Event::Kill }
            }
            sent = send(&mut self.connection.input, &front), if !front.is_empty() || self.is_unflushed => {
                Event::Sent(sent)
            }
            Some(frame) = self.side.input.recv(), if front.is_empty() => Event::Input(frame),
            permit = self.side.output.reserve(), if waits => {
                if let (Ok(permit), Some(chunk)) = (permit, self.pending.pop_front()) {
                    permit.send(chunk);
                } else {
                    self.pending.clear();
                }
                Event::Taken
            }
            output = self.connection.output.next(), if !waits => Event::Output(output),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Abandoned => {
                self.pending.clear();
                self.kill();
            }
            Event::Stopped(cause) => {
                self.stopped = Some(cause.into());
                if self.stop.is_killed() {
                    self.kill();
                } else {
                    self.queue.push_back(signal_frame(SIGTERM).into());
                    self.phase = Phase::Terminating(
                        tokio::time::Instant::now() + self.grace.min(LONGEST_GRACE),
                    );
                }
            }
            Event::Kill => self.kill(),
            Event::Silent => return Err(Lost::Silent),
            Event::Sent(Ok(Sent::All)) => self.is_unflushed = false,
            Event::Sent(Ok(Sent::Bytes(count))) => {
                self.is_unflushed = true;
                if let Some(front) = self.queue.front_mut() {
                    let _ = front.split_to(count);
                    self.is_midway = !front.is_empty();
                    if !self.is_midway {
                        self.queue.pop_front();
                    }
                }
            }
            Event::Sent(Err(error)) => {
                return Err(Lost::Connection(format!("writing to the helper: {error}")));
            }
            Event::Input(frame) => self.queue.push_back(frame.into()),
            Event::Taken => {}
            Event::Output(None) => return Err(Lost::Connection("it was closed".into())),
            Event::Output(Some(Err(error))) => return Err(Lost::Connection(error.to_string())),
            Event::Output(Some(Ok(output))) => self.take(output)?,
        }
        Ok(())
    }

    fn kill(&mut self) {
        self.queue.push_back(kill_frame().into());
        self.phase = Phase::Killed(tokio::time::Instant::now() + self.patience);
    }

    fn take(&mut self, output: LogOutput) -> Result<(), Lost> {
        if let Phase::Killed(time) = &mut self.phase {
            *time = tokio::time::Instant::now() + self.patience;
        }
        let (stream, scan, bytes) = match output {
            LogOutput::StdOut { message } => (Stream::Stdout, &mut self.stdout, message),
            LogOutput::StdErr { message } => (Stream::Stderr, &mut self.stderr, message),
            other => {
                return Err(Lost::Connection(format!(
                    "bytes that belong to neither stream: {} of them",
                    other.as_ref().len()
                )));
            }
        };
        // One chunk of one frame: output full of zeros comes out of the scan byte by byte.
        let mut output = Vec::with_capacity(bytes.len());
        scan.push(&bytes, |bytes| output.extend_from_slice(bytes));
        if !output.is_empty() && !self.side.output.is_closed() {
            let bytes = output.into();
            self.pending.push_back(Chunk { stream, bytes });
        }
        if scan.has_surplus() {
            return Err(Lost::Connection("something came behind its end".into()));
        }
        Ok(())
    }
}

/// What became of bytes for the helper.
enum Sent {
    Bytes(usize),
    /// Nothing is in a buffer.
    All,
}

/// Sends some of `bytes`; if there are none, what is still in a buffer. Nothing is lost when the future is dropped.
async fn send(input: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<Sent> {
    if bytes.is_empty() {
        input.flush().await?;
        return Ok(Sent::All);
    }
    match input.write(bytes).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        count => Ok(Sent::Bytes(count)),
    }
}

fn usage(report: &Report, wall: Duration) -> ResourceUsage {
    ResourceUsage {
        wall,
        cpu: Some(report.cpu),
        peak_memory_bytes: report.peak_memory_bytes,
        written_bytes: Some(report.written_bytes),
    }
}

#[cfg(test)]
mod tests;
