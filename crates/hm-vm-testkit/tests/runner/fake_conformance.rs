//! The fake backend keeps the rules, as far as a backend without processes can.

use std::sync::Arc;

use async_trait::async_trait;
use hm_vm_core::VmBackend;
use hm_vm_testkit::conformance::{Harness, ImageConfiguration, Shell};
use hm_vm_testkit::fake::FakeBackend;
use hm_vm_testkit::skip::Skip;

pub(crate) struct FakeHarness {
    pub(crate) fake: FakeBackend,
}

#[async_trait]
impl Harness for FakeHarness {
    async fn backend(&self) -> Arc<dyn VmBackend> {
        Arc::new(self.fake.clone())
    }

    async fn reopen(&self) -> Option<Arc<dyn VmBackend>> {
        Some(Arc::new(self.fake.clone()))
    }

    fn image(&self) -> &str {
        "alpine"
    }

    async fn configured_image(&self, says: &ImageConfiguration) -> Option<Result<String, Skip>> {
        self.fake.add_image("configured");
        self.fake
            .set_image_configuration("configured", says.clone());
        Some(Ok("configured".into()))
    }

    async fn leftovers(&self) -> Vec<String> {
        let vms = self
            .fake
            .live_vms()
            .into_iter()
            .map(|vm| format!("VM {vm}"));
        let snapshots = self.fake.snapshots().into_iter();
        vms.chain(snapshots.map(|(id, _)| format!("snapshot {id}")))
            .collect()
    }

    fn shell(&self) -> Shell {
        Shell::Minimal
    }
}

impl Drop for FakeHarness {
    fn drop(&mut self) {
        // The suite misuses VMs on purpose, to see that they refuse.
        self.fake.take_violations();
    }
}

async fn harness() -> Result<FakeHarness, Skip> {
    let fake = FakeBackend::new();
    Ok(FakeHarness { fake })
}

hm_vm_testkit::conformance_tests!(harness);
