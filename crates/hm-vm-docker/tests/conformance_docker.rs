//! The conformance suite on a Docker daemon.

mod support;

use hm_vm_testkit::engines::TestEngine;
use hm_vm_testkit::skip::Skip;
use support::harness::ContainerHarness;

async fn docker() -> Result<ContainerHarness, Skip> {
    // Past the depth at which layers are merged; `snapshots.rs` has the chain of 300.
    ContainerHarness::new(TestEngine::docker()?, 130).await
}

hm_vm_testkit::conformance_tests!(docker);
