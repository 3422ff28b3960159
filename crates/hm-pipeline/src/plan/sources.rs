//! From what a step injects to what the backend is asked for.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use hm_vm_core::{Error, InjectSource};

use super::model::PlannedInject;
use super::outputs::Landings;
use super::patterns;
use crate::pipeline::{Inject, Pipeline, Step, StepId};

/// Resolves injects; each host path is looked at once.
pub(super) struct Sources<'a> {
    pipeline: &'a Pipeline,
    landings: Landings,
    places: HashMap<&'a Path, Place>,
    excluded: HashMap<PathBuf, Vec<String>>,
}

/// What a host path is.
#[derive(Clone)]
enum Place {
    Directory(PathBuf),
    /// A file, or a link to one.
    File {
        directory: PathBuf,
        name: OsString,
    },
}

impl<'a> Sources<'a> {
    /// For the injects of one pipeline.
    pub(super) fn of(pipeline: &'a Pipeline) -> Self {
        Self {
            pipeline,
            landings: Landings::of(pipeline, &real_path),
            places: HashMap::new(),
            excluded: HashMap::new(),
        }
    }

    /// The injects of a step, without digests.
    pub(super) fn injects(&mut self, id: StepId) -> Result<Vec<PlannedInject>, Error> {
        let step = self.pipeline.step(id);
        let injects = step.injects.iter();
        injects.map(|inject| self.inject(step, inject)).collect()
    }

    fn inject(&mut self, step: &Step, inject: &'a Inject) -> Result<PlannedInject, Error> {
        let place = match self.places.get(inject.source.as_path()) {
            Some(place) => place.clone(),
            None => {
                let place = place_of(&self.pipeline.directory.join(&inject.source))
                    .map_err(|reason| invalid(step, inject, reason))?;
                self.places.insert(&inject.source, place.clone());
                place
            }
        };
        let source = match place {
            Place::Directory(directory) => self.directory(directory, inject),
            Place::File { directory, name } => InjectSource {
                include: vec![format!("/{}", file_pattern(step, inject, &name)?)],
                directory,
                exclude: Vec::new(),
                ignore_files: false,
            },
        };
        Ok(PlannedInject {
            source,
            target: inject.target.clone(),
            digest: None,
        })
    }

    fn directory(&mut self, directory: PathBuf, inject: &Inject) -> InjectSource {
        let mut exclude = inject.exclude.clone();
        if !inject.with_outputs {
            let landings = &self.landings;
            let outputs = self
                .excluded
                .entry(directory.clone())
                .or_insert_with(|| landings.excluded_from(&directory));
            exclude.extend(outputs.iter().cloned());
        }
        InjectSource {
            directory,
            include: inject.include.clone(),
            exclude,
            ignore_files: inject.ignore_files,
        }
    }
}

fn invalid(step: &Step, inject: &Inject, reason: String) -> Error {
    Error::InvalidInput {
        what: format!("inject {:?} of step {:?}", inject.source, step.name),
        reason,
    }
}

fn file_pattern(step: &Step, inject: &Inject, name: &OsString) -> Result<String, Error> {
    if name.to_str().is_none() {
        let reason = "the name of a single file must be UTF-8".to_owned();
        return Err(invalid(step, inject, reason));
    }
    Ok(patterns::literal(name.as_bytes()))
}

/// Looks at a path; says what is wrong with it otherwise.
fn place_of(path: &Path) -> Result<Place, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("{} cannot be looked at: {error}", path.display()),
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Ok(Place::Directory(fs::canonicalize(path).map_err(failed)?));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(format!("{} has no name", path.display()));
    };
    if !metadata.is_file() {
        return Err(format!(
            "{} is neither a directory nor a regular file",
            path.display()
        ));
    }
    // Links are brought as links: one that does not change the name is better followed.
    let real = fs::canonicalize(path).map_err(failed)?;
    let directory = match real.parent() {
        Some(parent) if real.file_name() == Some(name) => parent.to_owned(),
        _ => fs::canonicalize(directory).map_err(failed)?,
    };
    Ok(Place::File {
        directory,
        name: name.to_owned(),
    })
}

/// A path without links, `.` and `..`, as far as it exists; the rest of it as it is written.
fn real_path(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    let mut exists = true;
    for component in path.components() {
        match component {
            Component::CurDir => continue,
            Component::ParentDir => {
                real.pop();
                continue;
            }
            other => real.push(other),
        }
        if exists {
            match fs::canonicalize(&real) {
                Ok(found) => real = found,
                Err(_) => exists = false,
            }
        }
    }
    real
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_that_does_not_exist_yet_is_real_as_far_as_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        let path = root.join("./link/new/../other");
        assert_eq!(real_path(&path), root.join("real/other"));
    }

    #[test]
    fn a_place_is_a_directory_or_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::write(root.join("file"), "").unwrap();
        symlink(&root, root.join("self")).unwrap();
        assert!(matches!(
            place_of(&root.join("self/.")).unwrap(),
            Place::Directory(found) if found == root
        ));
        assert!(matches!(
            place_of(&root.join("self/file")).unwrap(),
            Place::File { directory, name } if directory == root && name == "file"
        ));
        assert!(place_of(&root.join("gone")).is_err());
        assert!(place_of(Path::new("/dev/null")).is_err());
    }
}
