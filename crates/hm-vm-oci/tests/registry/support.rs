//! What the tests of registries share.

use std::io::{self, Read};
use std::time::Duration;

use hm_vm_core::{CancelCause, Cancellation, Error, Progress};
use hm_vm_oci::{
    Descriptor, Destination, OciError, RawManifest, Reference, RegistryClient, RegistryOptions,
    Repository, Source, Verified, media,
};
use hm_vm_testkit::registry::{Fault, Faults, Rule};

pub(super) const REPOSITORY: &str = "o/r";

/// Options that lose no time on what will not come.
pub(super) fn options() -> RegistryOptions {
    RegistryOptions {
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(20),
        ..RegistryOptions::default()
    }
}

/// Options for what is stalled: as short as a loaded machine allows.
pub(super) fn impatient() -> RegistryOptions {
    RegistryOptions {
        idle_timeout: Duration::from_millis(500),
        connect_timeout: Duration::from_millis(500),
        retries: 1,
        ..options()
    }
}

pub(super) fn client(options: RegistryOptions) -> RegistryClient {
    RegistryClient::new(options).unwrap()
}

pub(super) fn reference(address: &str) -> Reference {
    format!("{address}/{REPOSITORY}:t").parse().unwrap()
}

/// The repository that all tests use, at a server.
pub(super) fn repository(address: &str) -> Repository {
    client(options()).repository(&reference(address))
}

/// Bytes that look like nothing else.
pub(super) fn content(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(super) fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media::LAYER, bytes)
}

/// Puts a blob there.
pub(super) fn put(to: &dyn Destination, bytes: &[u8]) -> Result<Descriptor, OciError> {
    let blob = layer(bytes);
    let bytes = bytes.to_vec();
    let open = move || -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(bytes.clone())))
    };
    to.put_blob(&blob, &open, &Progress::new())?;
    Ok(blob)
}

/// Puts an image of one layer there.
pub(super) fn put_image(to: &dyn Destination, bytes: &[u8]) -> (RawManifest, Descriptor) {
    let layer = put(to, bytes).unwrap();
    let config = put(to, b"{}").unwrap();
    let manifest = manifest(&config, &layer);
    to.put_manifest(&manifest).unwrap();
    (manifest, layer)
}

pub(super) fn manifest(config: &Descriptor, layer: &Descriptor) -> RawManifest {
    let part = |blob: &Descriptor, media_type: &str| {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
            blob.digest, blob.size
        )
    };
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media::MANIFEST,
        part(config, media::CONFIG),
        part(layer, media::LAYER),
    );
    RawManifest {
        media_type: media::MANIFEST.to_owned(),
        digest: hm_vm_oci::Digest::of(text.as_bytes()),
        bytes: text.into_bytes(),
    }
}

/// Reads a blob to its end, verified.
pub(super) fn read(from: &dyn Source, blob: &Descriptor) -> Result<Vec<u8>, OciError> {
    let mut bytes = Vec::new();
    let mut reader = Verified::new(from.open(blob)?, blob);
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(inner(error)),
    }
}

/// The failure inside an I/O error.
pub(super) fn inner(error: io::Error) -> OciError {
    *error.into_inner().unwrap().downcast().unwrap()
}

/// The word that a fault happens to every blob that is read.
pub(super) fn of_blobs(fault: Fault) -> Rule {
    Rule::new("/v2/o/r/blobs/*", fault).method("GET")
}

pub(super) fn faults(rules: impl IntoIterator<Item = Rule>) -> Faults {
    rules.into_iter().fold(Faults::none(), Faults::with)
}

/// An answer of a server that is not there.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Fault {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Fault::Answer {
        status,
        headers: headers.iter().map(own).collect(),
        body: body.to_vec(),
    }
}

/// Cancels when something has been seen.
pub(super) fn cancel_when(cancel: &Cancellation, seen: impl Fn() -> bool + Send + 'static) {
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        while !seen() {
            std::thread::yield_now();
        }
        cancel.cancel(CancelCause::User);
    });
}

pub(super) fn is_cancelled(error: &OciError) -> bool {
    matches!(
        error,
        OciError::Cancelled(Error::Cancelled {
            cause: CancelCause::User
        })
    )
}
