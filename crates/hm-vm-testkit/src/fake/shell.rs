//! Interpreter of the fake's command language.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use hm_vm_core::{OutputDecoder, OutputSink, Stream};

use super::script::{Join, Piece, Redirect, Simple, Word, parse};
use super::tree::{Node, Tree};
use crate::lock::lock;

/// One running command, as callbacks of [`FakeBackend::on_exec`] see it.
///
/// [`FakeBackend::on_exec`]: super::FakeBackend::on_exec
pub struct FakeExec<'a> {
    pub(super) tree: &'a Mutex<Tree>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: String,
    pub(super) sink: &'a dyn OutputSink,
    pub(super) decoder: OutputDecoder,
    /// What `trap … TERM` set.
    pub(super) trap: &'a Mutex<Option<String>>,
    pub(super) status: i32,
}

impl std::fmt::Debug for FakeExec<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeExec")
            .field("env", &self.env)
            .field("working_dir", &self.working_dir)
            .finish_non_exhaustive()
    }
}

/// How a simple command ended.
enum Step {
    Status(i32),
    Exit(i32),
    Sleep(Duration),
}

impl FakeExec<'_> {
    /// The environment, defaults included.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The directory in which the command runs.
    pub fn working_dir(&self) -> &str {
        &self.working_dir
    }

    /// Writes a line to standard output.
    pub fn out(&mut self, line: &str) {
        self.write(Stream::Stdout, format!("{line}\n").as_bytes());
    }

    /// Writes a line to standard error.
    pub fn err(&mut self, line: &str) {
        self.write(Stream::Stderr, format!("{line}\n").as_bytes());
    }

    /// Writes bytes to a stream.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.decoder.push(stream, bytes, self.sink);
    }

    /// Contents of a file of the VM, if there is one.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        let tree = self.lock();
        match tree.get(&tree.resolve(&self.working_dir, path, true)?)? {
            Node::File { bytes, .. } => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Writes a file of the VM, with the directories above it.
    ///
    /// # Errors
    ///
    /// Says what is in the way.
    pub fn write_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), String> {
        let mut tree = self.lock();
        let path = tree
            .resolve(&self.working_dir, path, true)
            .ok_or("too many links")?;
        tree.make_directories(super::tree::parent(&path))
            .map_err(|error| error.to_string())?;
        tree.put(
            &path,
            Node::File {
                bytes: bytes.to_vec(),
                mode: 0o644,
            },
        )
    }

    /// Runs a command line to its end.
    pub(super) async fn run(&mut self, text: &str) -> i32 {
        let commands = match parse(text) {
            Ok(commands) => commands,
            Err(reason) => {
                self.err(&format!("sh: {reason}"));
                return 2;
            }
        };
        for command in commands {
            let skip = match command.join {
                Join::Always => false,
                Join::IfOk => self.status != 0,
                Join::IfFailed => self.status == 0,
            };
            if skip {
                continue;
            }
            // A real command may be dropped between any two of its effects.
            tokio::task::yield_now().await;
            match self.simple(&command) {
                Step::Status(status) => self.status = status,
                Step::Exit(status) => return status,
                Step::Sleep(time) => {
                    tokio::time::sleep(time).await;
                    self.status = 0;
                }
            }
        }
        self.status
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        lock(self.tree)
    }

    fn simple(&mut self, command: &Simple) -> Step {
        let words: Vec<String> = command.words.iter().map(|word| self.expand(word)).collect();
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        match args[..] {
            ["exit"] => return Step::Exit(self.status),
            ["exit", code] => return Step::Exit(code.parse::<i32>().unwrap_or(2) & 0xFF),
            ["kill", signal, "$$"] => {
                let number = signal.trim_start_matches('-').parse::<i32>();
                return Step::Exit(128 + number.unwrap_or(0));
            }
            ["sleep", "infinity"] => return Step::Sleep(Duration::from_secs(1 << 30)),
            ["sleep", time] => {
                let seconds = time.parse::<f64>().unwrap_or(0.0).clamp(0.0, 1e9);
                return Step::Sleep(Duration::from_secs_f64(seconds));
            }
            ["trap", body, "TERM"] => {
                let mut trap = lock(self.trap);
                *trap = Some(body.to_owned());
                return Step::Status(0);
            }
            _ => {}
        }
        let mut out = Vec::new();
        let result = super::shell::builtin(self, &args, &mut out);
        let status = self.deliver(command, &out).and(result);
        Step::Status(status.unwrap_or_else(|(status, message)| {
            if !message.is_empty() {
                self.err(&format!("sh: {message}"));
            }
            status
        }))
    }

    fn expand(&self, word: &Word) -> String {
        word.iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Variable(name) if name == "?" => self.status.to_string(),
                Piece::Variable(name) if name == "$" => "$$".into(),
                Piece::Variable(name) => self.env.get(name).cloned().unwrap_or_default(),
            })
            .collect()
    }

    fn deliver(&mut self, command: &Simple, out: &[u8]) -> Result<i32, (i32, String)> {
        let (word, append) = match &command.redirect {
            None => {
                self.write(Stream::Stdout, out);
                return Ok(0);
            }
            Some(Redirect::Stderr) => {
                self.write(Stream::Stderr, out);
                return Ok(0);
            }
            Some(Redirect::Truncate(word)) => (word, false),
            Some(Redirect::Append(word)) => (word, true),
        };
        let path = self.expand(word);
        let mut tree = self.lock();
        let path = tree
            .resolve(&self.working_dir, &path, true)
            .ok_or((2, format!("{path}: too many links")))?;
        let (mut bytes, mode) = match tree.get(&path) {
            Some(Node::File { bytes, mode }) if append => (bytes.clone(), *mode),
            Some(Node::File { mode, .. }) => (Vec::new(), *mode),
            _ => (Vec::new(), 0o644),
        };
        bytes.extend_from_slice(out);
        let written = tree.put(&path, Node::File { bytes, mode });
        written.map(|()| 0).map_err(|message| (2, message))
    }
}

