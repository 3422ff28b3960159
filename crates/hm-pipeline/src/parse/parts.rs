//! Parts of a step that stand for themselves.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::forms::{Filled, GuestPath, Pattern};
use super::model::{
    CacheDirectoryTable, CacheTable, InjectTable, OutputTable, SecretTable, StepTable, patterns,
};
use super::names::{CacheName, variable_name};
use super::reader::Reader;
use super::tree::Span;
use super::unions::{CacheWord, Secrets, TextOr};
use super::values::{As, Map, Must, OneOrMany, Text};
use crate::pipeline::{
    CacheDirectory, CacheMode, CacheRule, CacheSharing, Inject, Outputs, SecretForm, SecretSource,
    SecretUse,
};

type InjectItem = TextOr<As<Filled>, InjectTable>;

/// Whether something is brought into the working directory.
pub(super) fn injects_untargeted(table: &StepTable) -> bool {
    table.inject.as_ref().is_some_and(|OneOrMany(items)| {
        items.iter().any(|item| match item {
            TextOr::Short(_) => true,
            TextOr::Long(table) => table.target.is_none(),
        })
    })
}

/// Injects with their targets.
pub(super) fn injects(
    list: Option<OneOrMany<InjectItem>>,
    working_dir: &str,
    reader: &mut Reader<'_>,
) -> Vec<Inject> {
    let mut injects: Vec<Inject> = Vec::new();
    for item in list.map_or_else(Vec::new, |OneOrMany(items)| items) {
        let (span, inject) = inject(item, working_dir);
        if injects.iter().any(|other| other.target == inject.target) {
            reader.report(
                span,
                format!("two injects have the target `{}`", inject.target),
                "give one of them another `target`",
            );
        }
        injects.push(inject);
    }
    injects
}

fn inject(item: InjectItem, working_dir: &str) -> (Span, Inject) {
    match item {
        TextOr::Short(source) => (
            source.span,
            Inject {
                source: PathBuf::from(source.value),
                target: working_dir.to_owned(),
                include: Vec::new(),
                exclude: Vec::new(),
                ignore_files: true,
                with_outputs: false,
            },
        ),
        TextOr::Long(table) => {
            let span = table
                .target
                .as_ref()
                .map_or(table.source.span, |target| target.span);
            let target = table.target.map(|target| target.value);
            let inject = Inject {
                source: PathBuf::from(table.source.value),
                target: target.unwrap_or_else(|| working_dir.to_owned()),
                include: patterns(table.include),
                exclude: patterns(table.exclude),
                ignore_files: table.ignore_files.is_none_or(|value| value.0),
                with_outputs: table.with_outputs.is_some_and(|value| value.0),
            };
            (span, inject)
        }
    }
}

/// Whether and how a result is cached.
pub(super) fn cache_rule(
    cache: Option<TextOr<As<CacheWord>, CacheTable>>,
    reader: &mut Reader<'_>,
) -> CacheRule {
    let table = match cache {
        None => return CacheRule::default(),
        Some(TextOr::Short(word)) => {
            return CacheRule {
                mode: word.value,
                ..CacheRule::default()
            };
        }
        Some(TextOr::Long(table)) => table,
    };
    let off = table
        .mode
        .as_ref()
        .filter(|mode| mode.value == CacheMode::Off);
    if let (Some(key), Some(_)) = (&table.key, off) {
        let hint = "remove `key`, or `mode`";
        reader.report(key.span, "a step that is not cached has no key", hint);
    }
    if let (Some(key), Some(_)) = (&table.key, &table.inputs) {
        reader.report(
            key.span,
            "`inputs` have no effect with a key of your own",
            "remove `key` to have one derived, or put what matters into it",
        );
    }
    let mode = match (table.key, off) {
        (Some(key), None) => CacheMode::Key(key.value),
        (_, Some(_)) => CacheMode::Off,
        (None, None) => CacheMode::Auto,
    };
    CacheRule {
        mode,
        inputs: patterns(table.inputs),
        ttl: table.ttl.map(|time| time.value),
    }
}

/// Outputs with their host directories.
pub(super) fn outputs(
    list: Option<OneOrMany<TextOr<As<Pattern>, OutputTable>>>,
    directory: &Path,
    reader: &mut Reader<'_>,
) -> Vec<Outputs> {
    let items = list.map_or_else(Vec::new, |OneOrMany(items)| items);
    items
        .into_iter()
        .map(|item| match item {
            TextOr::Short(pattern) => Outputs {
                pattern: pattern.value,
                to: PathBuf::new(),
            },
            TextOr::Long(table) => {
                let mut to = PathBuf::new();
                if let Some(given) = table.to {
                    match given.value.strip_prefix(directory) {
                        Ok(below) => to = below.to_owned(),
                        Err(_) if given.value.is_absolute() => reader.report(
                            given.span,
                            format!(
                                "`{}` is outside the pipeline's directory",
                                given.value.display()
                            ),
                            "write a path below that directory, as \"dist\"",
                        ),
                        Err(_) => to = given.value,
                    }
                }
                Outputs {
                    pattern: table.path.value,
                    to,
                }
            }
        })
        .collect()
}

