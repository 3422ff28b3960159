//! A registry with images, and the program before it.

use std::process::Command;

use hm_vm_testkit::images::need_busybox;
use hm_vm_testkit::registry::{RegistryServer, RegistrySetup, TestImage, need_registry};
use hm_vm_testkit::roots::TestRoot;
use hm_vm_testkit::skip::Skip;
use serde_json::Value;

use crate::env::{Run, TestEnv};

/// A registry, a store, and a place for the layouts that images are made in.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) server: RegistryServer,
    pub(super) env: TestEnv,
    pub(super) root: TestRoot,
}

impl Images {
    pub(super) fn new() -> Result<Self, Skip> {
        Self::with(RegistrySetup::default())
    }

    pub(super) fn with(setup: RegistrySetup) -> Result<Self, Skip> {
        need_registry()?;
        need_busybox()?;
        TestImage::need_tools()?;
        Ok(Self {
            server: RegistryServer::start(setup).expect("a registry"),
            env: TestEnv::machine()?,
            root: TestRoot::new().expect("a directory"),
        })
    }

    /// The name of an image at this registry.
    pub(super) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.server.address())
    }

    /// busybox with a file `/version` above it, in a layout of its own.
    pub(super) fn version(&self, version: &str) -> TestImage {
        let image = TestImage::busybox(&self.root.join(&format!("layout-{version}")))
            .expect("an image of busybox");
        self.add_file(&image, "version", version);
        image
    }

    /// Adds a layer with one file at the top of an image.
    pub(super) fn add_file(&self, image: &TestImage, name: &str, content: &str) {
        let tree = tempfile::tempdir_in(self.root.path()).expect("a directory");
        std::fs::write(tree.path().join(name), content).expect("a file");
        image.add_tree(tree.path(), "/").expect("a layer");
    }

    /// [`Self::version`], pushed.
    pub(super) fn push(&self, version: &str, name: &str) {
        let image = self.version(version);
        image.push(&self.server, name).expect("pushed");
    }

    pub(super) fn pull(&self, arguments: &[&str]) -> Run {
        let mut all = vec!["image", "pull"];
        all.extend(arguments);
        self.env.hmvm(all)
    }

    /// Runs a line in an image, uncached.
    pub(super) fn sh(&self, image: &str, line: &str) -> Run {
        self.env
            .hmvm(["exec", "--image", image, "--cache", "off", "--", line])
    }

    /// What is known of an image.
    pub(super) fn inspect(&self, name: &str) -> Value {
        self.env.json(["image", "inspect", name, "--json"])
    }

    /// How many requests the server has answered so far.
    pub(super) fn asked(&self) -> usize {
        self.server.requests().expect("a log").len()
    }
}

/// Runs a program of others that has to succeed, and gives its output.
#[track_caller]
pub(super) fn tool(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}
