//! What is to run, and how.

use std::collections::BTreeMap;
use std::fmt;

use super::frames::{LARGEST, frame, size};

/// Where a command is found that is too long for an argument: see [`Request::shell`].
pub const SCRIPT_PATH: &str = "/dev/hm-vm-run/script";

/// Longest argument that the kernel takes (`MAX_ARG_STRLEN`), less its end.
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;

/// Marks the end of one job's output. The guest must not be able to guess it.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce([u8; Self::SIZE]);

impl Nonce {
    /// In bytes.
    pub const SIZE: usize = 32;

    /// Of random bytes. The first becomes 0, which text does not have: so text is never held back.
    pub fn new(mut random: [u8; Self::SIZE]) -> Self {
        random[0] = 0;
        Self(random)
    }

    /// As it is written.
    pub fn bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce")
    }
}

/// A command, and all around it. `Debug` shows no values and no secrets.
#[derive(Clone, Default)]
pub struct Request {
    argv: Vec<Vec<u8>>,
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    defaults: BTreeMap<Vec<u8>, Vec<u8>>,
    directory: Option<(String, bool)>,
    user: Option<String>,
    secrets: Vec<Vec<u8>>,
    /// Directories that become the user's.
    owned: Vec<String>,
    script: Option<Vec<u8>>,
    terminal: Option<(u16, u16)>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("directory", &self.directory)
            .field("user", &self.user)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// A request that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The kernel's texts end at the first one.
    #[error("{what} must not contain a zero byte")]
    ZeroByte {
        /// What contains one.
        what: String,
    },
    /// Not a name.
    #[error("environment variable {name:?}: a name must not be empty, and must not contain \"=\"")]
    VariableName {
        /// What should be one.
        name: String,
    },
    /// All together is more than the helper takes.
    #[error("command, environment and secrets of {bytes} bytes: {LARGEST} bytes are possible")]
    TooLarge {
        /// How much it is.
        bytes: usize,
    },
}

impl Request {
    /// Runs a program, by its path, with arguments. `argv[0]` is both.
    pub fn new(argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Runs `/bin/sh -c COMMAND`. A command that is too long for an argument goes to a file
    /// ([`SCRIPT_PATH`]) that the shell reads, and that is gone afterwards.
    pub fn shell(command: &str) -> Self {
        if command.len() <= LONGEST_ARGUMENT {
            return Self::new(["/bin/sh", "-c", command]);
        }
        Self {
            script: Some(command.into()),
            ..Self::new(["/bin/sh", "-c", &format!(". {SCRIPT_PATH}")])
        }
    }

    /// A variable of the environment. The last one of a name holds.
    #[must_use]
    pub fn variable(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// A variable that holds unless [`variable`](Self::variable) sets it, or the user's account does
    /// (`HOME`, `USER` and `LOGNAME` of [`user`](Self::user)). Without a user, `HOME=/root` and `USER=root` are there by themselves, below these.
    #[must_use]
    pub fn default_variable(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.defaults.insert(name.into(), value.into());
        self
    }

    /// Working directory, absolute; `/` without. With `make`, it is made (of root, 0755) where it is missing.
    #[must_use]
    pub fn working_directory(mut self, path: impl Into<String>, make: bool) -> Self {
        self.directory = Some((path.into(), make));
        self
    }

    /// `NAME|UID[:GROUP]`, looked up in the guest's files; root without.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// What is to be written to the file `/dev/hm-vm-secrets/N` of the container, which becomes the command's user's: N is 0 for the
    /// first secret, and so on. Whoever makes the container mounts these files, and where the secret is to be seen. They are
    /// empty again when the command has ended.
    #[must_use]
    pub fn secret(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.secrets.push(content.into());
        self
    }

    /// A directory that becomes the command's user's, unless that is root. What is in it stays whose it is.
    #[must_use]
    pub fn owned(mut self, directory: impl Into<String>) -> Self {
        self.owned.push(directory.into());
        self
    }

    /// A pseudo-terminal of the command's own, in character cells; what it shows comes on standard output.
    #[must_use]
    pub fn terminal(mut self, columns: u16, rows: u16) -> Self {
        self.terminal = Some((columns, rows));
        self
    }

    /// The frame that makes the helper run it.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    pub fn encode(&self, nonce: &Nonce) -> Result<Vec<u8>, RequestError> {
        let mut fields = Fields(nonce.bytes().to_vec());
        for argument in &self.argv {
            fields.text(b'c', argument, || "the command".into())?;
        }
        fields.variables(b'e', &self.variables)?;
        fields.variables(b'd', &self.defaults)?;
        if let Some((path, make)) = &self.directory {
            let tag = if *make { b'W' } else { b'w' };
            fields.text(tag, path.as_bytes(), || {
                format!("working directory {path:?}")
            })?;
        }
        if let Some(user) = &self.user {
            fields.text(b'u', user.as_bytes(), || format!("user {user:?}"))?;
        }
        for content in &self.secrets {
            fields.add(b's', &[content]);
        }
        for directory in &self.owned {
            fields.text(b'o', directory.as_bytes(), || format!("{directory:?}"))?;
        }
        if let Some(script) = &self.script {
            if script.contains(&0) {
                return Err(RequestError::ZeroByte {
                    what: "the command".into(),
                });
            }
            fields.add(b'x', &[script]);
        }
        if let Some((columns, rows)) = self.terminal {
            fields.add(b't', &[&size(columns, rows)]);
        }
        if fields.0.len() > LARGEST {
            return Err(RequestError::TooLarge {
                bytes: fields.0.len(),
            });
        }
        Ok(frame(b'R', &fields.0))
    }
}

/// Fields of a request: tag, length, bytes, and a zero byte.
struct Fields(Vec<u8>);

impl Fields {
    fn add(&mut self, tag: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.0.push(tag);
        self.0
            .extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
    }