/// Cache directories, each with the place of its name.
pub(super) fn caches(
    map: Option<Map<CacheName, TextOr<As<GuestPath>, CacheDirectoryTable>>>,
) -> Vec<(Span, CacheDirectory)> {
    let entries = map.map_or_else(Vec::new, |map| map.entries);
    entries
        .into_iter()
        .map(|(name, item)| {
            let (target, sharing) = match item {
                TextOr::Short(target) => (target.value, CacheSharing::default()),
                TextOr::Long(table) => (
                    table.target.value,
                    table
                        .sharing
                        .map_or_else(Default::default, |sharing| sharing.value),
                ),
            };
            let cache = CacheDirectory {
                name: name.text,
                target,
                sharing,
            };
            (name.span, cache)
        })
        .collect()
}

/// Secrets, each with the place of its name.
pub(super) fn secrets(
    secrets: Option<Secrets>,
    env: &BTreeMap<String, String>,
    reader: &mut Reader<'_>,
) -> Vec<(Span, SecretUse)> {
    let entries = secrets.map_or_else(Vec::new, |secrets| secrets.entries);
    let mut variables: HashMap<String, String> = HashMap::new();
    let mut read = Vec::new();
    for (name, table) in entries {
        let Some(secret) = secret(&name, table, reader) else {
            continue;
        };
        if let SecretForm::Variable(variable) = &secret.form {
            if env.contains_key(variable) {
                reader.report(
                    name.span,
                    format!("the variable `{variable}` of this secret stands in `env` too"),
                    "remove it from `env`, or give the secret another `variable`",
                );
            }
            if let Some(other) = variables.insert(variable.clone(), name.text.clone()) {
                reader.report(
                    name.span,
                    format!("the secret `{other}` has the variable `{variable}` already"),
                    "give one of them another `variable`",
                );
            }
        }
        read.push((name.span, secret));
    }
    read
}

fn secret(name: &Text, table: SecretTable, reader: &mut Reader<'_>) -> Option<SecretUse> {
    let source = match (table.env, table.file) {
        (Some(Must(env)), None) => {
            let env = env?;
            check_variable(&env, reader)?;
            SecretSource::Variable(env.value)
        }
        (None, Some(Must(file))) => SecretSource::File(PathBuf::from(file?.value)),
        (Some(_), Some(Must(file))) => {
            let span = file.map_or(name.span, |file| file.span);
            let hint = "remove one of them: a secret has one source";
            reader.report(span, "`env` and `file` exclude each other", hint);
            return None;
        }
        (None, None) => {
            reader.report(
                name.span,
                format!("the secret `{}` has no source", name.text),
                "add env = \"VARIABLE\" or file = \"PATH\"",
            );
            return None;
        }
    };
    let form = match (table.target, table.variable) {
        (Some(_), Some(variable)) => {
            let hint = "remove one of them: the step gets a file or a variable";
            reader.report(
                variable.span,
                "`target` and `variable` exclude each other",
                hint,
            );
            return None;
        }
        (None, Some(variable)) => {
            check_variable(&variable, reader)?;
            SecretForm::Variable(variable.value)
        }
        (Some(target), None) => SecretForm::File(target.value),
        (None, None) => SecretForm::File(format!("/run/secrets/{}", name.text)),
    };
    Some(SecretUse {
        name: name.text.clone(),
        source,
        form,
    })
}

fn check_variable(name: &As<super::forms::Line>, reader: &mut Reader<'_>) -> Option<()> {
    match variable_name(&name.value) {
        Ok(()) => Some(()),
        Err(wrong) => {
            reader.note(name.span, wrong.message, wrong.suggestion);
            None
        }
    }
}

/// Notes mounts of one step that have the same target, or hide what is brought in.
pub(super) fn check_targets(
    injects: &[Inject],
    caches: &[(Span, CacheDirectory)],
    secrets: &[(Span, SecretUse)],
    reader: &mut Reader<'_>,
) {
    let cache_targets = caches
        .iter()
        .map(|(span, cache)| (*span, format!("the cache `{}`", cache.name), &cache.target));
    let secret_targets = secrets
        .iter()
        .filter_map(|(span, secret)| match &secret.form {
            SecretForm::File(target) => {
                Some((*span, format!("the secret `{}`", secret.name), target))
            }
            SecretForm::Variable(_) => None,
        });
    let mut seen: HashMap<&str, String> = HashMap::new();
    for (span, what, target) in cache_targets.chain(secret_targets) {
        if target == "/" {
            let hint = "choose a directory below /";
            reader.report(span, format!("{what} would hide the whole guest"), hint);
        } else if let Some(inject) = injects
            .iter()
            .find(|inject| Path::new(&inject.target).starts_with(target))
        {
            reader.report(
                span,
                format!("{what} would hide what is injected at `{}`", inject.target),
                "give one of them another target",
            );
        }
        if let Some(other) = seen.insert(target, what) {
            reader.report(
                span,
                format!("{other} has the target `{target}` already"),
                "give one of them another target",
            );
        }
    }
}
