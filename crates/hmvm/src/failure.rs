//! From any error to one line, a hint and an exit code. No other file decides these.

use std::{fmt, io};

use hm_pipeline::plan::PlanError;
use hm_vm::oci::OciError;
use hm_vm::store::StoreError;
use hm_vm::{Error, Limit};

use crate::exit_codes;
use crate::output::sanitize::sanitize;

/// Something that the user can put right: said in one line, with a hint where there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Problem {
    message: String,
    hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// What the user can do; nothing where that is not known.
    pub(crate) fn hint_text(&self) -> &str {
        self.hint.as_deref().unwrap_or_default()
    }

    /// Adds what the user can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Context that says nothing in the message, and is the hint where the failure has none of its own.
#[derive(Clone, Debug)]
struct Hint(String);

impl fmt::Display for Hint {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Adds a hint to a failure that has none.
pub(crate) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    error.into().context(Hint(hint.into()))
}

/// A failure of the contract with a hint that says more than the usual one.
pub(crate) fn explained(error: Error, hint: impl Into<String>) -> anyhow::Error {
    let problem = Problem::new(error.to_string()).hint(hint);
    anyhow::Error::new(error).context(problem)
}

/// Nobody reads standard output any more. Ends the program quietly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct OutputClosed;

/// What is told about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// One line without control characters. `None` where the program ends without a word.
    pub(crate) message: Option<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
    /// Exit code of the program.
    pub(crate) code: u8,
}

impl Report {
    /// Decides what is told about `error`.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if find::<OutputClosed>(error).is_some() {
            return Self {
                message: None,
                hint: None,
                code: exit_codes::OUTPUT_CLOSED,
            };
        }
        let contract = contract(error);
        let hint = find::<Problem>(error)
            .and_then(|problem| problem.hint.clone())
            .or_else(|| find::<PlanError>(error)?.hint())
            .or_else(|| hint(contract.as_ref()?))
            .or_else(|| error.downcast_ref::<Hint>().map(|hint| hint.0.clone()))
            .or_else(|| image_hint(of_image(error)?))
            .or_else(|| io_hint(error));
        Self {
            message: Some(one_line(error)),
            hint: hint.map(|hint| sanitize(&hint).into_owned()),
            code: contract.as_ref().map_or(exit_codes::FAILED, code),
        }
    }
}

/// The error of the contract that `error` carries, if any.
pub(crate) fn contract(error: &anyhow::Error) -> Option<Error> {
    let of_store = || find::<StoreError>(error).and_then(StoreError::contract);
    let of_images = || match of_image(error)? {
        OciError::Cancelled(cause) => Some(cause.clone()),
        _ => None,
    };
    find::<Error>(error)
        .cloned()
        .or_else(of_store)
        .or_else(of_images)
}

/// The failure with images of others that `error` carries, if any.
pub(crate) fn of_image(error: &anyhow::Error) -> Option<&OciError> {
    match find::<StoreError>(error) {
        Some(StoreError::Oci(error)) => Some(error),
        _ => find(error),
    }
}

/// The first error of a kind in `error` and its causes.
fn find<E: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&E> {
    error
        .downcast_ref::<E>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<E>()))
}

/// All causes in one line. A cause that the line before it already tells is not told twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Nothing, as a hint's, is contained as well.
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    sanitize(line.trim_end()).into_owned()
}

fn code(error: &Error) -> u8 {
    match error {
        Error::TimedOut { .. } => exit_codes::TIMED_OUT,
        Error::Cancelled { .. } => exit_codes::CANCELLED,
        _ => exit_codes::FAILED,
    }
}

