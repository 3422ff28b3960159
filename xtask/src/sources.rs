//! Rules about the source files: length, unsafe code, and what a crate's root file may hold.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::finding::Finding;
use crate::workspace::{Package, Workspace};

/// The only crate that may hold unsafe code.
const UNSAFE_CRATE: &str = "hm-vm-sys";
/// The crates that may read the environment: programs, and what tests are made of.
const TALKS_TO_USERS: [&str; 4] = ["hm-vm-bench", "hm-vm-testkit", "hmvm", "xtask"];
/// Files of libraries that find what their users have, when these ask for that by name: `EndpointSearch::from_environment`.
const FINDS_FOR_USERS: [&str; 1] = ["crates/hm-vm-docker/src/environment.rs"];
/// No file is longer.
const MOST_LINES: usize = 800;
/// A file with more lines outside its tests is listed.
const MANY_LINES: usize = 400;

/// Checks every Rust file of every member.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        for file in rust_files(&package.directory)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            let place = file
                .strip_prefix(&workspace.root)
                .unwrap_or(&file)
                .display()
                .to_string();
            let source = Source {
                place: &place,
                text: &text,
            };
            findings.extend(source.check_length());
            findings.extend(source.check_environment(&package.name));
            if is_index(&file, &package.directory) {
                findings.extend(source.check_index());
            }
            if package.roots.contains(&file) {
                findings.extend(source.check_unsafe(&package.name));
            }
        }
        findings.extend(check_manifest(package)?);
    }
    Ok(findings)
}

/// A file and what it is called in findings.
struct Source<'a> {
    place: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn check_length(&self) -> Option<Finding> {
        let lines = self.text.lines().count();
        if lines > MOST_LINES {
            return Some(Finding::error(
                self.place,
                format!("has {lines} lines, more than {MOST_LINES}"),
            ));
        }
        if self.is_test() {
            return None;
        }
        let own = lines_before_tests(self.text);
        (own > MANY_LINES).then(|| {
            Finding::warning(
                self.place,
                format!("has {own} lines outside its tests, more than {MANY_LINES}"),
            )
        })
    }

    fn is_test(&self) -> bool {
        self.place.contains("/tests/") || self.place.ends_with("tests.rs")
    }

    /// A `lib.rs` or `mod.rs` tells what there is and holds nothing itself.
    fn check_index(&self) -> Option<Finding> {
        const ITEMS: [&str; 9] = [
            "fn ",
            "async fn ",
            "const fn ",
            "unsafe fn ",
            "struct ",
            "enum ",
            "trait ",
            "impl ",
            "impl<",
        ];
        let line = self.text.lines().find(|line| {
            let item = visibility_removed(line);
            ITEMS.iter().any(|start| item.starts_with(start))
        })?;
        let message = format!("holds more than docs, `mod` and `pub use`: {line}");
        // A few lines of data at the head of a module are no fault yet; a crate's face is only that.
        Some(if self.place.ends_with("/lib.rs") {
            Finding::error(self.place, message)
        } else {
            Finding::warning(self.place, message)
        })
    }

    /// A library takes what it needs as arguments; the environment belongs to the program.
    fn check_environment(&self, package: &str) -> Option<Finding> {
        let may = TALKS_TO_USERS.contains(&package) || FINDS_FOR_USERS.contains(&self.place);
        if self.is_test() || !self.place.contains("/src/") || may {
            return None;
        }
        let own = lines_before_tests(self.text);
        let line = self.text.lines().take(own).find(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("env::var")
        })?;
        Some(Finding::error(
            self.place,
            format!("reads the environment in a library: {}", line.trim()),
        ))
    }

    fn check_unsafe(&self, package: &str) -> Option<Finding> {
        let forbids = self
            .text
            .lines()
            .any(|line| line.trim() == "#![forbid(unsafe_code)]");
        match (forbids, package == UNSAFE_CRATE) {
            (false, false) => Some(Finding::error(self.place, "lacks #![forbid(unsafe_code)]")),
            _ => None,
        }
    }
}