type Builtin = Result<i32, (i32, String)>;

fn fail(message: impl Into<String>) -> Builtin {
    Err((1, message.into()))
}

/// Commands that neither wait nor end the script.
fn builtin(exec: &FakeExec<'_>, args: &[&str], out: &mut Vec<u8>) -> Builtin {
    let at = |tree: &Tree, path: &str, follow| tree.resolve(&exec.working_dir, path, follow);
    let mut tree = exec.lock();
    match *args {
        [":" | "true", ..] => {}
        ["false", ..] => return Ok(1),
        ["echo", ..] => out.extend(format!("{}\n", args[1..].join(" ")).into_bytes()),
        ["pwd"] => out.extend(format!("{}\n", exec.working_dir).into_bytes()),
        ["printenv", name] => match exec.env.get(name) {
            Some(value) => out.extend(format!("{value}\n").into_bytes()),
            None => return Ok(1),
        },
        ["cat", ..] => {
            for path in &args[1..] {
                match at(&tree, path, true).and_then(|path| tree.get(&path)) {
                    Some(Node::File { bytes, .. }) => out.extend(bytes),
                    _ => return fail(format!("{path}: No such file or directory")),
                }
            }
        }
        ["test", "!", flag, path] => return Ok(i32::from(test(&tree, exec, flag, path))),
        ["test", flag, path] => return Ok(i32::from(!test(&tree, exec, flag, path))),
        ["test", left, "=", right] => return Ok(i32::from(left != right)),
        ["readlink", path] => match at(&tree, path, false).and_then(|path| tree.get(&path)) {
            Some(Node::Link { target }) => out.extend(format!("{target}\n").into_bytes()),
            _ => return Ok(1),
        },
        ["stat", "-c", "%a", path] => match at(&tree, path, false).and_then(|p| tree.get(&p)) {
            Some(node) => out.extend(format!("{:o}\n", node.mode()).into_bytes()),
            None => return fail(format!("{path}: No such file or directory")),
        },
        ["ls", path] => match at(&tree, path, true) {
            Some(path) if tree.is_directory(&path) => {
                out.extend(
                    tree.children(&path)
                        .iter()
                        .flat_map(|n| format!("{n}\n").into_bytes()),
                );
            }
            _ => return fail(format!("{path}: No such directory")),
        },
        _ => return change(&mut tree, &exec.working_dir, args),
    }
    Ok(0)
}

