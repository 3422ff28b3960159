//! The conformance suite on a service of Podman's: root's, or the user's own.

mod support;

use hm_vm_testkit::engines::TestEngine;
use hm_vm_testkit::skip::Skip;
use support::harness::ContainerHarness;

async fn podman() -> Result<ContainerHarness, Skip> {
    // A second for each: `snapshots.rs` has a chain that is long enough to be merged.
    ContainerHarness::new(TestEngine::podman()?, 40).await
}

hm_vm_testkit::conformance_tests!(podman);
