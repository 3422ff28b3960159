//! Pulls from a real registry, by a real Docker daemon and a real Podman service.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use hm_vm_core::{CancelCause, Cancellation, Error, VmBackend as _};
use hm_vm_docker::{
    DockerBackend, DockerOptions, Endpoint, PullOptions, PullPolicy, PullProgress, PulledImage,
};
use hm_vm_oci::CredentialFiles;
use hm_vm_testkit::engines::{DockerDaemon, PodmanService};
use hm_vm_testkit::registry::{
    PASSWORD, RegistryServer, RegistrySetup, TestImage, USER, need_registry,
};
use hm_vm_testkit::require;
use hm_vm_testkit::roots::TestRoot;

/// A daemon's socket, a directory, and a runtime for the test.
struct Setting {
    root: TestRoot,
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Setting {
    fn new(socket: PathBuf) -> Self {
        Self {
            root: TestRoot::new().unwrap(),
            socket,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// A backend without logins, changed by `change`.
    fn backend(&self, change: impl FnOnce(&mut DockerOptions)) -> DockerBackend {
        let mut options = DockerOptions::default();
        options.endpoint = Some(Endpoint::Unix(self.socket.clone()));
        options.state = Some(self.root.join("state"));
        options.credentials = Some(CredentialFiles::default());
        change(&mut options);
        DockerBackend::open(options).unwrap()
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn pull(&self, backend: &DockerBackend, name: &str) -> anyhow::Result<PulledImage> {
        self.wait(backend.pull(name, &PullOptions::default(), Arc::new(|_| {})))
    }

    /// An image with some kilobytes that are its own.
    fn image(&self, name: &str) -> TestImage {
        let image = TestImage::busybox(&self.root.join(name)).unwrap();
        let file = self.root.join("content");
        std::fs::write(&file, name.repeat(1000)).unwrap();
        image.insert(&file, "/content").unwrap();
        image
    }

    /// A file with the login of the tests for a registry.
    fn login(&self, server: &RegistryServer, password: &str) -> CredentialFiles {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let file = self.root.join("config.json");
        let text = format!(
            r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#,
            server.address()
        );
        std::fs::write(&file, text).unwrap();
        CredentialFiles::new([file], [])
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::ImageNotFound { .. }))
}

/// What both engines do alike.
fn check_engine(setting: &Setting) {
    let server = RegistryServer::start(RegistrySetup::default()).unwrap();
    let image = setting.image("one");
    image.push(&server, "o/x:latest").unwrap();
    image.push(&server, "o/x:other").unwrap();
    setting.image("two").push(&server, "o/x:2").unwrap();
    let backend = setting.backend(|_| {});
    let name = |rest: &str| format!("{}/{rest}", server.address());

    pulls_say_what_they_do(setting, &backend, &name("o/x"));
    let id = setting.wait(backend.image_digest(&name("o/x"))).unwrap();
    let other = setting.pull(&backend, &name("o/x:2")).unwrap();
    assert_ne!(Some(&other.id), id.as_ref());

    // By digest, which needs no tag, and with both.
    let digest = other.digest.unwrap();
    assert!(digest.starts_with(&name("o/x@sha256:")), "{digest}");
    for by_digest in [digest.clone(), digest.replace("o/x@", "o/x:latest@")] {
        let again = setting.pull(&backend, &by_digest).unwrap();
        assert_eq!(again.id, other.id, "{by_digest}");
        assert_eq!(again.digest.as_deref(), Some(digest.as_str()));
    }

    for missing in ["o/x:absent", "o/absent", "o/absent:1"] {
        let error = setting.pull(&backend, &name(missing)).unwrap_err();
        assert!(is_missing(&error), "{missing}: {error:?}");
        assert!(format!("{error:#}").contains("pulling"), "{error:#}");
    }
    for never in ["host", "Not A Name", &"0".repeat(64)] {
        let error = setting.pull(&backend, never).unwrap_err();
        assert!(is_missing(&error), "{never}: {error:?}");
    }
    many_pulls_of_one_image(setting, &backend, &server);
    platforms(setting, &backend, &server);
    logins(setting);
    let backend = setting.backend(|options| options.pull = PullPolicy::Never);
    let error = setting
        .wait(backend.create(&name("o/x:other"), &hm_vm_core::VmConfig::default()))
        .map(drop)
        .unwrap_err();
    assert!(is_missing(&error), "{error:?}");
}

fn pulls_say_what_they_do(setting: &Setting, backend: &DockerBackend, name: &str) {
    let seen: Arc<Mutex<Vec<PullProgress>>> = Arc::default();
    let watched = Arc::clone(&seen);
    let watch = move |progress| watched.lock().unwrap().push(progress);
    let pulled = setting
        .wait(backend.pull(name, &PullOptions::default(), Arc::new(watch)))
        .unwrap();
    assert!(
        pulled.id.starts_with("sha256:") && pulled.bytes > 0,
        "{pulled:?}"
    );
    let seen = seen.lock().unwrap();
    let mut layers: Vec<_> = seen.iter().map(|progress| &progress.layer[..12]).collect();
    layers.sort_unstable();
    layers.dedup();
    assert!(layers.len() >= 2, "{seen:?}");
}

fn many_pulls_of_one_image(setting: &Setting, backend: &DockerBackend, server: &RegistryServer) {
    setting.image("three").push(server, "o/three:1").unwrap();
    let name = format!("{}/o/three:1", server.address());
    let options = PullOptions::default();
    let pulls = (0..4).map(|_| backend.pull(&name, &options, Arc::new(|_| {})));
    let all = setting.wait(futures_util::future::join_all(pulls));
    let ids: Vec<_> = all.into_iter().map(|pulled| pulled.unwrap().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// An index of two processors, and an image for another one than is asked for.
fn platforms(setting: &Setting, backend: &DockerBackend, server: &RegistryServer) {
    let foreign = setting.image("foreign");
    foreign.configure(&["--architecture=s390x"]).unwrap();
    foreign.push(server, "o/p:s390x").unwrap();
    let own = setting.image("own");
    own.push(server, "o/p:own").unwrap();
    let here = &backend.engine().processor;
    let entry = |tag: &str, processor: &str| {
        let image = if tag == "own" { &own } else { &foreign };
        let index = std::fs::read(image.layout().join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let manifest = &index["manifests"][0];
        let (digest, size) = (&manifest["digest"], &manifest["size"]);
        let media = "application/vnd.oci.image.manifest.v1+json";
        format!(
            r#"{{"mediaType":"{media}","digest":{digest},"size":{size},"platform":{{"os":"linux","architecture":"{processor}"}}}}"#
        )
    };
    let media = "application/vnd.oci.image.index.v1+json";
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media}","manifests":[{},{}]}}"#,
        entry("s390x", "s390x"),
        entry("own", here)
    );
    server.put_manifest("o/p:both", media, &index).unwrap();

    let name = |tag: &str| format!("{}/o/p:{tag}", server.address());
    let own = setting.pull(backend, &name("own")).unwrap();
    let both = setting.pull(backend, &name("both")).unwrap();
    assert_eq!(both.id, own.id);

    let asked = |platform: &str| PullOptions::default().with_platform(platform.parse().unwrap());
    let pull = |tag: &str, platform: &str| {
        setting.wait(backend.pull(&name(tag), &asked(platform), Arc::new(|_| {})))
    };
    let foreign = pull("both", "linux/s390x").unwrap();
    assert_ne!(foreign.id, own.id);
    for (tag, wanted) in [("both", "linux/riscv64"), ("own", "linux/s390x")] {
        let error = pull(tag, wanted).unwrap_err();
        let found = error.downcast_ref();
        assert!(
            matches!(found, Some(Error::InvalidInput { .. })),
            "{tag}: {error:?}"
        );
        assert!(format!("{error:#}").contains(wanted), "{error:#}");
    }
    let error = setting.pull(backend, &name("s390x")).unwrap_err();
    let told = format!("{error:#}");
    assert!(
        told.contains("linux/s390x") && told.contains(here.as_str()),
        "{told}"
    );
}

fn logins(setting: &Setting) {
    let server = RegistryServer::start(RegistrySetup {
        htpasswd: true,
        ..RegistrySetup::default()
    })
    .unwrap();
    let credentials = format!("--dest-creds={USER}:{PASSWORD}");
    setting
        .image("four")
        .push_to(server.address(), "o/x:1", &[&credentials])
        .unwrap();
    let name = format!("{}/o/x:1", server.address());

    let nobody = setting.pull(&setting.backend(|_| {}), &name).unwrap_err();
    let told = format!("{nobody:#}");
    let advice = format!("`docker login {}`", server.address());
    assert!(told.contains(&advice) && !is_missing(&nobody), "{told}");

    let with = |password: &str| {
        let files = setting.login(&server, password);
        let backend = setting.backend(|options| options.credentials = Some(files));
        setting.pull(&backend, &name)
    };
    let wrong = with("wrong").unwrap_err();
    let told = format!("{wrong:#}");
    assert!(told.contains(&advice) && told.contains("refuses"), "{told}");
    with(PASSWORD).unwrap();
}

/// A registry that takes connections and never says a word.
fn a_pull_that_hangs_can_be_ended(setting: &Setting) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/o/x", silent.local_addr().unwrap());
    let backend = setting.backend(|_| {});
    let cancel = Cancellation::new();
    let options = PullOptions::default().with_cancel(cancel.clone());
    let pull = backend.pull(&name, &options, Arc::new(|_| {}));
    let canceller = async {
        // The daemon has come to the registry.
        silent.set_nonblocking(true).unwrap();
        let silent = tokio::net::TcpListener::from_std(silent.try_clone().unwrap()).unwrap();
        let connection = silent.accept().await.unwrap();
        cancel.cancel(CancelCause::User);
        connection
    };
    let (pulled, _connection) = setting.wait(async { tokio::join!(pull, canceller) });
    let error = pulled.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::Cancelled { .. })),
        "{error:?}"
    );
}

#[test]
fn docker_pulls() {
    require!(DockerDaemon::need());
    require!(need_registry());
    require!(TestImage::need_tools());
    let daemon = DockerDaemon::start().unwrap();
    let setting = Setting::new(daemon.socket());
    check_engine(&setting);
    a_pull_that_hangs_can_be_ended(&setting);
}

#[test]
fn podman_pulls() {
    require!(PodmanService::need());
    require!(need_registry());
    require!(TestImage::need_tools());
    let service = PodmanService::start().unwrap();
    let setting = Setting::new(service.socket());
    check_engine(&setting);
    a_pull_that_hangs_can_be_ended(&setting);
}
