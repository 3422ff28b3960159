//! Cache directories, there and back.

use std::fs;
use std::io::Write;

use hm_vm_oci::{Descriptor, Destination, Digest, media};
use hm_vm_store::{CacheOptions, Store, StoreError};

use super::support::{Memory, set_times};
use crate::common::{Fixture, assert_clean};

fn make(store: &Store, name: &str, file: &str) -> std::path::PathBuf {
    let tree = store.root().join(store.cache_directory(name).unwrap());
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d").join(file), file).unwrap();
    // In a cache it is a file like any other.
    fs::write(tree.join(".wh.kept"), "x").unwrap();
    set_times(&tree);
    tree
}

fn names(store: &Store, name: &str) -> Vec<String> {
    let tree = store.root().join(store.cache_directory(name).unwrap());
    let mut names = Vec::new();
    for directory in [tree.clone(), tree.join("d")] {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

#[test]
fn a_cache_comes_over_and_replaces_another() {
    let (one, two) = (Fixture::new(), Fixture::new());
    make(&one.store, "cargo", "crate");
    let memory = Memory::default();
    let options = CacheOptions::default();
    let report = one.store.export_cache("cargo", &memory, &options).unwrap();
    assert_eq!(report.sent_bytes, report.total_bytes);
    let again = one.store.export_cache("cargo", &memory, &options).unwrap();
    assert_eq!(again.manifest, report.manifest);
    assert!(again.sent_bytes < report.sent_bytes);

    make(&two.store, "deps", "old");
    let import = two.store.import_cache("deps", &memory, &options).unwrap();
    assert_eq!((import.entries, import.bytes), (3, 6));
    assert_eq!(names(&two.store, "deps"), [".wh.kept", "crate", "d"]);
    // As good as the first: it goes on as the same.
    let third = Memory::default();
    let report = two.store.export_cache("deps", &third, &options).unwrap();
    assert_eq!(third.image().layers, memory.image().layers);
    assert_eq!(report.layers, 1);
    two.store.import_cache("new", &third, &options).unwrap();
    assert_eq!(names(&two.store, "new"), [".wh.kept", "crate", "d"]);
    assert_clean(&two.store);
}

#[test]
fn a_cache_in_use_is_left_alone() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    make(store, "cargo", "crate");
    let memory = Memory::default();
    let options = CacheOptions::default();
    store.export_cache("cargo", &memory, &options).unwrap();
    let user = store.use_cache("cargo").unwrap();
    let refused = store.import_cache("cargo", &memory, &options).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    let refused = store.export_cache("cargo", &memory, &options).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    drop(user);
    store.import_cache("cargo", &memory, &options).unwrap();
    let missing = store.export_cache("other", &memory, &options).unwrap_err();
    assert!(missing.to_string().contains("there is none"), "{missing}");
    assert_eq!(store.caches().unwrap().len(), 1);
}

/// Puts an artifact with this layer in.
fn artifact(memory: &Memory, archive: &[u8]) -> Descriptor {
    let bytes = zstd::encode_all(archive, 3).unwrap();
    let layer = Descriptor::of(media::LAYER_ZSTD, &bytes);
    let open = || Ok(Box::new(std::io::Cursor::new(bytes.clone())) as _);
    memory
        .put_blob(&layer, &open, &hm_vm_core::Progress::new())
        .unwrap();
    let mut manifest = memory.image();
    manifest.layers = vec![layer.clone()];
    memory.set_root(manifest.to_raw());
    layer
}

#[test]
fn hostile_and_broken_caches_change_nothing() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    make(store, "cargo", "crate");
    let memory = Memory::default();
    let options = CacheOptions::default();
    store.export_cache("cargo", &memory, &options).unwrap();
    let unchanged = |what: &str| {
        let error = store.import_cache("cargo", &memory, &options).unwrap_err();
        assert_eq!(names(store, "cargo"), [".wh.kept", "crate", "d"], "{what}");
        assert_clean(store);
        error
    };
    let good = memory.image();
    let layer = &good.layers[0];
    let bytes = memory.blob(&layer.digest);
    memory.corrupt(&layer.digest, bytes[..bytes.len() - 1].to_vec());
    assert!(matches!(unchanged("cut"), StoreError::Oci(_)));
    memory.corrupt(&layer.digest, [&bytes[..], b"x"].concat());
    assert!(matches!(unchanged("longer"), StoreError::Oci(_)));

    let mut outside = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..9].copy_from_slice(b"../../etc");
    header.set_size(0);
    header.set_cksum();
    outside.append(&header, std::io::empty()).unwrap();
    artifact(&memory, &outside.into_inner().unwrap());
    assert!(matches!(unchanged("outside"), StoreError::Import(_)));

    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "l", "/etc").unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    link.append_data(&mut header, "l/passwd", &b"x"[..])
        .unwrap();
    artifact(&memory, &link.into_inner().unwrap());
    assert!(matches!(unchanged("through a link"), StoreError::Import(_)));

    let mut manifest = good.clone();
    manifest.artifact_type = None;
    memory.set_root(manifest.to_raw());
    assert!(matches!(unchanged("an image"), StoreError::Oci(_)));
    let mut manifest = good;
    manifest.layers.push(manifest.layers[0].clone());
    memory.set_root(manifest.to_raw());
    assert!(matches!(unchanged("two layers"), StoreError::Oci(_)));
}

#[test]
fn endless_zeros_are_bounded() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    make(store, "cargo", "crate");
    let memory = Memory::default();
    let options = CacheOptions::default();
    store.export_cache("cargo", &memory, &options).unwrap();
    // A header that promises 100 GiB: more than may come.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(100 << 30);
    header.set_cksum();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(header.as_bytes()).unwrap();
    encoder.write_all(&vec![0; 16 << 20]).unwrap();
    let bytes = encoder.finish().unwrap();
    let layer = artifact(&memory, b"");
    memory.forget(&layer.digest);
    let digest = Digest::of(&bytes);
    memory.corrupt(&digest, bytes.clone());
    let mut manifest = memory.image();
    manifest.layers = vec![Descriptor::of(media::LAYER_ZSTD, &bytes)];
    memory.set_root(manifest.to_raw());
    let error = store.import_cache("cargo", &memory, &options).unwrap_err();
    assert!(error.contract().is_some(), "{error}");
    assert_eq!(names(store, "cargo"), [".wh.kept", "crate", "d"]);
}
