//! The suite finds what is wrong with broken backends: one thing each, and the right check says
//! so.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hm_vm_core::VmBackend;
use hm_vm_testkit::conformance::{
    CHECKS, Harness, ImageConfiguration, Outcome, Scale, Shell, run_check,
};
use hm_vm_testkit::fake::FakeBackend;
use hm_vm_testkit::skip::Skip;

use crate::broken_backend::{Broken, Fault, Handle};
use crate::fake_conformance::FakeHarness;

/// The fake behind a fault.
struct BrokenHarness {
    sound: FakeHarness,
    handle: Arc<Broken>,
}

impl BrokenHarness {
    fn new(fault: Fault) -> Self {
        let fake = FakeBackend::new();
        let handle = Broken {
            inner: fake.clone(),
            fault,
            labels: Mutex::default(),
            parents: Mutex::default(),
            leaked: Mutex::default(),
        };
        Self {
            sound: FakeHarness { fake },
            handle: Arc::new(handle),
        }
    }
}

impl Drop for BrokenHarness {
    fn drop(&mut self) {
        self.handle.leaked.lock().unwrap().clear();
    }
}

#[async_trait]
impl Harness for BrokenHarness {
    async fn backend(&self) -> Arc<dyn VmBackend> {
        Arc::new(Handle(Arc::clone(&self.handle)))
    }

    fn image(&self) -> &str {
        self.sound.image()
    }

    async fn configured_image(&self, says: &ImageConfiguration) -> Option<Result<String, Skip>> {
        self.sound.configured_image(says).await
    }

    async fn leftovers(&self) -> Vec<String> {
        self.sound.leftovers().await
    }

    fn shell(&self) -> Shell {
        Shell::Minimal
    }

    fn scale(&self) -> Scale {
        Scale {
            chain: 20,
            vms: 8,
            patience: std::time::Duration::from_secs(60),
            ..Scale::default()
        }
    }
}

/// Runs one check on a backend with a fault, in paused time: waits for what never comes end at
/// once.
async fn outcome(name: &str, fault: Fault) -> Outcome {
    let check = CHECKS.iter().find(|check| check.name == name).unwrap();
    run_check(check, &BrokenHarness::new(fault)).await
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_found_by_its_check() {
    let faults = [
        (Fault::LeaksVms, "dropped_vms_are_freed", "left behind"),
        (Fault::LeaksVms, "destroyed_vms_are_freed", "left behind"),
        (Fault::SwallowsExitCodes, "exit_codes_come_back", "V1"),
        (
            Fault::SnapshotsAlwaysExist,
            "malformed_ids_are_absent",
            "B3",
        ),
        (
            Fault::SnapshotsAlwaysExist,
            "snapshot_exists_follows_its_life",
            "B3",
        ),
        (
            Fault::AcceptsAnyLimit,
            "undeclared_limits_are_refused",
            "B6",
        ),
        (
            Fault::AcceptsAnyNetwork,
            "undeclared_networks_are_refused",
            "B6",
        ),
        (
            Fault::ForgetsDeletions,
            "children_outlive_their_parent",
            "B5",
        ),
        (
            Fault::OneSnapshotPerLabel,
            "labels_are_any_string",
            "known id",
        ),
        (
            Fault::OneSnapshotPerLabel,
            "snapshot_go_on_snapshot_again",
            "V9",
        ),
        (Fault::FailsSecondDestroy, "calls_after_destroy_fail", "V12"),
        (Fault::WorksAfterDestroy, "calls_after_destroy_fail", "V12"),
        (
            Fault::IgnoresStops,
            "a_stopped_command_tells_the_cause",
            "V13",
        ),
        (
            Fault::TellsNoCause,
            "a_stopped_command_tells_the_cause",
            "V13",
        ),
        (
            Fault::RefusesToRemoveTwice,
            "malformed_ids_are_absent",
            "B4",
        ),
        (
            Fault::RefusesToRemoveTwice,
            "snapshot_exists_follows_its_life",
            "removing",
        ),
        (Fault::HidesMissingImages, "unknown_image_is_refused", "B1"),
        (Fault::SkipsInject, "inject_brings_the_contents", "V8"),
        (
            Fault::RunsInAnyDirectory,
            "failures_leave_nothing_behind",
            "ran nowhere",
        ),
        (
            Fault::KeepsDroppedSnapshots,
            "dropped_snapshots_leave_nothing",
            "left behind",
        ),
        (
            Fault::RemovesChildren,
            "children_outlive_their_parent",
            "B5",
        ),
        (Fault::RunsAsAnybody, "undeclared_users_are_refused", "V14"),
        (
            Fault::PassesOverCaches,
            "undeclared_mounts_are_refused",
            "V15",
        ),
        (
            Fault::PassesOverSecrets,
            "undeclared_mounts_are_refused",
            "V16",
        ),
        (
            Fault::HasAnyNetwork,
            "undeclared_private_networks_are_refused",
            "V19",
        ),
        (
            Fault::IgnoresPatterns,
            "undeclared_patterns_are_refused",
            "V17",
        ),
        (
            Fault::ForgetsImages,
            "commands_get_what_the_image_says",
            "V20",
        ),
        (
            Fault::StaysInTheRoot,
            "commands_get_what_the_image_says",
            "V20",
        ),
        (
            Fault::CopiesNothing,
            "undeclared_outputs_are_refused",
            "V18",
        ),
    ];
    for (fault, check, word) in faults {
        // The same check on the same decorator without its fault, or the failure proves nothing.
        assert_eq!(
            outcome(check, Fault::None).await,
            Outcome::Passed,
            "{check}"
        );
        match outcome(check, fault).await {
            Outcome::Failed(reason) => assert!(reason.contains(word), "{fault:?}: {reason}"),
            other => panic!("{check} does not find {fault:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_sound_decorator_passes_the_suite() {
    for check in CHECKS {
        let harness = BrokenHarness::new(Fault::None);
        let outcome = run_check(check, &harness).await;
        assert!(
            !matches!(outcome, Outcome::Failed(_)),
            "{}: {outcome:?}",
            check.name
        );
    }
}
