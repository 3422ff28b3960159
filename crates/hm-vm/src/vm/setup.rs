//! What an execution's options come to, before anything is done.

use std::borrow::Cow;
use std::sync::Arc;

use hm_vm_core::{Action, Error, Mount, Secret, VmConfig};

use super::{ExecuteOptions, HmVm};
use crate::output::Mask;

/// What the command gets. No `Debug`: the environment has secrets in it.
pub(super) struct Setup<'a> {
    pub(super) config: &'a VmConfig,
    pub(super) env: Cow<'a, [(String, String)]>,
    pub(super) mask: Option<Arc<Mask>>,
}

impl<'a> Setup<'a> {
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a secret that cannot be hidden, or cannot be the value of a variable. It is named,
    /// not shown.
    pub(super) fn new(
        engine: &'a HmVm,
        action: &'a Action,
        options: &'a ExecuteOptions,
    ) -> Result<Self, Error> {
        Ok(Self {
            config: options.config.as_ref().unwrap_or(&engine.config),
            env: environment(action, options)?,
            mask: Mask::new(secrets(options))?,
        })
    }
}

fn environment<'a>(
    action: &'a Action,
    options: &ExecuteOptions,
) -> Result<Cow<'a, [(String, String)]>, Error> {
    let mut env = Cow::Borrowed(action.env.as_slice());
    for (name, secret) in &options.secret_env {
        let value = std::str::from_utf8(secret.expose()).ok();
        let value = value.filter(|value| !value.contains('\0'));
        let value = value.ok_or_else(|| Error::InvalidInput {
            what: variable(name),
            reason: "its value is not text: give it as a file".into(),
        })?;
        env.to_mut().push((name.clone(), value.to_owned()));
    }
    Ok(env)
}

fn variable(name: &str) -> String {
    format!("secret environment variable {name:?}")
}

/// Everything that is to be hidden, with what it is called.
fn secrets(options: &ExecuteOptions) -> impl Iterator<Item = (String, &Secret)> {
    let masked = options.masked.iter();
    let masked = masked.map(|secret| ("a value that is to be hidden".to_owned(), secret));
    let variables = options.secret_env.iter();
    let variables = variables.map(|(name, secret)| (variable(name), secret));
    let mounts = options.mounts.iter().filter_map(|mount| match mount {
        Mount::Secret { target, content } => Some((format!("secret {target:?}"), content)),
        _ => None,
    });
    masked.chain(variables).chain(mounts)
}
