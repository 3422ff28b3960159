//! Output on its way from the engine's thread to the caller's task.

use bytes::Bytes;
use hm_vm_core::{OutputDecoder, OutputSink, Stream};
use tokio::sync::mpsc;

/// Chunks on the way: with the daemon's 32 KiB each, a mebibyte at most.
const CHUNKS: usize = 32;

/// Frames for the helper on the way.
const FRAMES: usize = 4;

/// A piece of a command's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) stream: Stream,
    pub(crate) bytes: Bytes,
}

/// The engine's end: where output goes to, and frames for the helper come from.
#[derive(Debug)]
pub(crate) struct JobSide {
    pub(super) output: mpsc::Sender<Chunk>,
    pub(super) input: mpsc::Receiver<Vec<u8>>,
}

/// The caller's end. Dropping it ends the command.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// What the command writes. Ends when the job does.
    pub(crate) output: mpsc::Receiver<Chunk>,
    /// Frames for the helper while the command runs.
    pub(crate) input: mpsc::Sender<Vec<u8>>,
}

/// The two ends of a job.
pub(crate) fn pipes() -> (JobSide, Watcher) {
    let (to_caller, output) = mpsc::channel(CHUNKS);
    let (input, from_caller) = mpsc::channel(FRAMES);
    let job = JobSide {
        output: to_caller,
        input: from_caller,
    };
    (job, Watcher { output, input })
}

impl JobSide {
    /// Whether nobody waits for the result any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.output.is_closed()
    }
}

impl Watcher {
    /// Delivers everything, up to the end of the job.
    ///
    /// A sink that is slow holds the command back: nothing is read meanwhile.
    pub(crate) async fn deliver(&mut self, sink: &dyn OutputSink) {
        let mut decoder = OutputDecoder::new();
        while let Some(chunk) = self.output.recv().await {
            decoder.push(chunk.stream, &chunk.bytes, sink);
            // A flood of output into a slow sink must not keep others on this thread from their turn.
            tokio::task::yield_now().await;
        }
        decoder.finish(sink);
    }
}
