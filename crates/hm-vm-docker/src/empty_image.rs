//! An image without files, for containers of which only the helper matters.

use anyhow::{Context as _, Result};
use bollard::query_parameters::ImportImageOptionsBuilder;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::backend::Machine;
use crate::engine::Engine;
use crate::error::{DockerError, Doing as _};
use crate::image::{self, BaseImage};

/// Shared by all owners: it is the same bytes everywhere, and has one id.
const NAME: &str = "hm-vm-empty";

/// An archive without entries.
const LAYER: [u8; 1024] = [0; 1024];

/// The digest of [`LAYER`].
const LAYER_DIGEST: &str =
    "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// The image, which is loaded where it is missing. Several may do that at once.
///
/// # Errors
///
/// A failure of the daemon.
pub(crate) async fn ensure(machine: &Machine) -> Result<BaseImage> {
    let engine = machine.engine.clone();
    let ensured = async move { find_or_load(&engine).await };
    machine.engine.run(ensured).await
}

async fn find_or_load(engine: &Engine) -> Result<BaseImage> {
    let processor = &engine.info().processor;
    let name = format!("{NAME}:{processor}");
    if let Some(found) = image::inspect(engine, &name).await? {
        return Ok(found);
    }
    let archive = archive(&name, processor).context("packing an image without files")?;
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let body = bollard::body_full(archive.into());
    let doing = format!("loading the image {name}");
    let mut answers = engine.docker().import_image(options, body, None);
    while let Some(answer) = answers.next().await {
        answer.doing(&*doing).map_err(DockerError::contract)?;
    }
    let found = image::inspect(engine, &name).await?;
    found.ok_or_else(|| {
        DockerError::Nonsense {
            doing,
            detail: "it is not there afterwards".into(),
        }
        .into()
    })
}

/// As `docker save` writes it.
fn archive(name: &str, processor: &str) -> Result<Vec<u8>> {
    let config = json!({
        "architecture": processor,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [LAYER_DIGEST] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "hm-vm" }],
    });
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [name],
        "Layers": ["layer.tar"],
    }]);
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in [
        ("layer.tar", LAYER.to_vec()),
        ("config.json", serde_json::to_vec(&config)?),
        ("manifest.json", serde_json::to_vec(&manifest)?),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}
