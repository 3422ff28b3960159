//! The one door to standard output and standard error.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::OutputClosed;
use crate::input::environment::Environment;
use crate::output::sanitize::sanitize;

/// How much the program says of itself, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Talk {
    /// Errors alone.
    Quiet,
    /// Closing lines, notices and hints.
    #[default]
    Normal,
}

/// Colours, or their absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// No colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    /// Whether there are colours.
    pub(crate) fn is_coloured(self) -> bool {
        self.coloured
    }

    /// Strong text.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Text that matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Something wrong.
    pub(crate) fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something right.
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something to look at.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Text in one of several colours that are easy to tell apart: the same number, the same colour.
    pub(crate) fn hue(self, number: usize, text: &str) -> String {
        const HUES: [&str; 6] = ["36", "35", "34", "33", "32", "96"];
        self.paint(HUES[number % HUES.len()], text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Prints: data to standard output, talk to standard error. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Ui {
    talk: Talk,
    out: Style,
    err: Style,
    live: bool,
    drawable: bool,
    terminal: Terminal,
}

/// Standard error, which a view may have that draws on it.
#[derive(Clone, Default)]
struct Terminal {
    lent: Arc<Mutex<Option<Borrower>>>,
}

/// Takes whole lines, with their ends.
type Borrower = Arc<dyn Fn(&str) + Send + Sync>;

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    fn lent(&self) -> Option<Borrower> {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.clone()
    }

    fn lend(&self, borrower: Option<Borrower>) {
        *self.lent.lock().unwrap_or_else(PoisonError::into_inner) = borrower;
    }
}

/// Takes whole lines: tracing gives one at a time.
impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.lent() {
            Some(borrower) => {
                borrower(&String::from_utf8_lossy(bytes));
                Ok(bytes.len())
            }
            None => io::stderr().lock().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ui {
    /// Colours only on a terminal that knows them, and not under `NO_COLOR`.
    pub(crate) fn new(talk: Talk, environment: &Environment) -> Self {
        let dumb = environment.term.as_deref() == Some("dumb");
        let wanted = !environment.no_color && !dumb;
        let style = |terminal: bool| Style {
            coloured: wanted && terminal,
        };
        let terminals = [io::stdout().is_terminal(), io::stderr().is_terminal()];
        Self {
            talk,
            out: style(terminals[0]),
            err: style(terminals[1]),
            live: terminals == [true; 2] && !dumb,
            drawable: terminals[1] && !dumb,
            terminal: Terminal::default(),
        }
    }

    /// From now on, what would go to standard error goes to `borrower`, which draws there: lines with their ends. It must
    /// not wait.
    pub(crate) fn lend(&self, borrower: impl Fn(&str) + Send + Sync + 'static) {
        self.terminal.lend(Some(Arc::new(borrower)));
    }

    /// Ends [`lend`](Self::lend). Does nothing where nothing is lent.
    pub(crate) fn take_back(&self) {
        self.terminal.lend(None);
    }

    /// Where the log goes: standard error, or who has it.
    pub(crate) fn log(&self) -> impl Write + use<> {
        self.terminal.clone()
    }

    /// Colours of standard output.
    pub(crate) fn out_style(&self) -> Style {
        self.out
    }

    /// Colours of standard error.
    pub(crate) fn err_style(&self) -> Style {
        self.err
    }

    /// Whether both streams are a terminal on which lines can be written again.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether something that moves may be drawn on standard error.
    pub(crate) fn draws(&self) -> bool {
        self.drawable && !self.is_quiet()
    }

    /// Tells of several problems at once, quiet or not: text of several lines.
    pub(crate) fn complain(&self, text: &str) {
        for line in text.lines() {
            self.talk_line(format_args!("{}", sanitize(line)));
        }
    }

    /// Whether nothing but errors is told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.talk == Talk::Quiet
    }

    /// Writes a line of data.
    ///
    /// # Errors
    ///
    /// [`OutputClosed`] when nobody reads any more, or another failure to write.
    pub(crate) fn data(&self, line: impl Display) -> anyhow::Result<()> {
        self.print(format_args!("{line}\n"))
    }

    /// Writes data as it is.
    ///
    /// # Errors
    ///
    /// As [`data`](Self::data).
    pub(crate) fn print(&self, text: impl Display) -> anyhow::Result<()> {
        write_out(|out| write!(out, "{text}"))
    }

    /// Tells something that is not data; not when quiet. That it cannot be shown is no failure.
    pub(crate) fn say(&self, text: impl Display) {
        if self.talk >= Talk::Normal {
            self.talk_line(format_args!("{text}"));
        }
    }

    /// Tells something that the user should know although the work goes on.
    pub(crate) fn notice(&self, text: &str) {
        self.say(format_args!("{} {text}", self.err.yellow("note:")));
    }

    /// Tells of a failure, quiet or not.
    pub(crate) fn error(&self, message: &str, hint: Option<&str>) {
        self.talk_line(format_args!("{} {message}", self.err.red("error:")));
        if let Some(hint) = hint {
            self.talk_line(format_args!("{} {hint}", self.err.green("hint:")));
        }
    }

    fn talk_line(&self, text: fmt::Arguments<'_>) {
        // One write call a line, so that lines of several processes do not mix.
        let line = format!("{text}\n");
        let _unseen = self.terminal.clone().write_all(line.as_bytes());
    }
}

/// Runs a write to standard output and flushes it.
pub(crate) fn write_out(
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => OutputClosed.into(),
            _ => anyhow::Error::new(error).context("cannot write to standard output"),
        })
}
