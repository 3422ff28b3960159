//! Ctrl-C once, and twice.
//!
//! The first SIGINT, SIGTERM or SIGHUP asks the command to end; a second one kills it. A thread of
//! its own waits for them, so that they count even while the program is held up writing output
//! that nobody reads.

use std::io;
use std::thread;
use std::time::Duration;

use hm_vm::{CancelCause, Cancellation};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::{Ui, human};

/// From now on, signals cancel `cancel`. Lasts until the program ends.
///
/// # Errors
///
/// No thread or no signal handler can be had.
pub(crate) fn watch(cancel: &Cancellation, grace: Duration, ui: &Ui) -> io::Result<()> {
    let grace = human::duration(grace);
    let text = format!("hmvm: stopping, the command has {grace} to end (once more: at once)");
    watch_saying(cancel, text, ui)
}

/// As [`watch`], for work that has no command.
///
/// # Errors
///
/// As [`watch`].
pub(crate) fn watch_transfer(cancel: &Cancellation, ui: &Ui) -> io::Result<()> {
    watch_saying(cancel, "hmvm: stopping".into(), ui)
}

fn watch_saying(cancel: &Cancellation, text: String, ui: &Ui) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    // Handlers are in place when this function returns: no signal falls between.
    let mut signals = {
        let _guard = runtime.enter();
        Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        }
    };
    let (cancel, ui) = (cancel.clone(), ui.clone());
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                signals.next().await;
                cancel.cancel(CancelCause::User);
                ui.say(text);
                loop {
                    signals.next().await;
                    cancel.kill(CancelCause::User);
                }
            });
        })?;
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
