//! The user's side of a terminal session.

use anyhow::{Context as _, Result};
use hm_vm_core::Terminal;
use hm_vm_sys::helper::{hang_up_frame, input_frames, size_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::exec::Watcher;

/// Typed bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// Carries bytes both ways and passes size changes on, until the command has ended and all that it wrote has been
/// shown. At the end of the input, the session gets a hang-up. Dropping the future ends the command.
///
/// # Errors
///
/// The user's terminal cannot be read or written.
pub(crate) async fn relay(terminal: Terminal, watcher: Watcher) -> Result<()> {
    let Terminal {
        mut input,
        mut output,
        mut size,
    } = terminal;
    let Watcher {
        output: mut shown,
        input: frames,
    } = watcher;
    let show = async {
        while let Some(chunk) = shown.recv().await {
            output
                .write_all(&chunk.bytes)
                .await
                .context("writing to the terminal")?;
            output.flush().await.context("writing to the terminal")?;
        }
        Ok(())
    };
    // The job may end at any time, and its end of the channel with it: the output's end says that.
    let take = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = input
                .read(&mut buffer)
                .await
                .context("reading from the terminal")?;
            let frame = match length {
                0 => hang_up_frame(),
                length => input_frames(&buffer[..length]),
            };
            if frames.send(frame).await.is_err() || length == 0 {
                return std::future::pending::<Result<()>>().await;
            }
        }
    };
    let follow = async {
        while size.changed().await.is_ok() {
            let now = *size.borrow_and_update();
            if frames
                .send(size_frame(now.columns, now.rows))
                .await
                .is_err()
            {
                break;
            }
        }
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        shown = show => shown,
        taken = take => taken,
        followed = follow => followed,
    }
}
