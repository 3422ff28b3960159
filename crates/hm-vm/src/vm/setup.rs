//! What an execution's options come to, before anything is done.

use std::borrow::Cow;
use std::sync::Arc;

use hm_vm_core::{Action, Error, Mount, PrivateNetwork, Secret, VmConfig};

use super::{ExecuteOptions, HmVm, Prepared};
use crate::output::Mask;

/// What the command gets. No `Debug`: the environment has secrets in it.
pub(super) struct Setup<'a> {
    pub(super) config: &'a VmConfig,
    pub(super) env: Cow<'a, [(String, String)]>,
    pub(super) mounts: Cow<'a, [Mount]>,
    pub(super) network: Option<Arc<dyn PrivateNetwork>>,
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
        let mut env = Cow::Borrowed(action.env.as_slice());
        add_secrets(&mut env, &options.secret_env)?;
        Ok(Self {
            config: options.config.as_ref().unwrap_or(&engine.config),
            env,
            mounts: Cow::Borrowed(&options.mounts),
            network: options.network.clone(),
            mask: Mask::new(secrets(options, &Prepared::default()))?,
        })
    }

    /// Adds what a preparation gave.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(super) fn add(
        &mut self,
        options: &ExecuteOptions,
        prepared: Prepared,
    ) -> Result<(), Error> {
        add_secrets(&mut self.env, &prepared.secret_env)?;
        self.mask = Mask::new(secrets(options, &prepared))?;
        if !prepared.mounts.is_empty() {
            self.mounts.to_mut().extend(prepared.mounts);
        }
        if prepared.network.is_some() {
            self.network = prepared.network;
        }
        Ok(())
    }
}

fn add_secrets(
    env: &mut Cow<'_, [(String, String)]>,
    secrets: &[(String, Secret)],
) -> Result<(), Error> {
    for (name, secret) in secrets {
        let value = std::str::from_utf8(secret.expose()).ok();
        let value = value.filter(|value| !value.contains('\0'));
        let value = value.ok_or_else(|| Error::InvalidInput {
            what: variable(name),
            reason: "its value is not text: give it as a file".into(),
        })?;
        env.to_mut().push((name.clone(), value.to_owned()));
    }
    Ok(())
}

fn variable(name: &str) -> String {
    format!("secret environment variable {name:?}")
}

/// Everything that is to be hidden, with what it is called.
fn secrets<'a>(
    options: &'a ExecuteOptions,
    prepared: &'a Prepared,
) -> impl Iterator<Item = (String, &'a Secret)> {
    let masked = options.masked.iter().chain(&prepared.masked);
    let masked = masked.map(|secret| ("a value that is to be hidden".to_owned(), secret));
    let variables = options.secret_env.iter().chain(&prepared.secret_env);
    let variables = variables.map(|(name, secret)| (variable(name), secret));
    let mounts = options.mounts.iter().chain(&prepared.mounts);
    let mounts = mounts.filter_map(|mount| match mount {
        Mount::Secret { target, content } => Some((format!("secret {target:?}"), content)),
        _ => None,
    });
    masked.chain(variables).chain(mounts)
}
