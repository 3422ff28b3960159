//! Layered images for tests, made without any registry.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::server::RegistryServer;
use super::setup::{PASSWORD, USER};
use crate::images::busybox_root;
use crate::privilege::need_program;
use crate::skip::Skip;

/// An image in an OCI layout directory, made by `umoci`, for root and ordinary users alike.
#[derive(Clone, Debug)]
pub struct TestImage {
    layout: PathBuf,
    tag: String,
}

impl TestImage {
    /// Needs what this module runs: `umoci` and `skopeo`.
    ///
    /// # Errors
    ///
    /// A [`Skip`] when one is missing.
    pub fn need_tools() -> Result<(), Skip> {
        need_program("umoci")?;
        need_program("skopeo")?;
        Ok(())
    }

    /// An image without a layer, with the tag `latest`, in a layout directory `layout` that does
    /// not exist.
    ///
    /// # Errors
    ///
    /// When `umoci` fails.
    pub fn empty(layout: &Path) -> Result<Self> {
        let image = Self {
            layout: layout.to_owned(),
            tag: "latest".to_owned(),
        };
        run("umoci", |command| {
            command.arg("init").arg("--layout").arg(layout)
        })?;
        run("umoci", |command| {
            command.arg("new").arg("--image").arg(image.place())
        })?;
        Ok(image)
    }

    /// An image of one layer: busybox with its applets, a `PATH`, and `/bin/sh` to run. What it
    /// is made of goes to `layout` with `.root` behind it.
    ///
    /// # Errors
    ///
    /// When a tool is missing or fails.
    pub fn busybox(layout: &Path) -> Result<Self> {
        let image = Self::empty(layout)?;
        let mut root = layout.as_os_str().to_owned();
        root.push(".root");
        busybox_root(Path::new(&root))?;
        image.add_tree(Path::new(&root), "/")?;
        image.configure(&[
            "--config.env=PATH=/usr/local/bin:/usr/bin:/bin",
            "--config.cmd=/bin/sh",
        ])?;
        Ok(image)
    }

    /// The layout directory.
    pub fn layout(&self) -> &Path {
        &self.layout
    }

    /// `LAYOUT:TAG`, as `umoci --image` and `oci:` of `skopeo` take it.
    pub fn place(&self) -> String {
        format!("{}:{}", self.layout.display(), self.tag)
    }

    /// Adds a layer with the files of a directory at a place in the image. All belong to root.
    ///
    /// # Errors
    ///
    /// When `tar` or `umoci` fails.
    pub fn add_tree(&self, tree: &Path, at: &str) -> Result<()> {
        let mut tar = self.layout.as_os_str().to_owned();
        tar.push(".layer.tar");
        let tar = PathBuf::from(tar);
        // The names of entries alone, no targets of links.
        let place = format!("--transform=flags=r;s,^\\.,.{},", at.trim_end_matches('/'));
        run("tar", |command| {
            let command = command.args(["--create", "--sort=name", "--numeric-owner"]);
            let command = command.args(["--owner=0", "--group=0", &place, "--file"]);
            command.arg(&tar).arg("--directory").arg(tree).arg(".")
        })?;
        self.add_layer(&tar)
    }

    /// Adds a layer with one file, as `umoci insert` writes it: a tar that ends with the file's last
    /// byte, without padding and end mark.
    ///
    /// # Errors
    ///
    /// When `umoci` fails.
    pub fn insert(&self, file: &Path, at: &str) -> Result<()> {
        run("umoci", |command| {
            let command = command
                .args(["insert", "--rootless", "--image"])
                .arg(self.place());
            command.arg(file).arg(at)
        })
    }

    /// Adds a tar, taken as it is, as a layer.
    ///
    /// # Errors
    ///
    /// When `umoci` fails.
    pub fn add_layer(&self, tar: &Path) -> Result<()> {
        run("umoci", |command| {
            let command = command.args(["raw", "add-layer", "--image"]);
            command.arg(self.place()).arg(tar)
        })
    }

    /// Changes the configuration, by options of `umoci config` such as `--config.user=1:1`.
    ///
    /// # Errors
    ///
    /// When `umoci` fails.
    pub fn configure(&self, options: &[&str]) -> Result<()> {
        run("umoci", |command| {
            let command = command.arg("config").args(options);
            command.arg("--image").arg(self.place())
        })
    }

    /// Puts the image into a registry, under `name`: `repository:tag`.
    ///
    /// # Errors
    ///
    /// When `skopeo` fails.
    pub fn push(&self, server: &RegistryServer, name: &str) -> Result<()> {
        self.push_with(server, name, &[])
    }

    /// [`Self::push`] with more options of `skopeo copy`: `--format=v2s2` for Docker's manifests,
    /// `--dest-compress-format=zstd` with `--dest-compress`.
    ///
    /// # Errors
    ///
    /// When `skopeo` fails.
    pub fn push_with(&self, server: &RegistryServer, name: &str, options: &[&str]) -> Result<()> {
        let credentials = if server.setup().htpasswd {
            format!("--dest-creds={USER}:{PASSWORD}")
        } else {
            "--dest-no-creds".to_owned()
        };
        let mut all = vec![credentials.as_str()];
        all.extend(options);
        self.push_to(server.address(), name, &all)
    }

    /// Puts the image into whatever listens at `address`, such as a proxy before a registry, with
    /// more options of `skopeo copy`.
    ///
    /// # Errors
    ///
    /// When `skopeo` fails.
    pub fn push_to(&self, address: &str, name: &str, options: &[&str]) -> Result<()> {
        run("skopeo", |command| {
            command
                .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
                .args(options)
                .arg(format!("oci:{}", self.place()))
                .arg(format!("docker://{address}/{name}"))
        })
    }
}

/// Runs a program that has to succeed.
fn run(program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let path = need_program(program)?;
    let mut command = Command::new(path);
    arguments(&mut command);
    let output = command
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let told: Vec<&OsStr> = command.get_args().collect();
        bail!(
            "{program} {told:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
