//! The command of a request, and what it is connected to.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use hm_vm_core::Error;
use hm_vm_store::ImageDefaults;

use crate::environment::text;
use crate::limits::Confinement;
use crate::mounts::Mounts;
use crate::network::Network;
use crate::plan::{self, SCRIPT_PATH};

/// Longest argument that the kernel takes (`MAX_ARG_STRLEN`), less its end.
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;

/// What runs a command.
pub(crate) const SHELL: &str = "/bin/sh";

/// What differs between a command with pipes and one on a terminal.
pub(crate) struct Run<'a> {
    pub(crate) confinement: &'a Confinement,
    pub(crate) network: &'a Network,
    pub(crate) mounts: Option<&'a Mounts>,
    pub(crate) input: Option<&'a OwnedFd>,
    pub(crate) output: [&'a OwnedFd; 2],
    pub(crate) terminal: Option<&'a Path>,
}

impl Run<'_> {
    /// Standard input, output and error.
    pub(crate) fn stdio(&self) -> Result<[OwnedFd; 3]> {
        let duplicate = |fd: &OwnedFd| fd.try_clone().context("duplicating a descriptor");
        let input = match self.input {
            Some(input) => duplicate(input)?,
            None => std::fs::File::open("/dev/null")
                .context("opening /dev/null")?
                .into(),
        };
        let [stdout, stderr] = self.output;
        Ok([input, duplicate(stdout)?, duplicate(stderr)?])
    }
}

/// The command's working directory.
#[derive(Clone, Debug)]
pub(crate) struct WorkingDirectory {
    pub(crate) path: CString,
    /// Whether it is made where it does not exist, as Docker makes the one that an image names.
    pub(crate) make: bool,
}

impl WorkingDirectory {
    /// What is asked for; if that is nothing, the one that the image names, or the root.
    pub(crate) fn new(asked: &str, defaults: &ImageDefaults) -> Result<Self, Error> {
        let (path, make) = match (asked, &defaults.working_dir) {
            ("", Some(of_image)) => (of_image.as_str(), true),
            ("", None) => ("/", false),
            (asked, _) => (asked, false),
        };
        let what = || format!("working directory {path:?}");
        if !path.starts_with('/') {
            return Err(Error::InvalidInput {
                what: what(),
                reason: "must be an absolute path".into(),
            });
        }
        Ok(Self {
            path: text(path, what)?,
            make,
        })
    }
}

/// The arguments of the shell, and the script where it is too long for an argument.
pub(crate) fn command_line(cmd: &str) -> Result<(Vec<CString>, Option<&str>), Error> {
    let command = text(cmd, || "the command".into())?;
    let shell = || vec![plan::c(SHELL), c"-c".into()];
    let mut argv = shell();
    if cmd.len() <= LONGEST_ARGUMENT {
        argv.push(command);
        return Ok((argv, None));
    }
    argv.push(plan::c(&format!(". {SCRIPT_PATH}")));
    Ok((argv, Some(cmd)))
}
