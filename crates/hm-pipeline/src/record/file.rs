//! `run.json`: reading and writing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use hm_vm_core::Error;
use serde::{Deserialize, Serialize};

use super::files::{self, doing};
use super::model::{RunRecord, RunSummary, StepRecord};

/// Name of the file in a run's directory.
pub(super) const NAME: &str = "run.json";

/// Version of the form. Changes when an older program would misread a file.
pub(super) const VERSION: u32 = 1;

/// A first line may not be longer: what is, is none.
const MAX_HEAD: u64 = 16 << 20;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head<T> {
    version: u32,
    #[serde(flatten)]
    summary: T,
}

/// All that every version of the first line has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Writes the file of a run.
pub(super) fn write(directory: &Path, record: &RunRecord) -> Result<()> {
    let head = Head {
        version: VERSION,
        summary: &record.summary,
    };
    let path = directory.join(NAME);
    let mut content = Vec::with_capacity(1024 * (1 + record.steps.len()));
    let encoded = serde_json::to_writer(&mut content, &head)
        .map_err(Into::into)
        .and_then(|()| content.write_all(b"\n"))
        .and_then(|()| Ok(serde_json::to_writer(&mut content, &record.steps)?))
        .and_then(|()| content.write_all(b"\n"));
    doing(encoded, "encoding", &path)?;
    files::replace(&path, &content)
}

/// Reads the first line of a run's file. `None` when there is no such run.
///
/// # Errors
///
/// [`Error::BadState`] for a newer or broken file.
pub(super) fn read_summary(directory: &Path, id: u64) -> Result<Option<RunSummary>> {
    Ok(open(directory, id)?.map(|(summary, _)| summary))
}

/// Reads a run's file. `None` when there is no such run.
///
/// # Errors
///
/// [`Error::BadState`] for a newer or broken file.
pub(super) fn read(directory: &Path, id: u64) -> Result<Option<RunRecord>> {
    let Some((summary, mut rest)) = open(directory, id)? else {
        return Ok(None);
    };
    let path = directory.join(NAME);
    let mut content = Vec::new();
    doing(rest.read_to_end(&mut content), "reading", &path)?;
    let steps: Vec<StepRecord> = serde_json::from_slice(&content)
        .map_err(|error| broken(&path, &error))
        .context("the steps of a run cannot be read")?;
    Ok(Some(RunRecord { summary, steps }))
}

fn open(directory: &Path, id: u64) -> Result<Option<(RunSummary, BufReader<File>)>> {
    let path = directory.join(NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => doing(file, "opening", &path)?,
    };
    let mut reader = BufReader::new(file);
    let line = doing(first_line(&mut reader), "reading", &path)?;
    let Version { version } =
        serde_json::from_slice(&line).map_err(|error| broken(&path, &error))?;
    if version > VERSION {
        return Err(newer(&path, version).into());
    }
    let head: Head<RunSummary> =
        serde_json::from_slice(&line).map_err(|error| broken(&path, &error))?;
    // The directory's name counts: that is what the user sees.
    let summary = RunSummary { id, ..head.summary };
    Ok(Some((summary, reader)))
}

fn first_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(MAX_HEAD).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Whether a run is of a newer program, as far as that can be told.
pub(super) fn is_newer(directory: &Path) -> bool {
    let file = File::open(directory.join(NAME));
    let line = file.and_then(|file| first_line(&mut BufReader::new(file)));
    let head = line.map(|line| serde_json::from_slice(&line));
    matches!(head, Ok(Ok(Version { version })) if version > VERSION)
}

/// Says that a file was written by a newer program.
pub(super) fn newer(path: &Path, version: u32) -> Error {
    Error::BadState {
        path: path.display().to_string(),
        reason: format!(
            "it has version {version}, and this program knows version {VERSION}: it was written by a newer hmvm"
        ),
    }
}

/// Says that a file is broken.
pub(super) fn broken(path: &Path, error: &serde_json::Error) -> Error {
    Error::BadState {
        path: path.display().to_string(),
        reason: format!("it is broken: {error}"),
    }
}
