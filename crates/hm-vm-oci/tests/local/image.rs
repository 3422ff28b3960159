//! Small images for tests, and reading all of one.

use std::io::Read;
use std::path::Path;

use hm_vm_core::Progress;
use hm_vm_oci::{
    Compression, Descriptor, Destination, Digest, ImageConfig, Manifest, Platform, Resolved,
    RootFs, Source, Verified, media, resolve,
};

/// An image in memory.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Image {
    /// One whose layers are archives of a file each, with these contents.
    pub(crate) fn new(files: &[&str]) -> Self {
        let layers: Vec<Vec<u8>> = files.iter().map(|content| layer(content)).collect();
        Self::of_layers(&layers, |bytes| (media::LAYER, bytes.to_vec()))
    }

    /// One of these archives, each stored as `pack` says.
    pub(crate) fn of_layers(
        layers: &[Vec<u8>],
        pack: impl Fn(&[u8]) -> (&'static str, Vec<u8>),
    ) -> Self {
        let config = ImageConfig {
            platform: Platform::here(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: layers.iter().map(|bytes| Digest::of(bytes)).collect(),
            },
            ..ImageConfig::default()
        };
        let config = config.to_bytes();
        let mut blobs = vec![(Descriptor::of(media::CONFIG, &config), config)];
        for bytes in layers {
            let (kind, bytes) = pack(bytes);
            blobs.push((Descriptor::of(kind, &bytes), bytes));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: None,
            config: blobs[0].0.clone(),
            layers: blobs[1..].iter().map(|(blob, _)| blob.clone()).collect(),
            annotations: Default::default(),
        };
        Self { manifest, blobs }
    }

    /// Writes all of it.
    pub(crate) fn write(&self, to: &dyn Destination) {
        for (blob, bytes) in &self.blobs {
            put(to, blob, bytes);
        }
        to.put_manifest(&self.manifest.to_raw()).unwrap();
        to.finish().unwrap();
    }

    pub(crate) fn id(&self) -> Digest {
        self.manifest.config.digest
    }
}

/// An archive with a file of this content.
pub(crate) fn layer(content: &str) -> Vec<u8> {
    archive(&[("file", content.as_bytes())])
}

/// An archive of these files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let level = flate2::Compression::fast();
    let mut encoder = flate2::read::GzEncoder::new(bytes, level);
    encoder.read_to_end(&mut packed).unwrap();
    packed
}

pub(crate) fn put(to: &dyn Destination, blob: &Descriptor, bytes: &[u8]) {
    let open = || Ok(Box::new(std::io::Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
    to.put_blob(blob, &open, &Progress::new()).unwrap();
}

/// The image for this machine, of which every byte was read and found right: also the layers without compression.
pub(crate) fn read_all(source: &dyn Source) -> Resolved {
    let image = resolve(source, &Platform::here()).unwrap();
    for (layer, diff_id) in image
        .manifest
        .layers
        .iter()
        .zip(&image.config.rootfs.diff_ids)
    {
        let mut bytes = Vec::new();
        let mut input = Verified::new(source.open(layer).unwrap(), layer);
        input.read_to_end(&mut bytes).unwrap();
        let plain = match layer.compression() {
            Compression::Gzip => {
                let mut plain = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
                decoder.read_to_end(&mut plain).unwrap();
                plain
            }
            Compression::Zstd => zstd::decode_all(&bytes[..]).unwrap(),
            _ => bytes,
        };
        assert_eq!(Digest::of(&plain), *diff_id, "{}", layer.media_type);
    }
    image
}

/// The only image at a path, read as [`read_all`] does.
pub(crate) fn read_path(path: &Path, name: Option<&str>) -> Resolved {
    read_all(&*hm_vm_oci::open_local(path, name).unwrap())
}

/// What an attempt to open a path says.
pub(crate) fn refusal(path: &Path, name: Option<&str>) -> String {
    hm_vm_oci::open_local(path, name).unwrap_err().to_string()
}
