//! The network of `outbound` on Docker.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use hm_vm_core::Error;

use crate::error::{DockerError, Doing as _};
use crate::objects;

/// Shared by all owners: there is nothing of anybody's in it.
const NAME: &str = "hm-vm-outbound";

/// Value of the label [`objects::KIND`].
const KIND: &str = "network";

/// Option of the bridge: whether containers on it reach each other.
const TALK: &str = "com.docker.network.bridge.enable_icc";

/// Option of the bridge: whether what leaves it goes by the machine's own address.
const TRANSLATE: &str = "com.docker.network.bridge.enable_ip_masquerade";

/// Whether the daemon has bridges at all: one that runs with `--bridge none` was told not to.
pub(super) async fn is_usable(docker: &Docker) -> bool {
    matches!(
        docker.inspect_network("bridge", None).await,
        Ok(network) if network.driver.as_deref() == Some("bridge")
    )
}

/// The id of the network, which is made where it is missing.
///
/// # Errors
///
/// [`Error::BadState`] when somebody else's network has its name; otherwise a failure of the daemon.
pub(super) async fn ensure(docker: &Docker) -> Result<String> {
    if let Some(id) = find(docker).await? {
        return Ok(id);
    }
    let made = docker
        .create_network(request())
        .await
        .doing(format!("creating the network {NAME}"));
    match made {
        Ok(_) => {}
        // Somebody else was quicker.
        Err(error) if error.is_conflict() => {}
        Err(error) => return Err(error.contract()),
    }
    // Not the one just made: Docker before version 25 makes several of one name, and all are to take the same.
    find(docker).await?.ok_or_else(|| {
        DockerError::Nonsense {
            doing: format!("creating the network {NAME}"),
            detail: "it is not there afterwards".into(),
        }
        .into()
    })
}

fn request() -> NetworkCreateRequest {
    let options = [(TALK, "false"), (TRANSLATE, "true")];
    NetworkCreateRequest {
        name: NAME.into(),
        driver: Some("bridge".into()),
        internal: Some(false),
        attachable: Some(false),
        enable_ipv6: Some(false),
        options: Some(
            options
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        ),
        labels: Some(HashMap::from([(objects::KIND.into(), KIND.into())])),
        ..NetworkCreateRequest::default()
    }
}

/// The oldest network of that name. By its id: names may be there twice.
async fn find(docker: &Docker) -> Result<Option<String>> {
    let filters = HashMap::from([("name", vec![NAME])]);
    let options = ListNetworksOptionsBuilder::default()
        .filters(&filters)
        .build();
    let listed = docker
        .list_networks(Some(options))
        .await
        .doing(format!("looking for the network {NAME}"))?;
    Ok(choose(listed)?)
}

/// The filter of the daemon looks for the name anywhere in others.
fn choose(listed: Vec<Network>) -> Result<Option<String>, Error> {
    let mut named: Vec<Network> = listed
        .into_iter()
        .filter(|network| network.name.as_deref() == Some(NAME))
        .collect();
    if named.is_empty() {
        return Ok(None);
    }
    named.retain(is_ours);
    let oldest = named
        .into_iter()
        .min_by_key(|network| (network.created.clone(), network.id.clone()));
    match oldest.and_then(|network| network.id) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::BadState {
            path: format!("the daemon's network {NAME}"),
            reason: "it was not made by hm-vm, or was changed: containers on it may reach each other. Remove it: it is made \
                     anew"
                .into(),
        }),
    }
}

fn is_ours(network: &Network) -> bool {
    let labels = network.labels.as_ref();
    let options = network.options.as_ref();
    labels
        .and_then(|labels| labels.get(objects::KIND))
        .map(String::as_str)
        == Some(KIND)
        && options
            .and_then(|options| options.get(TALK))
            .map(String::as_str)
            == Some("false")
        && network.driver.as_deref() == Some("bridge")
        && network.internal != Some(true)
        && network.enable_ipv6 != Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: &str, name: &str) -> Network {
        let made = request();
        Network {
            id: Some(id.into()),
            name: Some(name.into()),
            driver: made.driver,
            options: made.options,
            labels: made.labels,
            ..Network::default()
        }
    }

    #[test]
    fn networks_that_contain_the_name_are_others() {
        let listed = vec![
            network("1", "x-hm-vm-outbound"),
            network("2", "hm-vm-outbound-2"),
        ];
        assert_eq!(choose(listed), Ok(None));
    }

    #[test]
    fn all_take_the_same_of_several() {
        let listed = vec![network("2", NAME), network("1", NAME)];
        assert_eq!(choose(listed), Ok(Some("1".into())));
    }

    #[test]
    fn a_network_on_which_containers_meet_is_not_taken() {
        type Spoil = fn(&mut Network);
        let spoils: [Spoil; 4] = [
            |network| network.labels = None,
            |network| network.options = None,
            |network| network.enable_ipv6 = Some(true),
            |network| network.driver = Some("macvlan".into()),
        ];
        for spoil in spoils {
            let mut other = network("1", NAME);
            spoil(&mut other);
            let refused = choose(vec![other.clone()]);
            assert!(
                matches!(refused, Err(Error::BadState { .. })),
                "{refused:?}"
            );
            let listed = vec![other, network("2", NAME)];
            assert_eq!(choose(listed), Ok(Some("2".into())));
        }
    }
}