fn hint(error: &Error) -> Option<String> {
    let text = match error {
        Error::TimedOut { .. } => "give it more time: --timeout TIME".into(),
        Error::ImageNotFound { .. } => {
            "hmvm image ls lists the images; hmvm image pull and hmvm image import bring others"
                .into()
        }
        Error::SnapshotNotFound { .. } => "hmvm snapshot ls lists the snapshots".into(),
        Error::LimitExceeded { limit, .. } => format!("give it more: --{}", option(*limit)?),
        Error::LimitNotEnforceable { limit, .. } => format!(
            "leave out --{}, or see hmvm doctor for what this machine lacks",
            option(*limit)?
        ),
        Error::ProtectionUnavailable { protection, .. } => format!(
            "--allow-weaker {protection} goes on without it; hmvm doctor says how to get it"
        ),
        Error::BackendUnavailable { .. } => {
            "hmvm doctor says what this machine lacks, and how to get it".into()
        }
        Error::NoSpace { .. } => {
            "hmvm cache gc frees what is not in use; hmvm cache stats says what uses the space"
                .into()
        }
        Error::InvalidInput { what, .. } if what.starts_with("working directory") => {
            "--workdir takes a directory that the VM has; with --inject it is made".into()
        }
        _ => return None,
    };
    Some(text)
}

/// What can be done about a failure with images of others.
fn image_hint(error: &OciError) -> Option<String> {
    let text = match error {
        OciError::Denied { place, .. } => format!(
            "credentials are those of docker login {place} or podman login {place}; an image that does not exist \
             may be refused like this as well"
        ),
        OciError::NotFound { .. } => {
            "see whether its name and tag are right; hmvm image ls lists the images that are here".into()
        }
        OciError::Unreachable { .. } => {
            "images that are here can be used offline; HTTPS_PROXY names a proxy, and docs/images.md tells of mirrors"
                .into()
        }
        OciError::Answer { .. } => "try again later; --verbose tells more".into(),
        OciError::Mismatch { .. } => "what came was thrown away; try again".into(),
        _ => return None,
    };
    Some(text)
}

/// Name of the option that sets a limit.
fn option(limit: Limit) -> Option<&'static str> {
    Limit::ALL.contains(&limit).then(|| limit.name())
}

fn io_hint(error: &anyhow::Error) -> Option<String> {
    match find::<io::Error>(error)?.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("the disk or your quota is full; free some space on it".into())
        }
        io::ErrorKind::PermissionDenied => Some("see who owns it and what its mode is".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use hm_vm::CancelCause;
    use std::time::Duration;

    #[test]
    fn codes_follow_the_contract() {
        let code = |error: Error| Report::of(&error.into()).code;
        let limit = Duration::from_secs(1);
        assert_eq!(code(Error::TimedOut { limit }), 124);
        assert_eq!(
            code(Error::Cancelled {
                cause: CancelCause::User
            }),
            130
        );
        assert_eq!(code(Error::VmLost { reason: "x".into() }), 125);
        assert_eq!(Report::of(&OutputClosed.into()).code, 141);
    }

    #[test]
    fn an_error_is_found_under_its_context_and_told_once() {
        let error = anyhow::Error::new(Error::NoSpace {
            doing: "writing\u{1b}[2J layer 3".into(),
        })
        .context("cannot keep the state");
        let report = Report::of(&error);
        assert_eq!(
            report.message.as_deref(),
            Some("cannot keep the state: no space left while writing\\u{1b}[2J layer 3")
        );
        assert!(report.hint.is_some_and(|hint| hint.contains("cache gc")));

        let hinted = |error: anyhow::Error| Report::of(&super::hinted(error, "do that"));
        let report = hinted(anyhow::anyhow!("broken"));
        assert_eq!(
            (report.message.as_deref(), report.hint.as_deref()),
            (Some("broken"), Some("do that"))
        );
        let limit = Duration::from_secs(1);
        let report = hinted(Error::TimedOut { limit }.into());
        assert_eq!(
            report.hint.as_deref(),
            Some("give it more time: --timeout TIME")
        );
        assert_eq!(report.code, 124);

        let twice = Err::<(), _>(io::Error::other("broken")).context("reading a: broken");
        assert_eq!(
            Report::of(&twice.unwrap_err()).message.as_deref(),
            Some("reading a: broken")
        );
    }
}