fn test(tree: &Tree, exec: &FakeExec<'_>, flag: &str, path: &str) -> bool {
    let path = tree.resolve(&exec.working_dir, path, !matches!(flag, "-L" | "-h"));
    let node = path.as_deref().and_then(|path| tree.get(path));
    match flag {
        "-e" => node.is_some(),
        "-f" => matches!(node, Some(Node::File { .. })),
        "-d" => matches!(node, Some(Node::Directory { .. })),
        "-L" | "-h" => matches!(node, Some(Node::Link { .. })),
        _ => false,
    }
}

/// Commands that change files.
fn change(tree: &mut Tree, base: &str, args: &[&str]) -> Builtin {
    let at = |tree: &Tree, path: &str| {
        tree.resolve(base, path, false)
            .ok_or((1, format!("{path}: too many links")))
    };
    match *args {
        ["rm", ..] => {
            let flags: String = args
                .iter()
                .filter(|arg| arg.starts_with('-'))
                .copied()
                .collect();
            for path in args[1..].iter().filter(|arg| !arg.starts_with('-')) {
                let full = at(tree, path)?;
                if tree.is_directory(&full) && !flags.contains('r') {
                    return fail(format!("{path}: Is a directory"));
                }
                if !tree.remove(&full) && !flags.contains('f') {
                    return fail(format!("{path}: No such file or directory"));
                }
            }
        }
        ["mkdir", "-p", path] => {
            let full = at(tree, path)?;
            tree.make_directories(&full)
                .map_err(|error| (1, error.to_string()))?;
        }
        ["mkdir", path] => {
            let full = at(tree, path)?;
            if tree.get(&full).is_some() {
                return fail(format!("{path}: File exists"));
            }
            tree.put(&full, Node::directory())
                .map_err(|message| (1, message))?;
        }
        ["touch", path] => {
            let full = at(tree, path)?;
            if tree.get(&full).is_none() {
                let file = Node::File {
                    bytes: Vec::new(),
                    mode: 0o644,
                };
                tree.put(&full, file).map_err(|message| (1, message))?;
            }
        }
        ["mv", from, to] => {
            let (from, mut target) = (at(tree, from)?, at(tree, to)?);
            if tree.is_directory(&target) {
                target = format!("{target}{}", &from[from.rfind('/').unwrap_or(0)..]);
            }
            if tree.has_children(&target) || !tree.rename(&from, &target) {
                return fail(format!("cannot move {from} to {target}"));
            }
        }
        ["ln", "-s", target, path] => {
            let full = at(tree, path)?;
            if tree.get(&full).is_some() {
                return fail(format!("{path}: File exists"));
            }
            let link = Node::Link {
                target: target.to_owned(),
            };
            tree.put(&full, link).map_err(|message| (1, message))?;
        }
        ["chmod", mode, path] => {
            let full = at(tree, path)?;
            match u32::from_str_radix(mode, 8) {
                Ok(mode) if tree.set_mode(&full, mode) => {}
                _ => return fail(format!("{path}: cannot change mode to {mode}")),
            }
        }
        _ => {
            let name = args.first().copied().unwrap_or_default();
            return Err((
                127,
                format!("{name}: not found, or not with these arguments"),
            ));
        }
    }
    Ok(0)
}
