//! The part of the terminal that is redrawn.

use std::fmt;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::stdio::stderr;
use rustix::termios::tcgetwinsize;

/// The size where none can be had.
const USUAL: Size = Size {
    rows: 24,
    columns: 80,
};

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Lines that stay, and below them some that are drawn again and again.
pub(super) struct Screen {
    /// A bar of several lines: all are drawn at once.
    bar: ProgressBar,
    /// The same terminal, for what stays.
    out: Box<dyn Write + Send>,
    size: Box<dyn Fn() -> Size + Send>,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// The terminal that standard error is.
    pub(super) fn stderr() -> Self {
        let out = Box::new(io::stderr());
        Self::new(ProgressDrawTarget::stderr(), out, Box::new(measured))
    }

    /// The terminal that `target` and `out` lead to.
    pub(super) fn new(
        target: ProgressDrawTarget,
        out: Box<dyn Write + Send>,
        size: Box<dyn Fn() -> Size + Send>,
    ) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        // The text is all there is; it is not a template of the user's that could be wrong.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, out, size }
    }

    pub(super) fn size(&self) -> Size {
        (self.size)()
    }

    /// Adds text that stays, of whole lines.
    pub(super) fn keep(&mut self, text: &str) {
        let out = &mut self.out;
        self.bar.suspend(|| {
            // That it cannot be shown is no failure.
            let _unseen = out.write_all(text.as_bytes());
        });
    }

    /// Replaces the lines that are redrawn. They must be no wider than the terminal.
    pub(super) fn show(&mut self, lines: &[String]) {
        self.bar.set_message(lines.join("\n"));
    }

    /// Takes the lines that are redrawn away.
    pub(super) fn clear(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn measured() -> Size {
    match tcgetwinsize(stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size {
            rows: usize::from(size.ws_row),
            columns: usize::from(size.ws_col),
        },
        _ => USUAL,
    }
}
