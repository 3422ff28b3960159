//! Programs that die with the test that started them, and whose words can be waited for.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lock::lock;

/// How long anything here may take on a busy machine before the test is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The lines that a program has written so far.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    readers: usize,
}

impl Lines {
    /// All lines so far.
    pub(crate) fn all(&self) -> Vec<String> {
        lock(&self.state).lines.clone()
    }

    /// How many lines there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state).lines.len()
    }

    /// Waits for a line, from the one of this number on, of which `wanted` makes something. `None`
    /// when the program ends without it, or patience does.
    pub(crate) fn wait_for<T>(
        &self,
        from: usize,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = from;
        let mut state = lock(&self.state);
        loop {
            while let Some(line) = state.lines.get(seen) {
                if let Some(found) = wanted(line) {
                    return Some(found);
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.readers == 0 || left.is_zero() {
                return None;
            }
            state = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn read(self: &Arc<Self>, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(self);
        lock(&lines.state).readers += 1;
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lock(&lines.state).lines.push(text);
                lines.grown.notify_all();
                line.clear();
            }
            lock(&lines.state).readers -= 1;
            lines.grown.notify_all();
        })
    }
}

/// A running program. It is killed and reaped when this is dropped, and killed by the kernel when
/// the test's process dies.
pub(crate) struct Supervised {
    child: Child,
    out: Arc<Lines>,
    err: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
    /// The kernel's signal comes at the end of the *thread* that started the program: this one
    /// stays until the program is gone.
    keeper: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl fmt::Debug for Supervised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervised")
            .field("pid", &self.child.id())
            .finish_non_exhaustive()
    }
}

impl Supervised {
    /// Starts a program, given with its arguments, in an environment of its own. What it writes is
    /// added to `out` and `err`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn start(
        program: &[&std::ffi::OsStr],
        environment: &[(&str, &std::ffi::OsStr)],
        out: &Arc<Lines>,
        err: &Arc<Lines>,
    ) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(program)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (started, start) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let keeper = std::thread::spawn(move || {
            let sent = started.send(command.spawn());
            drop(sent);
            // Ends when the sender is dropped.
            let _: Result<(), _> = ended.recv();
        });
        let mut child = start
            .recv()
            .context("the thread that starts a program ended")?
            .with_context(|| format!("starting {program:?} by setpriv"))?;
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|from| out.read(from)));
        readers.extend(child.stderr.take().map(|from| err.read(from)));
        Ok(Self {
            child,
            out: Arc::clone(out),
            err: Arc::clone(err),
            readers,
            keeper: Some((end, keeper)),
        })
    }

    /// The program's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it. It is reaped when this is dropped.
    pub(crate) fn kill(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // Fails only for a program that is gone.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }

    /// What it has written, for messages about what went wrong.
    pub(crate) fn words(&self) -> String {
        let mut words = self.out.all();
        words.extend(self.err.all());
        words.join("\n")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end by a signal, and waits until it has closed its output.
    pub(crate) fn ask_to_end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok() {
            self.err.wait_for(usize::MAX, |_| None::<()>);
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Both fail only for a program that is gone and reaped.
        let killed = self.child.kill();
        let reaped = self.child.wait();
        drop((killed, reaped));
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
        if let Some((end, keeper)) = self.keeper.take() {
            drop(end);
            drop(keeper.join());
        }
    }
}