    fn text(
        &mut self,
        tag: u8,
        text: &[u8],
        what: impl FnOnce() -> String,
    ) -> Result<(), RequestError> {
        if text.contains(&0) {
            return Err(RequestError::ZeroByte { what: what() });
        }
        self.add(tag, &[text]);
        Ok(())
    }

    fn variables(
        &mut self,
        tag: u8,
        variables: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), RequestError> {
        for (name, value) in variables {
            let shown = || String::from_utf8_lossy(name).into_owned();
            if name.is_empty() || name.contains(&b'=') {
                return Err(RequestError::VariableName { name: shown() });
            }
            let both = [name, b"=".as_slice(), value].concat();
            self.text(tag, &both, || format!("environment variable {:?}", shown()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce() -> Nonce {
        Nonce::new([7; Nonce::SIZE])
    }

    #[test]
    fn texts_with_zero_bytes_and_impossible_names_are_refused() {
        let run = || Request::shell("true");
        let bad = [
            Request::shell("a\0b"),
            Request::shell(&"\0".repeat(LONGEST_ARGUMENT + 1)),
            run().variable("A", "\0"),
            run().default_variable("A\0", ""),
            run().working_directory("/\0", false),
            run().user("\0"),
            run().owned("/\0"),
        ];
        for request in bad {
            let error = request.encode(&nonce());
            assert!(matches!(error, Err(RequestError::ZeroByte { .. })));
        }
        for name in ["", "A=B"] {
            let error = run().variable(name, "x").encode(&nonce());
            assert!(matches!(error, Err(RequestError::VariableName { .. })));
        }
        assert!(run().secret("\0\0").encode(&nonce()).is_ok());
    }

    #[test]
    fn what_the_helper_does_not_take_is_refused() {
        let request = Request::shell("true").secret(vec![1; LARGEST]);
        assert!(matches!(
            request.encode(&nonce()),
            Err(RequestError::TooLarge { .. })
        ));
    }

    #[test]
    fn debug_shows_no_secret() {
        let request = Request::shell("echo hush")
            .secret("hush")
            .variable("A", "hush");
        let shown = format!("{request:?} {:?}", nonce());
        assert!(!shown.contains("hush") && !shown.contains('7'), "{shown}");
    }
}