fn visibility_removed(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    match rest
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(") "))
    {
        Some((_, item)) => item,
        None => rest.strip_prefix(' ').unwrap_or(line),
    }
}

fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "))
        .unwrap_or(lines.len())
}

/// Whether the file only lists modules: `lib.rs`, and `mod.rs` outside the tests.
fn is_index(file: &Path, package: &Path) -> bool {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let in_sources = file.starts_with(package.join("src"));
    in_sources && matches!(name, "lib.rs" | "mod.rs")
}

/// Every member takes its lints from the workspace.
fn check_manifest(package: &Package) -> anyhow::Result<Option<Finding>> {
    let path = package.directory.join("Cargo.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let inherits = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    Ok((!inherits)
        .then(|| Finding::error(&package.name, "does not take its lints from the workspace")))
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?
        {
            let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
            let path = entry.path();
            let kind = entry
                .file_type()
                .with_context(|| format!("looking at {}", path.display()))?;
            if kind.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source<'_> {
        Source {
            place: "crates/a/src/a.rs",
            text,
        }
    }

    #[test]
    fn the_801st_line_is_an_error_and_the_800th_is_not() {
        let text = "// x\n".repeat(801);
        assert_eq!(
            source(&text).check_length().unwrap().severity,
            crate::Severity::Error
        );
        let warning = "// x\n".repeat(800);
        assert_eq!(
            source(&warning).check_length().unwrap().severity,
            crate::Severity::Warning
        );
    }

    #[test]
    fn tests_do_not_count_as_lines_of_the_file() {
        let text = format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            "// x\n".repeat(400),
            "// y\n".repeat(300)
        );
        assert_eq!(source(&text).check_length(), None);
        let file = Source {
            place: "crates/a/tests/b.rs",
            text: &"// x\n".repeat(500),
        };
        assert_eq!(file.check_length(), None);
    }

    #[test]
    fn a_function_in_an_index_is_found() {
        for item in [
            "pub fn run() {}",
            "pub(crate) struct A;",
            "impl A {",
            "fn f() {}",
            "pub async fn g() {}",
        ] {
            assert!(source(item).check_index().is_some(), "{item}");
        }
        assert!(
            source("//! Docs.\nmod a;\npub use a::A;\npublish!();\n")
                .check_index()
                .is_none()
        );
    }

    #[test]
    fn a_library_that_reads_the_environment_is_found() {
        let reading = "let home = std::env::var(\"HOME\");\n";
        assert!(source(reading).check_environment("hm-vm").is_some());
        assert!(source(reading).check_environment("hmvm").is_none());
        let in_tests = format!("// no env::var here\n#[cfg(test)]\nmod tests {{\n{reading}}}\n");
        assert!(source(&in_tests).check_environment("hm-vm").is_none());
    }

    #[test]
    fn only_the_crate_of_system_calls_goes_without_the_ban_on_unsafe() {
        assert!(source("//! Docs.\n").check_unsafe("hm-vm").is_some());
        assert!(source("//! Docs.\n").check_unsafe("hm-vm-sys").is_none());
        assert!(
            source("#![forbid(unsafe_code)]\n")
                .check_unsafe("hm-vm")
                .is_none()
        );
    }

    #[test]
    fn a_member_with_its_own_lints_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let package = Package {
            name: "a".into(),
            directory: folder.path().into(),
            roots: Vec::new(),
            edges: Vec::new(),
        };
        std::fs::write(
            folder.path().join("Cargo.toml"),
            "[lints]\nworkspace = true\n",
        )
        .unwrap();
        assert_eq!(check_manifest(&package).unwrap(), None);
        std::fs::write(
            folder.path().join("Cargo.toml"),
            "[lints.rust]\nmissing_docs = \"allow\"\n",
        )
        .unwrap();
        assert!(check_manifest(&package).unwrap().is_some());
    }
}
