//! How registries are spoken to.

use hm_vm::Cancellation;
use hm_vm::oci::{HostOptions, RegistryClient, RegistryOptions};

use crate::app::App;

/// A client as the configuration and the environment say. `cancel` ends all that it does.
///
/// # Errors
///
/// The configuration cannot be read, or a file that it names is not there.
pub(crate) fn client(app: &App, cancel: &Cancellation) -> anyhow::Result<RegistryClient> {
    client_with(app, RegistryOptions::default(), cancel)
}

/// As [`client`], with the times and tries of `base`.
///
/// # Errors
///
/// As [`client`].
pub(crate) fn client_with(
    app: &App,
    base: RegistryOptions,
    cancel: &Cancellation,
) -> anyhow::Result<RegistryClient> {
    let hosts = app.configuration()?.registries.iter().map(|(name, rule)| {
        let options = HostOptions {
            mirrors: rule.mirrors.clone(),
            plain_http: rule.plain_http,
            roots: rule.roots.clone(),
        };
        (name.clone(), options)
    });
    let client = RegistryClient::new(RegistryOptions {
        hosts: hosts.collect(),
        credentials: app.environment.credentials.clone(),
        proxies: app.environment.proxies.clone(),
        cancel: cancel.clone(),
        ..base
    });
    Ok(client?)
}
