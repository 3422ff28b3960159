//! Pulls that come to nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hm_vm_core::{CancelCause, Cancellation};
use hm_vm_oci::OciError;
use hm_vm_store::import::LayerLimits;
use hm_vm_store::{PullOptions, Store, StoreError};

use super::support::{Memory, empty_store, files, tar};
use crate::common::{assert_clean, entries, open_after_kill};
use crate::worker;

fn layers() -> Vec<Vec<u8>> {
    (0..5)
        .map(|number| tar(&[(&format!("f{number}"), &"x".repeat(100_000 + number))]))
        .collect()
}

/// Nothing is there, once nothing is in use.
fn assert_empty(store: &Store) {
    assert_clean(store);
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(entries(store, "layers"), 0);
    assert_eq!(store.stats().unwrap().layers, 0);
}

#[test]
fn a_layer_that_is_not_what_it_should_be_leaves_nothing() {
    let (_directory, store) = empty_store();
    let mut image = Memory::new(&layers(), "{}");
    image.corrupt(3);
    let error = image.pull(&store, "x").unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Oci(OciError::Mismatch { .. } | OciError::Invalid { .. })
        ),
        "{error:?}"
    );
    assert_empty(&store);
    let cut = Memory::new(&layers(), "{}");
    cut.reads_left.store(20, Ordering::SeqCst);
    cut.pull(&store, "x").unwrap_err();
    assert_empty(&store);
    let whole = Memory::new(&layers(), "{}");
    whole.pull(&store, "x").unwrap();
    assert_eq!(files(&store, "x").len(), 5);
}

#[test]
fn what_no_command_could_have_is_refused_before_anything_is_fetched() {
    let (_directory, store) = empty_store();
    let image = Memory::new(&layers(), r#"{"Env":["A=\u0000"]}"#);
    let error = image.pull(&store, "x").unwrap_err();
    assert!(error.to_string().contains("zero byte"), "{error}");
    assert_eq!(image.opened(), 0);
    let error = Memory::new(&layers(), "{}").pull(&store, "-x").unwrap_err();
    assert!(
        matches!(error, StoreError::InvalidInput { .. }),
        "{error:?}"
    );
    assert_empty(&store);
}

#[test]
fn an_image_that_is_too_large_is_refused() {
    let (_directory, store) = empty_store();
    let image = Memory::new(&layers(), "{}");
    for limits in [
        LayerLimits {
            bytes: 450_000,
            ..LayerLimits::default()
        },
        LayerLimits {
            entries: 4,
            ..LayerLimits::default()
        },
    ] {
        let options = PullOptions {
            limits,
            ..PullOptions::default()
        };
        let error = store.pull_image(&image, "x", &options).unwrap_err();
        assert!(matches!(error, StoreError::Import(_)), "{error:?}");
        assert_empty(&store);
    }
}

#[test]
fn a_cancelled_pull_leaves_nothing() {
    let (_directory, store) = empty_store();
    let cancel = Cancellation::new();
    cancel.cancel(CancelCause::User);
    let options = PullOptions {
        cancel,
        ..PullOptions::default()
    };
    let error = store
        .pull_image(&Memory::new(&layers(), "{}"), "x", &options)
        .unwrap_err();
    assert!(matches!(error, StoreError::Cancelled(_)), "{error:?}");
    assert_empty(&store);
}

#[test]
fn two_that_pull_the_same_fetch_it_once() {
    let (_directory, store) = empty_store();
    let image = Memory::new(&layers(), "{}");
    let other = Store::open(store.root()).unwrap();
    std::thread::scope(|scope| {
        for (store, name) in [(&store, "a"), (&other, "b"), (&store, "c"), (&other, "d")] {
            let image = &image;
            scope.spawn(move || image.pull(store, name).unwrap());
        }
    });
    assert_eq!(image.opened(), 5);
    assert_eq!(store.stats().unwrap().layers, 5);
    other.flush().unwrap();
    drop(other);
    assert_clean(&store);
}

/// How long the killing goes on, and how often it happens at most.
const TIME: Duration = Duration::from_secs(10);
const TIMES: u32 = 60;

#[test]
fn a_killed_pull_leaves_nothing_for_the_next_session() {
    let (directory, store) = empty_store();
    let root = directory.path().join("store");
    drop(store);
    let started = Instant::now();
    let mut killed = 0;
    while killed < TIMES && started.elapsed() < TIME {
        let mut child = worker::start_pulling(&root);
        let moment = Duration::from_micros(3_000 + u64::from(killed) * 7919 % 90_000);
        // Not a sleep that stands for an event: the moment of death is the input of the test.
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        let store = open_after_kill(&root);
        assert_clean(&store);
        if store.image("killed").unwrap().is_some() {
            assert_eq!(files(&store, "killed").len(), 12);
            assert!(store.remove_image("killed").unwrap());
        }
        assert_empty(&store);
    }
    assert!(killed >= 5, "only {killed} kills in {TIME:?}");
}
