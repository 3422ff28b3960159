//! What a command is asked for with, checked and put together.

use hm_vm_core::{Error, ExecRequest, TerminalSize};
use hm_vm_sys::helper::{Nonce, Request, RequestError};

use crate::image::ImageDefaults;
use crate::mounts::Mounts;

/// The environment of a command that declares none, beside its user's.
const DEFAULT: [(&str, &str); 4] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LANG", "C.UTF-8"),
];

/// A command, checked, and what of it is needed to say what is wrong with it.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    request: Request,
    working_dir: String,
    user: String,
    secret_targets: Vec<String>,
}

impl Command {
    /// The command of a request in a VM of an image with these defaults.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`].
    pub(crate) fn new(
        asked: &ExecRequest<'_>,
        defaults: &ImageDefaults,
        mounts: &Mounts,
        terminal: Option<TerminalSize>,
    ) -> Result<Self, Error> {
        let mut request = Request::shell(asked.cmd);
        for (name, value) in DEFAULT {
            request = request.default_variable(name, value);
        }
        for (name, value) in defaults.env.iter().chain(asked.env) {
            request = request.variable(name.as_str(), value.as_str());
        }
        let (working_dir, make) = working_dir(asked.working_dir, defaults)?;
        request = request.working_directory(working_dir, make);
        let user = asked.user.or(defaults.user.as_deref());
        if let Some(user) = user {
            request = request.user(user);
        }
        for (_, content) in &mounts.secrets {
            request = request.secret(content.expose());
        }
        for (_, target) in &mounts.volumes {
            request = request.owned(target.as_str());
        }
        if let Some(size) = terminal {
            request = request
                .default_variable("TERM", "xterm-256color")
                .terminal(size.columns, size.rows);
        }
        Ok(Self {
            request,
            working_dir: working_dir.to_owned(),
            user: user.unwrap_or("root").to_owned(),
            secret_targets: (mounts.secrets.iter())
                .map(|(target, _)| target.clone())
                .collect(),
        })
    }

    /// The frame that asks the helper for it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a text with a zero byte, a variable with an impossible name, or when all is too long together.
    pub(crate) fn frame(&self, nonce: &Nonce) -> Result<Vec<u8>, Error> {
        self.request.encode(nonce).map_err(refused)
    }

    /// Its directory, for messages.
    pub(super) fn working_dir(&self) -> &str {
        &self.working_dir
    }

    /// Its user, for messages.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Where one of its secrets is to be, for messages.
    pub(super) fn secret_target(&self, index: usize) -> &str {
        self.secret_targets.get(index).map_or("", String::as_str)
    }
}

/// The directory of a command: what is asked for; if that is nothing, the one that the image names, or the root. And whether it
/// is made where it does not exist, as Docker makes the one that an image names.
fn working_dir<'a>(asked: &'a str, defaults: &'a ImageDefaults) -> Result<(&'a str, bool), Error> {
    let (path, make) = match (asked, &defaults.working_dir) {
        ("", Some(of_image)) => (of_image.as_str(), true),
        ("", None) => ("/", false),
        (asked, _) => (asked, false),
    };
    if !path.starts_with('/') {
        return Err(Error::InvalidInput {
            what: format!("working directory {path:?}"),
            reason: "must be an absolute path".into(),
        });
    }
    Ok((path, make))
}

fn refused(error: RequestError) -> Error {
    let (what, reason) = match error {
        RequestError::ZeroByte { what } => (what, "must not contain a zero byte".to_owned()),
        RequestError::VariableName { name } => (
            format!("environment variable {name:?}"),
            "a name must not be empty, and must not contain \"=\"".to_owned(),
        ),
        error @ RequestError::TooLarge { .. } => ("the command".to_owned(), error.to_string()),
    };
    Error::InvalidInput { what, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hm_vm_core::Cancellation;

    fn refusal<'a>(
        stop: &'a Cancellation,
        change: impl FnOnce(&mut ExecRequest<'a>),
    ) -> Option<String> {
        let mut asked = ExecRequest::new("true", stop);
        change(&mut asked);
        let nonce = Nonce::new([1; Nonce::SIZE]);
        let command = Command::new(&asked, &ImageDefaults::default(), &Mounts::default(), None);
        match command.and_then(|command| command.frame(&nonce)) {
            Ok(_) => None,
            Err(Error::InvalidInput { what, .. }) => Some(what),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let stop = Cancellation::new();
        let environments = [
            pair("", "x"),
            pair("a=b", "x"),
            pair("a\0", "x"),
            pair("a", "\0"),
        ];
        for env in &environments {
            let what = refusal(&stop, |asked| asked.env = env).expect("refused");
            assert!(what.contains("environment variable"), "{what}");
        }
        for directory in ["x", "./x", "/a\0b"] {
            let what = refusal(&stop, |asked| asked.working_dir = directory).expect("refused");
            assert!(what.contains("working directory"), "{what}");
        }
        assert_eq!(
            refusal(&stop, |asked| asked.cmd = "a\0").as_deref(),
            Some("the command")
        );
        assert_eq!(refusal(&stop, |asked| asked.working_dir = ""), None);
    }
}
