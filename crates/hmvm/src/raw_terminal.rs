//! The user's own terminal, handed to a VM and taken back in every case.

use std::io;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use hm_vm::TerminalSize;

/// How the terminal was before. Shared with the panic hook, which must put it back on any thread.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps the terminal in raw mode: keys go to the VM as they are typed, Ctrl-C included. Ends when
/// dropped, and on a panic before its message is shown.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Puts the terminal on standard input into raw mode.
    ///
    /// # Errors
    ///
    /// Standard input is not a terminal, or does not let its mode be changed.
    pub(crate) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let earlier = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                earlier(panic);
            }));
        });
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        // From here on the guard exists, so a failure puts the old mode back as well.
        let guard = Self(());
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs no mode.
        let _gone = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

/// Size of the terminal; the usual 80 × 24 where it does not say.
pub(crate) fn size() -> TerminalSize {
    match tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize {
            columns: size.ws_col,
            rows: size.ws_row,
        },
        _ => TerminalSize::default(),
    }
}
