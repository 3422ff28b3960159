//! The workspace as cargo tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

/// The members of the workspace and where they are.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
    /// Every member.
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its name in the manifest.
    pub(crate) name: String,
    /// The directory of its manifest.
    pub(crate) directory: PathBuf,
    /// The root files of its library and programs.
    pub(crate) roots: Vec<PathBuf>,
    /// Its dependencies on other members, of whatever kind.
    pub(crate) edges: Vec<Edge>,
}

/// A dependency of one member on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The member that is depended upon.
    pub(crate) to: String,
    /// Whether only tests, examples and benchmarks see it.
    pub(crate) dev: bool,
}

impl Workspace {
    /// Asks cargo for the workspace that this program was built from.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--no-deps",
                "--offline",
                "--manifest-path",
            ])
            .arg(&manifest)
            .output()
            .context("running cargo metadata")?;
        anyhow::ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .context("reading the output of cargo metadata")?;
        Self::from_metadata(&metadata)
    }

    /// Reads the output of `cargo metadata --no-deps`.
    pub(crate) fn from_metadata(metadata: &Value) -> anyhow::Result<Self> {
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata names no packages")?;
        let members: Vec<&str> = packages
            .iter()
            .filter_map(|package| package["name"].as_str())
            .collect();
        Ok(Self {
            root: metadata["workspace_root"]
                .as_str()
                .context("cargo metadata names no workspace root")?
                .into(),
            packages: packages
                .iter()
                .map(|package| Package::from_metadata(package, &members))
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Package {
    fn from_metadata(package: &Value, members: &[&str]) -> anyhow::Result<Self> {
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        let manifest = package["manifest_path"]
            .as_str()
            .context("a package without a manifest")?;
        Ok(Self {
            name: name.to_owned(),
            directory: Path::new(manifest)
                .parent()
                .context("a manifest without a folder")?
                .to_owned(),
            roots: elements(&package["targets"])
                .filter_map(library_or_program)
                .collect(),
            edges: elements(&package["dependencies"])
                .filter_map(|dependency| edge(dependency, members))
                .collect(),
        })
    }
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn library_or_program(target: &Value) -> Option<PathBuf> {
    let wanted = elements(&target["kind"])
        .filter_map(Value::as_str)
        .any(|kind| {
            matches!(
                kind,
                "lib" | "bin" | "proc-macro" | "rlib" | "cdylib" | "staticlib"
            )
        });
    wanted
        .then(|| target["src_path"].as_str().map(PathBuf::from))
        .flatten()
}

fn edge(dependency: &Value, members: &[&str]) -> Option<Edge> {
    // A dependency without a path comes from a registry, even if it is called like one of ours.
    dependency["path"].as_str()?;
    let to = dependency["name"].as_str()?;
    members.contains(&to).then(|| Edge {
        to: to.to_owned(),
        dev: dependency["kind"] == "dev",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_to_members_are_kept_and_registry_namesakes_are_not() {
        let metadata = serde_json::json!({
            "workspace_root": "/w",
            "packages": [
                {"name": "a", "manifest_path": "/w/a/Cargo.toml",
                 "targets": [{"kind": ["lib"], "src_path": "/w/a/src/lib.rs"},
                             {"kind": ["test"], "src_path": "/w/a/tests/runner.rs"}],
                 "dependencies": [{"name": "b", "path": "/w/b", "kind": null},
                                  {"name": "b", "kind": null},
                                  {"name": "c", "path": "/w/c", "kind": "dev"},
                                  {"name": "serde", "kind": null}]},
                {"name": "b", "manifest_path": "/w/b/Cargo.toml", "targets": [], "dependencies": []},
                {"name": "c", "manifest_path": "/w/c/Cargo.toml", "targets": [], "dependencies": []},
            ],
        });
        let workspace = Workspace::from_metadata(&metadata).unwrap();
        let a = &workspace.packages[0];
        assert_eq!(a.directory, Path::new("/w/a"));
        assert_eq!(a.roots, [Path::new("/w/a/src/lib.rs")]);
        assert_eq!(
            a.edges,
            [
                Edge {
                    to: "b".into(),
                    dev: false
                },
                Edge {
                    to: "c".into(),
                    dev: true
                }
            ]
        );
    }
}
