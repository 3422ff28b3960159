//! Layers on their way into the store.

use std::io::{self, Read, Write};
use std::path::Path;

use hm_vm_core::{CancelCause, Cancellation};
use hm_vm_oci::{Descriptor, Digest, OciError};

use super::outcome::{LayerRequest, UnpackedLayer};
use crate::error::StoreError;
use crate::import::{ImportError, LayerLimits};
use crate::store::Store;

/// An archive with one file.
fn archive(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", content).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8], window: Option<u32>) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    if let Some(window) = window {
        encoder.long_distance_matching(true).unwrap();
        encoder.window_log(window).unwrap();
    }
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn unpack<'a>(
    store: &'a Store,
    bytes: &[u8],
    request: &LayerRequest,
) -> Result<UnpackedLayer<'a>, StoreError> {
    let input = Box::new(io::Cursor::new(bytes.to_vec()));
    store.core().unpack_layer(input, request)
}

fn request(bytes: &[u8]) -> LayerRequest {
    LayerRequest::new(Descriptor::of("", bytes), None)
}

/// Nothing is left of a layer.
fn assert_empty(store: &Store) {
    let layout = &store.core().layout;
    for directory in [layout.layers(), layout.tmp()] {
        let found: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
        assert!(found.is_empty(), "{found:?}");
    }
    let rows = store.core().db.read("counting layers", |connection| {
        Ok(
            connection.query_row("SELECT count(*) FROM layers", [], |row| {
                row.get::<_, i64>(0)
            })?,
        )
    });
    assert_eq!(rows.unwrap(), 0);
}

#[test]
fn every_compression_gives_the_same_layer() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let content: Vec<u8> = (0..300_000_u32)
        .flat_map(|at| (at / 7).to_le_bytes())
        .collect();
    let plain = archive(&content);
    let (first, second) = plain.split_at(400_000);
    let ways = [
        plain.clone(),
        gzip(&plain),
        [gzip(first), gzip(second)].concat(),
        zstd(&plain, None),
        [zstd(first, None), zstd(second, None)].concat(),
        zstd(&plain, Some(27)),
        // As parallel compressors begin: a frame to be skipped.
        [b"\x50\x2a\x4d\x18\x04\0\0\0abcd", &zstd(&plain, None)[..]].concat(),
        xz(&plain),
        [xz(first), xz(second)].concat(),
    ];
    for (way, bytes) in ways.iter().enumerate() {
        let mut request = request(bytes);
        request.diff_id = Some(Digest::of(&plain));
        let layer = unpack(&store, bytes, &request).unwrap();
        assert_eq!((layer.entries, layer.bytes), (1, content.len() as u64));
        let tree = store.core().layout.layer_tree(layer.pending.layer());
        assert!(
            std::fs::read(tree.join("file")).unwrap() == content,
            "{way}"
        );
        assert_eq!(request.progress.now().done, bytes.len() as u64);
    }
    // They were given back when they were dropped.
    assert_empty(&store);
}

#[test]
fn what_is_not_the_blob_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    for compressed in [
        gzip(&archive(b"x")),
        zstd(&archive(b"x"), None),
        archive(b"x"),
    ] {
        let right = request(&compressed);
        let mut wrong: Vec<Vec<u8>> = vec![
            Vec::new(),
            compressed[..compressed.len() - 1].to_vec(),
            compressed[..compressed.len() / 2].to_vec(),
            [&compressed[..], b"x"].concat(),
            archive(b"y"),
            gzip(&archive(b"y")),
        ];
        for at in [4, 12, compressed.len() / 2, compressed.len() - 2] {
            let mut flipped = compressed.clone();
            flipped[at] ^= 0x40;
            wrong.push(flipped);
        }
        for (index, bytes) in wrong.iter().enumerate() {
            let error = unpack(&store, bytes, &right).unwrap_err();
            let mismatch = matches!(error, StoreError::Oci(OciError::Mismatch { .. }));
            assert!(mismatch, "{index}: {error:?}");
        }
        let mut other = right.clone();
        other.diff_id = Some(Digest::of(b"other"));
        let error = unpack(&store, &compressed, &other).unwrap_err();
        assert!(error.to_string().contains("without compression"), "{error}");
        assert!(matches!(error, StoreError::Oci(OciError::Mismatch { .. })));
    }
    assert_empty(&store);
}

