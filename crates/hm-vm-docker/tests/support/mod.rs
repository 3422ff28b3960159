//! The conformance suite's harness on containers: one engine for all checks, an owner for each.
#![expect(
    clippy::expect_used,
    reason = "a harness that cannot be built is a failed test"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hm_vm_core::VmBackend;
use hm_vm_docker::{DockerBackend, DockerOptions, Endpoint, PullPolicy};
use hm_vm_testkit::conformance::{Harness, ImageConfiguration, Scale};
use hm_vm_testkit::engines::{IMAGE, TestEngine};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;

/// Label of all that belongs to an owner, as users may know it.
const OWNER: &str = "io.hm-vm.owner";

/// A state directory, so an owner, of one check.
pub(crate) struct ContainerHarness {
    // Before the engine and the root: what is still removed in the background needs both.
    backend: DockerBackend,
    owner: String,
    images: AtomicU32,
    engine: Arc<TestEngine>,
    root: TestRoot,
}

impl ContainerHarness {
    /// On this engine.
    pub(crate) async fn new(engine: Arc<TestEngine>) -> Result<Self, Skip> {
        let root = TestRoot::new().expect("a directory for the state");
        let options = options(&engine, &root);
        let backend = tokio::task::spawn_blocking(move || DockerBackend::open(options))
            .await
            .expect("no panic")
            .expect("a backend");
        let owner = fs::read_to_string(root.join("state/owner")).expect("an owner");
        Ok(Self {
            backend,
            owner: owner.trim().to_owned(),
            images: AtomicU32::new(0),
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
        self.engine.docker_client(&["commit", &container, &name])?;
        self.engine.docker_client(&["rm", &container])?;
        Ok(name)
    }

    /// Name of the images that the harness makes.
    fn repository(&self) -> String {
        format!("hm-vm-test-{}", self.owner)
    }
}

fn options(engine: &TestEngine, root: &TestRoot) -> DockerOptions {
    let mut options = DockerOptions::default();
    options.endpoint = Some(Endpoint::Unix(engine.socket().to_owned()));
    options.state = Some(root.join("state"));
    options.pull = PullPolicy::Never;
    options
}

/// What the engine has of an owner. Directories that outlive VMs by their purpose are left out.
fn held(engine: &TestEngine, owner: &str) -> Vec<String> {
    let filter = format!("label={OWNER}={owner}");
    let list = |what: &[&str]| {
        let mut arguments = what.to_vec();
        arguments.extend(["--filter", &filter, "--format"]);
        let format = match what[0] {
            "ps" => "container {{.Names}} {{.Status}}",
            "images" => "image {{.Repository}}:{{.Tag}} {{.ID}}",
            "volume" => "volume {{.Name}}",
            _ => "network {{.Name}}",
        };
        arguments.push(format);
        let listed = engine.docker_client(&arguments).expect("a list");
        let lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines
    };
    let mut found = list(&["ps", "--all"]);
    found.extend(list(&["images", "--all"]));
    let cache = format!("volume hm-vm-{owner}-cache-");
    let volumes = list(&["volume", "ls"]).into_iter();
    found.extend(volumes.filter(|volume| !volume.starts_with(&cache)));
    found.extend(list(&["network", "ls"]));
    found
}

#[async_trait]
impl Harness for ContainerHarness {
    async fn backend(&self) -> Arc<dyn VmBackend> {
        Arc::new(self.backend.clone())
    }

    async fn reopen(&self) -> Option<Arc<dyn VmBackend>> {
        let options = options(&self.engine, &self.root);
        let opened = tokio::task::spawn_blocking(move || DockerBackend::open(options)).await;
        Some(Arc::new(
            opened.expect("no panic").expect("a second backend"),
        ))
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

    fn scale(&self) -> Scale {
        Scale {
            // Beyond the hundred layers at which images are squashed, three times.
            chain: 300,
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
        let filter = format!("label={OWNER}={}", self.owner);
        let own = format!("reference={}", self.repository());
        let lists: [(&[&str], &[&str]); 4] = [
            (
                &["ps", "--all", "--quiet", "--filter", &filter],
                &["rm", "--force", "--volumes"],
            ),
            (
                &["images", "--quiet", "--filter", &filter],
                &["rmi", "--force"],
            ),
            (
                &["images", "--quiet", "--filter", &own],
                &["rmi", "--force"],
            ),
            (
                &["volume", "ls", "--quiet", "--filter", &filter],
                &["volume", "rm", "--force"],
            ),
        ];
        for (list, remove) in lists {
            let listed = self.engine.docker_client(list).unwrap_or_default();
            let mut arguments = remove.to_vec();
            arguments.extend(listed.split_whitespace());
            if arguments.len() > remove.len() {
                let _ = self.engine.docker_client(&arguments);
            }
        }
    }
}
