//! Secrets: where their values come from, and how a command gets them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hm_pipeline::pipeline::{SecretForm, SecretSource, SecretUse};
use hm_vm::{Mount, Secret};

use crate::failure::Problem;
use crate::input::environment;
use crate::output::sanitize::{sanitize, sanitize_path};

/// Longer ones are refused: they are held in memory, and looked for in all output.
const MAX_BYTES: u64 = 1 << 20;

/// The secrets of one step, read.
#[derive(Debug, Default)]
pub(super) struct StepSecrets {
    pub(super) mounts: Vec<Mount>,
    pub(super) env: Vec<(String, Secret)>,
}

/// Reads the secrets of a step. Done each time that it runs: nothing holds them longer than needed.
pub(super) fn read(uses: &[SecretUse], directory: &Path) -> Result<StepSecrets, Problem> {
    let mut secrets = StepSecrets::default();
    for secret in uses {
        let value = value(secret, directory)?;
        match &secret.form {
            SecretForm::File(target) => secrets.mounts.push(Mount::Secret {
                target: target.clone(),
                content: Secret::new(value),
            }),
            SecretForm::Variable(name) => {
                let value = Secret::new(without_line_end(value, &secret.source));
                secrets.env.push((name.clone(), value));
            }
        }
    }
    Ok(secrets)
}

/// What a shell's `$(cat FILE)` would give.
fn without_line_end(mut value: Vec<u8>, source: &SecretSource) -> Vec<u8> {
    if matches!(source, SecretSource::File(_)) {
        while value
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            value.pop();
        }
    }
    value
}

fn value(secret: &SecretUse, directory: &Path) -> Result<Vec<u8>, Problem> {
    let name = sanitize(&secret.name).into_owned();
    match &secret.source {
        SecretSource::Variable(variable) => environment::secret(variable).ok_or_else(|| {
            Problem::new(format!("secret {name}: the variable {variable} is not set"))
                .hint(format!("set it for this run: {variable}=… hmvm run"))
        }),
        SecretSource::File(path) => {
            let path = file(path, directory)?;
            let shown = sanitize_path(&path);
            let mut value = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut value))
                .map_err(|error| {
                    Problem::new(format!("secret {name}: cannot read {shown}: {error}"))
                        .hint("the file is named in the pipeline file, under secrets")
                })?;
            if u64::try_from(value.len()).unwrap_or(u64::MAX) > MAX_BYTES {
                return Err(Problem::new(format!(
                    "secret {name}: {shown} is larger than 1 MiB"
                )));
            }
            Ok(value)
        }
    }
}

fn file(path: &Path, directory: &Path) -> Result<PathBuf, Problem> {
    match path.strip_prefix("~") {
        Ok(rest) => environment::home()
            .map(|home| home.join(rest))
            .ok_or_else(|| Problem::new("~ stands for HOME, which is not set")),
        Err(_) => Ok(directory.join(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(path: &Path, form: SecretForm) -> SecretUse {
        SecretUse {
            name: "token".into(),
            source: SecretSource::File(path.to_owned()),
            form,
        }
    }

    #[test]
    fn a_file_is_mounted_as_it_is_and_a_variable_has_no_line_end() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("t"), "hunter2\n").unwrap();
        let uses = [
            from_file("t".as_ref(), SecretForm::File("/run/secrets/token".into())),
            from_file("t".as_ref(), SecretForm::Variable("TOKEN".into())),
        ];
        let secrets = read(&uses, place.path()).unwrap();
        let Mount::Secret { content, .. } = &secrets.mounts[0] else {
            panic!("{secrets:?}")
        };
        assert_eq!(content.expose(), b"hunter2\n");
        assert_eq!(secrets.env[0].1.expose(), b"hunter2");
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_missing_or_too_large_is_told_by_name() {
        let place = tempfile::tempdir().unwrap();
        let missing = from_file("none".as_ref(), SecretForm::Variable("T".into()));
        let problem = read(&[missing], place.path()).unwrap_err().to_string();
        assert!(
            problem.starts_with("secret token: cannot read"),
            "{problem}"
        );
        std::fs::write(place.path().join("big"), vec![b'x'; (1 << 20) + 1]).unwrap();
        let big = from_file("big".as_ref(), SecretForm::Variable("T".into()));
        let problem = read(&[big], place.path()).unwrap_err().to_string();
        assert!(problem.contains("larger than 1 MiB"), "{problem}");
    }
}
