//! Snapshots and images as OCI images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hm_vm_core::Progress;
use hm_vm_oci::{Compression, media};
use hm_vm_store::{
    Base, ExportOptions, ImageFormat, PullOptions, Store, StoreError, TransferPart, TransferWatch,
};

use super::support::{Memory, entries, fill, layer_types, tree};
use crate::common::{Fixture, assert_clean, contents, write};

#[test]
fn what_was_exported_is_the_same_when_it_comes_back() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    fill(&fixture.store, &vm);
    let snapshot = vm.commit(Some("built")).unwrap();
    let memory = Memory::default();
    let options = ExportOptions {
        key: Some("the key".into()),
        env: [("A".to_owned(), "b c".to_owned())].into(),
        working_dir: Some("/etc".into()),
        ..ExportOptions::default()
    };
    let report = fixture
        .store
        .export_snapshot(&snapshot, &memory, &options)
        .unwrap();
    let config = memory.config();
    let execution = config.config.as_ref().unwrap();
    assert_eq!(execution.env.as_ref().unwrap(), &["A=b c"]);
    assert_eq!(execution.working_dir.as_deref(), Some("/etc"));
    let labels = execution.labels.as_ref().unwrap();
    assert_eq!(labels["dev.hm-vm.key"], "the key");
    assert_eq!(labels["dev.hm-vm.snapshot"], snapshot.to_string());
    assert_eq!(labels["dev.hm-vm.lineage"], format!("[\"{snapshot}\"]"));
    assert_eq!(config.history.len(), 2);

    let other = Fixture::new();
    let image = other
        .store
        .pull_image(&memory, "back", &PullOptions::default())
        .unwrap();
    assert_eq!(image.digest, report.config.to_string());
    let (before, after) = (
        fixture.store.view(&snapshot).unwrap(),
        other.store.image_view("back").unwrap(),
    );
    assert_eq!(tree(&before), tree(&after));

    // Attributes and links as well, as the second archive tells.
    let again = Memory::default();
    let options = ExportOptions::default();
    other.store.export_image("back", &again, &options).unwrap();
    for place in 0..2 {
        let (mut first, mut second) = (entries(&memory.layer(place)), entries(&again.layer(place)));
        // Nobody heeds what an image says of its root.
        first.remove(&b"./"[..]);
        second.remove(&b"./"[..]);
        assert_eq!(first, second);
    }
    // Where its layers are, an image goes back as it came.
    let report = other.store.export_image("back", &memory, &options).unwrap();
    assert_eq!(report.config.to_string(), image.digest);
}

#[test]
fn what_is_there_does_not_travel_again() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "one", "1");
    let first = vm.commit(None).unwrap();
    let memory = Memory::default();
    let options = ExportOptions::default();
    let export = |snapshot| fixture.store.export_snapshot(snapshot, &memory, &options);
    let report = export(&first).unwrap();
    assert_eq!(memory.written().len(), 3);
    assert_eq!(report.sent_bytes, report.total_bytes);

    let again = export(&first).unwrap();
    assert_eq!(memory.written(), []);
    assert_eq!(again.manifest, report.manifest);
    assert!(again.sent_bytes < 1000, "only the manifest: {again:?}");

    write(&fixture.store, &vm, "two", "2");
    let second = vm.commit(None).unwrap();
    let report = export(&second).unwrap();
    let manifest = memory.image();
    assert_eq!(report.layers, 3);
    let mut written = memory.written();
    written.sort();
    let mut expected = [manifest.layers[2].digest, manifest.config.digest];
    expected.sort();
    assert_eq!(written, expected);

    // One that was lost is made again, the same.
    memory.forget(&manifest.layers[1].digest);
    export(&second).unwrap();
    assert_eq!(memory.written(), [manifest.layers[1].digest]);
    assert_clean(&fixture.store);
}

#[test]
fn every_layer_is_reported_once() {
    #[derive(Debug, Default)]
    struct Parts(Mutex<Vec<(TransferPart, Progress)>>);
    impl TransferWatch for Parts {
        fn part(&self, part: &TransferPart) -> Progress {
            let progress = Progress::new();
            let mut parts = self.0.lock().unwrap();
            parts.push((part.clone(), progress.clone()));
            progress
        }
    }
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "file", "x");
    let snapshot = vm.commit(None).unwrap();
    let memory = Memory::default();
    for present in [false, true] {
        let parts = Arc::new(Parts::default());
        let options = ExportOptions {
            watch: parts.clone(),
            ..ExportOptions::default()
        };
        fixture
            .store
            .export_snapshot(&snapshot, &memory, &options)
            .unwrap();
        let mut parts = std::mem::take(&mut *parts.0.lock().unwrap());
        parts.sort_by(|(a, _), (b, _)| a.label.cmp(&b.label));
        let labels: Vec<&str> = parts.iter().map(|(part, _)| part.label.as_str()).collect();
        assert_eq!(labels, ["layer 1/2", "layer 2/2"]);
        for ((part, progress), layer) in parts.iter().zip(&memory.image().layers) {
            assert_eq!(part.present, present);
            if present {
                assert_eq!(part.digest, Some(layer.digest));
            } else {
                assert_eq!(progress.now().done, layer.size);
                assert_eq!(progress.now().total, Some(layer.size));
            }
        }
    }
}

