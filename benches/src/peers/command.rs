//! Running other programs.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// Runs a program to its end and returns how long it took; its output only shows up in an error.
pub(super) fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    let duration = start.elapsed();
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(duration)
}

/// Runs a program to its end and returns what it printed.
pub(super) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Starts all commands at once and returns how long it took until the last one had ended.
pub(super) fn timed_together(commands: Vec<Command>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let children: Vec<Child> = commands
        .into_iter()
        .map(|mut command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("starting {command:?}"))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut failed = 0;
    for mut child in children {
        if !child.wait().context("waiting for a peer")?.success() {
            failed += 1;
        }
    }
    ensure!(failed == 0, "{failed} of the commands failed");
    Ok(start.elapsed())
}

/// Tells whether a program is installed, in words for the report.
pub(crate) fn require(program: &str) -> Result<(), String> {
    match Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{program} is not installed"))
        }
        Err(error) => Err(format!("{program} cannot be started: {error}")),
    }
}

/// The first line that `program --version` prints.
pub(crate) fn version(program: &str) -> String {
    output(Command::new(program).arg("--version"))
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| format!("{program}: not installed"))
}
