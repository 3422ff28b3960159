//! A shared cache that does not say the truth.

use hm_vm::oci::{Manifest, media};
use hm_vm_testkit::require;
use serde_json::{Value, json};

use super::memory::{Fault, Memory};
use super::{Machine, Step, World};

const CMD: &str = "echo said; echo 1 > /f; mkdir /d; echo 2 > /d/g";
const RECORD: &str = "application/vnd.hm-vm.cache.record.v1+json";

type Change = fn(&Memory, &mut Manifest, &mut Value);

/// Every kind of lie.
const LIES: &[(&str, Change)] = &[
    ("another key", |_, _, record| record["key"] = json!("other")),
    ("another snapshot id", |_, _, record| {
        record["snapshot"] = json!("../../../etc");
    }),
    ("another image", |_, _, record| {
        record["base"] = json!("sha256:0");
    }),
    ("another chain", |_, _, record| {
        record["chain"] = json!("00")
    }),
    ("another diff id", |_, _, record| {
        let other = hm_vm::oci::Digest::of(b"other").to_string();
        record["diff_ids"][0] = json!(other);
    }),
    ("more layers", |_, manifest, _| {
        let first = manifest.layers[0].clone();
        manifest.layers.insert(0, first.clone());
        manifest.layers.insert(0, first);
    }),
    ("no layers", |_, manifest, _| manifest.layers.clear()),
    ("longer output", |_, _, record| {
        record["output_bytes"] = json!(6);
    }),
    ("shorter output", |_, _, record| {
        record["output_bytes"] = json!(4);
    }),
    ("impossible output", |_, _, record| {
        record["output_bytes"] = json!(u64::MAX);
    }),
    ("no version", |_, _, record| {
        record.as_object_mut().unwrap().remove("version");
    }),
    ("no record", |_, _, record| *record = json!([1, 2])),
    ("a layer of another size", |_, manifest, _| {
        manifest.layers[0].size += 1;
    }),
    ("a huge layer", |_, manifest, _| {
        manifest.layers[0].size = u64::MAX;
    }),
    ("a layer that is none", |_, manifest, _| {
        manifest.layers[0].media_type = "text/plain".into();
    }),
    ("a layer that is not there", |memory, manifest, _| {
        let digest = manifest.layers[0].digest;
        memory.blobs.lock().unwrap().remove(&digest);
    }),
    ("a truncated layer", |memory, manifest, _| {
        let digest = manifest.layers[0].digest;
        memory.blobs.lock().unwrap().get_mut(&digest).unwrap().pop();
    }),
    ("a longer layer", |memory, manifest, _| {
        let digest = manifest.layers[0].digest;
        memory
            .blobs
            .lock()
            .unwrap()
            .get_mut(&digest)
            .unwrap()
            .push(0);
    }),
    ("a corrupted layer", |memory, manifest, _| {
        let digest = manifest.layers[0].digest;
        let mut blobs = memory.blobs.lock().unwrap();
        let blob = blobs.get_mut(&digest).unwrap();
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
    }),
    (
        "another layer of the right digest",
        |memory, manifest, _| {
            let other = memory.put(media::LAYER_ZSTD, b"no archive at all".to_vec());
            manifest.layers[0] = other;
        },
    ),
    ("a corrupted log", |memory, manifest, _| {
        let log = manifest.layers.last_mut().unwrap();
        let mut bytes = memory.blob(log);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        *log = memory.put(&log.media_type, bytes);
    }),
    ("a truncated log", |memory, manifest, _| {
        let log = manifest.layers.last_mut().unwrap();
        let mut bytes = memory.blob(log);
        bytes.pop();
        *log = memory.put(&log.media_type, bytes);
    }),
    ("a log of another key", |memory, manifest, _| {
        let log = manifest.layers.last_mut().unwrap();
        let mut bytes = memory.blob(log);
        // Behind the magic and the length of the key.
        bytes[16] ^= 1;
        *log = memory.put(&log.media_type, bytes);
    }),
    ("another artifact", |_, manifest, _| {
        manifest.artifact_type = None;
    }),
    ("a huge record", |_, manifest, _| {
        manifest.config.size = 5 << 20;
    }),
];

