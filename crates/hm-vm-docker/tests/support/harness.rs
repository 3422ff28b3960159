//! The conformance suite's harness on containers: one engine for all checks, an owner for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hm_vm_core::VmBackend;
use hm_vm_docker::DockerBackend;
use hm_vm_testkit::conformance::{Harness, ImageConfiguration, Scale};
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

use crate::support::{commit, held, open, owner, remove_all};

/// A state directory, so an owner, of one check.
pub(crate) struct ContainerHarness {
    // Before the engine and the root: what is still removed in the background needs both.
    backend: DockerBackend,
    owner: String,
    images: AtomicU32,
    chain: usize,
    engine: Arc<TestEngine>,
    root: TestRoot,
}

impl ContainerHarness {
    /// On this engine. Chains have `chain` snapshots: images are squashed at a hundred layers.
    pub(crate) async fn new(engine: Arc<TestEngine>, chain: usize) -> Result<Self, Skip> {
        let root = TestRoot::new().expect("a directory for the state");
        let backend = reopened(&engine, &root).await;
        Ok(Self {
            backend,
            owner: owner(&root.join("state")),
            images: AtomicU32::new(0),
            chain,
            engine,
            root,
        })
    }

    /// An image of the same files whose configuration says this.
    fn configure(&self, says: &ImageConfiguration) -> anyhow::Result<String> {
        let number = self.images.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}:{number}", self.repository());
        let mut arguments = vec!["create".to_owned()];
        let mut option = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
        for (name, value) in &says.env {
            option("env", &format!("{name}={value}"));
        }
        if let Some(user) = &says.user {
            option("user", user);
        }
        if let Some(directory) = &says.working_dir {
            option("workdir", directory);
        }
        arguments.extend([IMAGE.to_owned(), "/never/run".to_owned()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let container = self.engine.docker_client(&arguments)?;
        commit(&self.engine, &container, &name)?;
        self.engine.docker_client(&["rm", &container])?;
        Ok(name)
    }

    /// Name of the images that the harness makes.
    fn repository(&self) -> String {
        format!("hm-vm-test-{}", self.owner)
    }
}

async fn reopened(engine: &TestEngine, root: &TestRoot) -> DockerBackend {
    let (socket, state) = (engine.socket().to_owned(), root.join("state"));
    tokio::task::spawn_blocking(move || open(&socket, &state))
        .await
        .expect("a backend")
}

#[async_trait]
impl Harness for ContainerHarness {
    async fn backend(&self) -> Arc<dyn VmBackend> {
        Arc::new(self.backend.clone())
    }

    async fn reopen(&self) -> Option<Arc<dyn VmBackend>> {
        Some(Arc::new(reopened(&self.engine, &self.root).await))
    }

    fn image(&self) -> &str {
        IMAGE
    }

    async fn configured_image(&self, says: &ImageConfiguration) -> Option<Result<String, Skip>> {
        Some(Ok(self.configure(says).expect("an image")))
    }

    async fn leftovers(&self) -> Vec<String> {
        let (engine, owner) = (Arc::clone(&self.engine), self.owner.clone());
        tokio::task::spawn_blocking(move || held(&engine, &owner))
            .await
            .expect("a look at the engine")
    }

    fn layers_are_archives(&self) -> bool {
        true
    }

    fn scale(&self) -> Scale {
        Scale {
            chain: self.chain,
            vms: 8,
            files: 20_000,
            output_bytes: 100 << 20,
            patience: Duration::from_secs(600),
        }
    }
}

impl Drop for ContainerHarness {
    fn drop(&mut self) {
        // What a failed check left, the caches, and the harness's own images.
        self.backend.flush();
        remove_all(&self.engine, &self.owner);
        for number in 0..*self.images.get_mut() {
            let name = format!("{}:{number}", self.repository());
            let _ = self.engine.docker_client(&["rmi", "--force", &name]);
        }
    }
}
