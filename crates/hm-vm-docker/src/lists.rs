//! What a daemon has, as lists.
//!
//! Podman fails on a list when something in it goes or ends at this moment. It is asked again then.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use bollard::Docker;
use bollard::errors::Error as ClientError;
use bollard::models::{ContainerSummary, ImageSummary};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder};

use crate::error::{DockerError, Doing as _};

/// How often a list that fails in this way is asked for again, and how long after.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// All images, of all owners, those without a name among them: parents, mostly.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn images(docker: &Docker) -> Result<Vec<ImageSummary>> {
    images_with(docker, &HashMap::new()).await
}

/// Images that have all these labels: `NAME=VALUE` each, under `label`.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn images_with(
    docker: &Docker,
    filters: &HashMap<String, Vec<String>>,
) -> Result<Vec<ImageSummary>> {
    let options = ListImagesOptionsBuilder::new().all(true).filters(filters);
    let options = options.build();
    let mut attempts = 0;
    let listed = loop {
        let listed = docker.list_images(Some(options.clone())).await;
        if !again(&listed, &mut attempts).await {
            break listed;
        }
    };
    listed
        .doing("listing the daemon's images")
        .map_err(DockerError::contract)
}

/// All containers, of all owners, whether they run or not.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn containers(docker: &Docker) -> Result<Vec<ContainerSummary>> {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let mut attempts = 0;
    let listed = loop {
        let listed = docker.list_containers(Some(options.clone())).await;
        if !again(&listed, &mut attempts).await {
            break listed;
        }
    };
    listed
        .doing("listing the daemon's containers")
        .map_err(DockerError::contract)
}

/// Whether to ask again, after a pause.
async fn again<T>(listed: &Result<T, ClientError>, attempts: &mut u32) -> bool {
    *attempts += 1;
    let again = *attempts < ATTEMPTS && listed.as_ref().is_err_and(is_passing);
    if again {
        tokio::time::sleep(PAUSE).await;
    }
    again
}

fn is_passing(error: &ClientError) -> bool {
    match error {
        // "stopped" is a container that has ended and is not cleaned up: the client does not know the word.
        ClientError::JsonDataError { .. } => true,
        ClientError::DockerResponseServerError {
            status_code: 500,
            message,
        } => ["image not known", "layer not known", "no such container"]
            .iter()
            .any(|words| message.contains(words)),
        _ => false,
    }
}