async fn first(world: &World, place: &std::sync::Arc<Memory>) -> (Machine, Step) {
    let a = world.machine("a", place);
    let made = a.step(None, CMD).await;
    made.ran();
    a.publish_all().await;
    (a, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_makes_a_wrong_result() {
    let world = require!(World::new());
    let place = Memory::new();
    let (_a, made) = first(&world, &place).await;
    let (tag, manifest) = place.entry();
    let record: Value = serde_json::from_slice(&place.blob(&manifest.config)).unwrap();
    let blobs = place.blobs.lock().unwrap().clone();
    for (number, (name, change)) in LIES.iter().enumerate() {
        *place.blobs.lock().unwrap() = blobs.clone();
        let (mut wrong, mut told) = (manifest.clone(), record.clone());
        change(&place, &mut wrong, &mut told);
        if told != record {
            wrong.config = place.put(RECORD, serde_json::to_vec(&told).unwrap());
        }
        place.put_entry(&tag, &wrong);
        let machine = world.machine_with(&format!("m{number}"), &place, |options| {
            options.mode = hm_vm::remote::CacheMode::ReadOnly;
        });
        let step = machine.step(None, CMD).await;
        assert!(!step.result.cached, "{name}: {step:?}");
        assert_eq!(step.lines, made.lines, "{name}");
        assert_ne!(step.id(), made.id(), "{name}");
        let notices = machine.notices();
        assert_eq!(notices.len(), 1, "{name}: {notices:?}");
        machine.assert_clean();
        assert!(
            !machine.store.snapshot_exists(&made.id()).unwrap(),
            "{name}"
        );
    }
    *place.blobs.lock().unwrap() = blobs;
    place.put_entry(&tag, &manifest);
    world.machine("good", &place).step(None, CMD).await.came();
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_none_are_misses() {
    let world = require!(World::new());
    let place = Memory::new();
    let (_a, _) = first(&world, &place).await;
    let (tag, manifest) = place.entry();
    let future = {
        let mut record: Value = serde_json::from_slice(&place.blob(&manifest.config)).unwrap();
        record["version"] = json!(2);
        let config = place.put(RECORD, serde_json::to_vec(&record).unwrap());
        Manifest {
            config,
            ..manifest.clone()
        }
    };
    for (number, (bytes, notices)) in [
        (b"".to_vec(), 1),
        (b"{}".to_vec(), 1),
        (b"[[[[[[[[".to_vec(), 1),
        // Of a later version: not for us, and no lie.
        (serde_json::to_vec(&future).unwrap(), 0),
    ]
    .into_iter()
    .enumerate()
    {
        place.put_raw(&tag, bytes);
        let machine = world.machine_with(&format!("n{number}"), &place, |options| {
            options.mode = hm_vm::remote::CacheMode::ReadOnly;
        });
        machine.step(None, CMD).await.ran();
        assert_eq!(machine.notices().len(), notices);
    }
    // What cannot be read is replaced by whoever has a result.
    place.put_raw(&tag, b"{}".to_vec());
    let b = world.machine("b", &place);
    b.step(None, CMD).await.ran();
    b.publish_all().await;
    world.machine("c", &place).step(None, CMD).await.came();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_without_end_is_read_to_its_size() {
    let world = require!(World::new());
    let place = Memory::new();
    let (_a, made) = first(&world, &place).await;
    place.set(Fault::Endless);
    let b = world.machine_with("b", &place, |options| {
        options.mode = hm_vm::remote::CacheMode::ReadOnly;
    });
    let step = b.step(None, CMD).await;
    step.ran();
    assert_eq!(step.lines, made.lines);
    assert_eq!(b.notices().len(), 1);
    b.assert_clean();
}
