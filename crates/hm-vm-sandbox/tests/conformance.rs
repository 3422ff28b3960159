//! The conformance suite on the sandbox, as whoever runs it: root, an ordinary user with
//! subordinate ids, or one without.
#![expect(
    clippy::expect_used,
    reason = "a harness that cannot be built is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hm_vm_core::VmBackend;
use hm_vm_sandbox::{SandboxBackend, SandboxOptions};
use hm_vm_store::{Base, PullOptions, Store};
use hm_vm_testkit::conformance::{Harness, ImageConfiguration};
use hm_vm_testkit::images;
use hm_vm_testkit::registry::TestImage;
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

/// Name of the image that says something of commands.
const CONFIGURED: &str = "configured";

/// A store of its own, with one image.
struct SandboxHarness {
    backend: SandboxBackend,
    image: &'static str,
    /// What the store holds when nothing but the image is in it.
    at_first: Mutex<BTreeSet<String>>,
    root: TestRoot,
}

impl SandboxHarness {
    fn new(image: &'static str) -> Result<Self, Skip> {
        let root = TestRoot::new().expect("a directory for the store");
        let store = Store::open(&root.join("s")).expect("a store");
        if image == "busybox" {
            images::need_busybox()?;
            let tree = root.join("busybox");
            images::busybox_root(&tree).expect("a root file system");
            store.import_image(&tree, image).expect("an image");
        } else if image == "debian" {
            let tar = images::debian_root()?;
            store.import_image(&tar, image).expect("an image");
        }
        let backend = SandboxBackend::open(store, SandboxOptions::default()).expect("a backend");
        let harness = Self {
            backend,
            image,
            at_first: Mutex::default(),
            root,
        };
        // A helper process for file work in the user namespace stays as long as the store.
        let _ = harness.backend.capabilities();
        // The layer that masks the host is made when the first VM needs it, and stays.
        let vm = harness.backend.store().new_vm(Base::Image(image));
        vm.expect("a VM").remove().expect("its removal");
        harness.backend.store().flush().expect("an idle store");
        harness.accept();
        Ok(harness)
    }

    /// What is held now is not left behind.
    fn accept(&self) {
        self.backend.store().flush().expect("an idle store");
        let held = self.held().into_iter().collect();
        *self.at_first.lock().expect("not poisoned") = held;
    }

    fn configure(&self, says: &ImageConfiguration) -> Result<String, Skip> {
        TestImage::need_tools()?;
        let image = TestImage::busybox(&self.root.join("layout")).expect("an image");
        let mut options: Vec<String> = (says.env.iter())
            .map(|(name, value)| format!("--config.env={name}={value}"))
            .collect();
        options.extend(says.user.iter().map(|user| format!("--config.user={user}")));
        let directory = says.working_dir.iter();
        options.extend(directory.map(|path| format!("--config.workingdir={path}")));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        image.configure(&options).expect("a configuration");
        let source = hm_vm_oci::open_local(image.layout(), None).expect("a layout");
        let store = self.backend.store();
        store
            .pull_image(&*source, CONFIGURED, &PullOptions::default())
            .expect("a pulled image");
        self.accept();
        Ok(CONFIGURED.into())
    }

    fn held(&self) -> Vec<String> {
        let mut held = Vec::new();
        for directory in ["layers", "vms", "tmp", "trash"] {
            let Ok(entries) = fs::read_dir(self.root.join("s").join(directory)) else {
                continue;
            };
            for entry in entries.flatten() {
                held.push(entry.path().display().to_string());
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.root.path().display().to_string();
        held.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&own))
                .map(str::to_owned),
        );
        // Other tests share this process unless nextest runs each in one of its own.
        if std::env::var_os("NEXTEST").is_some() {
            held.extend(children());
        }
        held
    }
}

/// Child processes of this one.
fn children() -> Vec<String> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|pids| {
            let pids: Vec<String> = pids.split_whitespace().map(str::to_owned).collect();
            pids
        })
        .map(|pid| format!("child process {pid}"))
        .collect()
}

#[async_trait]
impl Harness for SandboxHarness {
    async fn backend(&self) -> Arc<dyn VmBackend> {
        Arc::new(self.backend.clone())
    }

    async fn reopen(&self) -> Option<Arc<dyn VmBackend>> {
        let store = Store::open(&self.root.join("s")).expect("the same store again");
        let backend = SandboxBackend::open(store, SandboxOptions::default());
        Some(Arc::new(backend.expect("a second backend")))
    }

    fn image(&self) -> &str {
        self.image
    }

    async fn configured_image(&self, says: &ImageConfiguration) -> Option<Result<String, Skip>> {
        Some(self.configure(says))
    }

    async fn leftovers(&self) -> Vec<String> {
        let store = self.backend.store();
        store.collect_unused().expect("a collection");
        let stats = store.stats().expect("figures of the store");
        let mut found = self.backend.leftovers();
        let left = store.leftovers().expect("a look at the store");
        found.extend(
            left.into_iter()
                .map(|left| format!("{}: {:?}", left.what, left.path)),
        );
        if stats.vms > 0 || stats.snapshots > 0 {
            found.push(format!("{} VMs, {} snapshots", stats.vms, stats.snapshots));
        }
        let held = self.held().into_iter();
        let at_first = self.at_first.lock().expect("not poisoned");
        found.extend(held.filter(|thing| !at_first.contains(thing)));
        found
    }
}

impl Drop for SandboxHarness {
    fn drop(&mut self) {
        // An ordinary user cannot remove what belongs to its subordinate ids; the store can.
        let store = self.backend.store();
        for snapshot in store.snapshots().unwrap_or_default() {
            let _ = store.remove_snapshot(&snapshot.id);
        }
        let _ = store.remove_image(self.image);
        let _ = store.remove_image(CONFIGURED);
        let _ = store.collect_unused();
        let _ = store.flush();
    }
}

mod busybox {
    use super::{SandboxHarness, Skip};

    async fn harness() -> Result<SandboxHarness, Skip> {
        SandboxHarness::new("busybox")
    }

    hm_vm_testkit::conformance_tests!(harness);
}

mod host {
    use super::{SandboxHarness, Skip};

    async fn harness() -> Result<SandboxHarness, Skip> {
        SandboxHarness::new("host")
    }

    hm_vm_testkit::conformance_tests!(harness);
}
