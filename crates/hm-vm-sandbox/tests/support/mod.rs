//! What the tests of the backend share.

use std::sync::Mutex;

use hm_vm_core::OutputSink;
use hm_vm_sandbox::{SandboxBackend, SandboxOptions};
use hm_vm_store::Store;
use hm_vm_testkit::images;
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

/// The lines of both streams, as they came.
#[derive(Default)]
pub(crate) struct Lines(pub(crate) Mutex<Vec<String>>);

impl OutputSink for Lines {
    fn on_stdout(&self, line: &str) {
        self.0.lock().expect("not poisoned").push(line.to_owned());
    }

    fn on_stderr(&self, line: &str) {
        self.on_stdout(line);
    }
}

/// A backend on a store of its own, with the image `busybox`.
pub(crate) struct Machine {
    pub(crate) backend: SandboxBackend,
    /// Goes when the tests are done with it.
    _root: TestRoot,
}

impl Machine {
    pub(crate) fn new() -> Result<Self, Skip> {
        images::need_busybox()?;
        let root = TestRoot::new().expect("a directory for the store");
        let tree = root.join("busybox");
        images::busybox_root(&tree).expect("a root file system");
        let store = Store::open(&root.join("s")).expect("a store");
        store.import_image(&tree, "busybox").expect("an image");
        let backend = SandboxBackend::open(store, SandboxOptions::default()).expect("a backend");
        Ok(Self {
            backend,
            _root: root,
        })
    }
}