/// Right bytes, but no archive.
#[test]
fn what_is_no_layer_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let whole = archive(&[7; 10_000]);
    let zipped = gzip(&whole);
    let cases: [(Vec<u8>, &str); 7] = [
        (b"BZh91AY&SY".to_vec(), "bzip2"),
        (vec![1; 600], "not an archive"),
        (whole[..5000].to_vec(), "cut off"),
        (gzip(&whole[..5000]), "cut off"),
        (zipped[..zipped.len() / 2].to_vec(), "damaged"),
        ([&zipped[..], b"trailing garbage"].concat(), "damaged"),
        (
            [&zstd(&whole, None)[..], b"trailing garbage"].concat(),
            "damaged",
        ),
    ];
    for (bytes, part) in cases {
        let error = unpack(&store, &bytes, &request(&bytes)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_empty(&store);
}

#[test]
fn bombs_are_bounded() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let zeros = vec![0; 4 << 20];
    let limits = LayerLimits {
        bytes: 1 << 20,
        entries: 100,
    };
    // In a file, and behind the end mark.
    for bytes in [archive(&zeros), [archive(b"x"), zeros].concat()] {
        for bomb in [gzip(&bytes), zstd(&bytes, None)] {
            let mut request = request(&bomb);
            request.limits = limits;
            let error = unpack(&store, &bomb, &request).unwrap_err();
            let limited = matches!(error, StoreError::Import(ImportError::LimitExceeded { .. }));
            assert!(limited, "{error:?}");
        }
    }
    assert_empty(&store);
}

/// Gives some bytes, then fails, or ends the work.
struct Failing<F> {
    bytes: io::Cursor<Vec<u8>>,
    then: F,
}

impl<F: FnMut() -> io::Result<usize>> Read for Failing<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer)? {
            0 => (self.then)(),
            count => Ok(count),
        }
    }
}

#[test]
fn failures_of_the_source_are_told() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    for whole in [
        archive(b"x"),
        gzip(&archive(b"x")),
        zstd(&archive(b"x"), None),
    ] {
        for length in [0, 1, whole.len() / 2] {
            let input = Failing {
                bytes: io::Cursor::new(whole[..length].to_vec()),
                then: || {
                    Err(io::Error::other(OciError::Unreachable {
                        doing: "reading".into(),
                        place: "there".into(),
                        reason: "gone".into(),
                    }))
                },
            };
            let error = store
                .core()
                .unpack_layer(Box::new(input), &request(&whole))
                .unwrap_err();
            let told = matches!(error, StoreError::Oci(OciError::Unreachable { .. }));
            assert!(told, "{error:?}");
        }
    }
    assert_empty(&store);
}

#[test]
fn a_cancelled_layer_ends() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let whole = archive(&[7; 2_000_000]);
    let cancel = Cancellation::new();
    let stopping = cancel.clone();
    let input = Failing {
        bytes: io::Cursor::new(whole[..1_500_000].to_vec()),
        then: move || {
            stopping.cancel(CancelCause::User);
            // As a source does then.
            Err(io::ErrorKind::ConnectionAborted.into())
        },
    };
    let mut request = request(&whole);
    request.cancel = cancel;
    let error = store
        .core()
        .unpack_layer(Box::new(input), &request)
        .unwrap_err();
    assert!(matches!(error, StoreError::Cancelled(_)), "{error:?}");
    assert_empty(&store);
}

#[test]
fn links_into_layers_below_are_made() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let below = archive(b"below");
    let below = unpack(&store, &below, &request(&below)).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_mode(0o644);
    header.set_size(0);
    builder.append_link(&mut header, "link", "file").unwrap();
    let above = builder.into_inner().unwrap();
    let above = unpack(&store, &above, &request(&above)).unwrap();
    assert_eq!(above.needs_lower.len(), 1);
    let layout = &store.core().layout;
    let tree = layout.layer_tree(below.pending.layer());
    let lower: [&Path; 1] = [&tree];
    let layer = above.pending.layer();
    let core = store.core();
    core.resolve_links(layer, &above.needs_lower, &lower)
        .unwrap();
    let tree = layout.layer_tree(layer);
    assert_eq!(std::fs::read(tree.join("link")).unwrap(), b"below");
    let same = |name: &str| rustix::fs::stat(tree.join(name)).unwrap().st_ino;
    assert_eq!(same("link"), same("file"));
}
