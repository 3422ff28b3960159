//! The conformance suite on a service of Podman's: root's, or the user's own.

mod support;

use hm_vm_testkit::engines::TestEngine;
use hm_vm_testkit::skip::Skip;
use support::harness::ContainerHarness;

async fn podman() -> Result<ContainerHarness, Skip> {
    // Squashed once: Podman takes a second for each.
    ContainerHarness::new(TestEngine::podman()?, 130).await
}

hm_vm_testkit::conformance_tests!(podman);