#[test]
fn dockers_words_say_the_same() {
    let fixture = Fixture::new();
    let snapshot = fixture.vm().commit(None).unwrap();
    let memory = Memory::default();
    let options = ExportOptions {
        format: ImageFormat::Docker,
        compression: Compression::Gzip,
        ..ExportOptions::default()
    };
    let export =
        |options: &ExportOptions| fixture.store.export_snapshot(&snapshot, &memory, options);
    export(&options).unwrap();
    let manifest = memory.image();
    assert_eq!(manifest.media_type.as_deref(), Some(media::DOCKER_MANIFEST));
    assert_eq!(manifest.config.media_type, media::DOCKER_CONFIG);
    assert_eq!(layer_types(&manifest), [media::DOCKER_LAYER]);
    // The blobs are there, under other names.
    memory.written();
    export(&ExportOptions::default()).unwrap();
    assert_eq!(layer_types(&memory.image()), [media::LAYER_GZIP]);
    assert_eq!(memory.written(), []);
    let wrong = ExportOptions {
        compression: Compression::Zstd,
        ..options
    };
    assert!(matches!(
        export(&wrong),
        Err(StoreError::InvalidInput { .. })
    ));
}

#[test]
fn too_many_layers_become_fewer() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    for number in 0..4 {
        write(&fixture.store, &vm, "etc/last", &number.to_string());
        write(&fixture.store, &vm, &format!("file-{number}"), "x");
        vm.commit(None).unwrap();
    }
    crate::common::white_out(&fixture.store, &vm, "etc/hosts");
    let snapshot = vm.commit(None).unwrap();
    let memory = Memory::default();
    let options = ExportOptions {
        max_layers: 2,
        ..ExportOptions::default()
    };
    let exported = fixture.store.export_snapshot(&snapshot, &memory, &options);
    assert_eq!(exported.unwrap().layers, 2);
    assert_eq!(memory.config().history.len(), 2);
    let other = Fixture::new();
    let pull = PullOptions::default();
    other.store.pull_image(&memory, "back", &pull).unwrap();
    let expected = contents(&fixture.store.view(&snapshot).unwrap());
    assert_eq!(contents(&other.store.image_view("back").unwrap()), expected);
    assert_clean(&fixture.store);
}

#[test]
fn what_cannot_be_exported_says_why() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let memory = Memory::default();
    let options = ExportOptions::default();
    let host = store.new_vm(Base::Image("host")).unwrap();
    let snapshot = host.commit(None).unwrap();
    let error = store.export_snapshot(&snapshot, &memory, &options);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the image host"), "{error}");
    let error = store.export_image("host", &memory, &options).unwrap_err();
    assert!(error.to_string().contains("image host"), "{error}");
    let gone = store.export_image("nothing", &memory, &options);
    assert!(matches!(gone, Err(StoreError::ImageNotFound { .. })));
    let gone = hm_vm_core::SnapshotId::new("0".repeat(32));
    let gone = store.export_snapshot(&gone, &memory, &options);
    assert!(matches!(gone, Err(StoreError::SnapshotNotFound { .. })));
    let bad_env = ExportOptions {
        env: BTreeMap::from([("A=B".to_owned(), String::new())]),
        ..ExportOptions::default()
    };
    let bad_directory = ExportOptions {
        working_dir: Some("relative".into()),
        ..ExportOptions::default()
    };
    for options in [bad_env, bad_directory] {
        let refused = store.export_image("base", &memory, &options);
        assert!(matches!(refused, Err(StoreError::InvalidInput { .. })));
    }
    assert_eq!(memory.written(), []);
}

#[test]
fn a_snapshot_that_is_removed_meanwhile_is_exported_whole() {
    let fixture = Fixture::new();
    let vm = fixture.vm();
    write(&fixture.store, &vm, "file", "x");
    let snapshot = vm.commit(None).unwrap();
    vm.remove().unwrap();
    /// Removes the snapshot when the first layer is under way.
    #[derive(Debug)]
    struct Remover(Store, hm_vm_core::SnapshotId);
    impl TransferWatch for Remover {
        fn part(&self, _: &TransferPart) -> Progress {
            self.0.remove_snapshot(&self.1).unwrap();
            self.0.remove_image("base").unwrap();
            self.0.flush().unwrap();
            Progress::new()
        }
    }
    let memory = Memory::default();
    let options = ExportOptions {
        watch: Arc::new(Remover(fixture.store.clone(), snapshot.clone())),
        ..ExportOptions::default()
    };
    fixture
        .store
        .export_snapshot(&snapshot, &memory, &options)
        .unwrap();
    assert!(entries(&memory.layer(1)).contains_key(&b"file"[..]));
    assert_clean(&fixture.store);
    assert_eq!(crate::common::entries(&fixture.store, "layers"), 0);
}
