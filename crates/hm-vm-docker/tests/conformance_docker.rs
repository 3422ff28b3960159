//! The conformance suite on a Docker daemon.

mod support;

use hm_vm_testkit::engines::TestEngine;
use hm_vm_testkit::skip::Skip;
use support::harness::ContainerHarness;

async fn docker() -> Result<ContainerHarness, Skip> {
    // Squashed twice.
    ContainerHarness::new(TestEngine::docker()?, 300).await
}

hm_vm_testkit::conformance_tests!(docker);
