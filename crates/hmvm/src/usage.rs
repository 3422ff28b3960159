//! Wrong options, told like any other failure: one line and a hint.

use std::ffi::OsString;

use clap::error::ErrorKind;

use crate::exit_codes;
use crate::output::sanitize::sanitize;

/// What is to be done when the options could not be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Help or the version was asked for: text for standard output.
    Asked(String),
    /// No command was given: help for standard error.
    Nothing(String),
    /// The options are wrong.
    Wrong {
        /// What is wrong, in one line.
        message: String,
        /// What to write instead.
        hint: String,
    },
}

impl Usage {
    /// Reads clap's error about `arguments`, which begin with the program's name. `coloured` is
    /// about help texts.
    pub(crate) fn of(error: &clap::Error, arguments: &[OsString], coloured: bool) -> Self {
        let rendered = error.render();
        let text = if coloured {
            rendered.ansi().to_string()
        } else {
            rendered.to_string()
        };
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Self::Asked(format!("{}\n", text.trim_end()))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Self::Nothing(text),
            kind => Self::wrong(kind, &rendered.to_string(), arguments),
        }
    }

    /// Exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Asked(_) => exit_codes::SUCCESS,
            Self::Nothing(_) | Self::Wrong { .. } => exit_codes::FAILED,
        }
    }

    /// clap writes the problem as a first paragraph, then tips, the usage and a pointer to help.
    /// Our own parsers add a line `hint: …` to theirs.
    fn wrong(kind: ErrorKind, rendered: &str, arguments: &[OsString]) -> Self {
        let mut message = Vec::new();
        let mut hint = None;
        let mut in_problem = true;
        for line in rendered.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("hint: ") {
                hint = Some(text.to_owned());
                in_problem = false;
            } else if let Some(text) = line.strip_prefix("tip: ") {
                hint = hint.or_else(|| Some(text.to_owned()));
                in_problem = false;
            } else if line.is_empty() || line.starts_with("Usage:") {
                in_problem = false;
            } else if in_problem {
                message.push(line.strip_prefix("error: ").unwrap_or(line));
            }
        }
        let usage = rendered
            .lines()
            .find_map(|line| line.strip_prefix("Usage: "));
        let message = message.join(" ");
        let hint = hint.unwrap_or_else(|| {
            let takes_command = usage.is_some_and(|usage| usage.contains("-- <CMD>"));
            if message.contains("[possible values: ") {
                "write one of the possible values".into()
            } else if kind == ErrorKind::UnknownArgument && takes_command {
                "the command stands behind --, as in: hmvm exec -- make".into()
            } else {
                format!("{} --help shows what it takes", command_of(arguments))
            }
        });
        Self::Wrong {
            message: sanitize(&message).into_owned(),
            hint: sanitize(&hint).into_owned(),
        }
    }
}

/// The command that the arguments begin with, as in `hmvm cache gc`.
fn command_of(arguments: &[OsString]) -> String {
    let mut command = crate::cli::command();
    let mut words = vec!["hmvm".to_owned()];
    for argument in arguments.iter().skip(1) {
        let Some(below) = command.find_subcommand(argument).cloned() else {
            break;
        };
        words.push(below.get_name().to_owned());
        command = below;
    }
    words.join(" ")
}
