//! Images for tests, made without a network.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege::need_program;
use crate::skip::Skip;

/// Needs a static busybox, and tells where it is.
///
/// # Errors
///
/// A [`Skip`] when there is none.
pub fn need_busybox() -> Result<PathBuf, Skip> {
    let places = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];
    places
        .into_iter()
        .map(PathBuf::from)
        .find(|path| is_static(path))
        .ok_or_else(|| Skip::new("needs a static busybox: install the package busybox-static"))
}

/// Whether a program asks for no interpreter, and so runs in an empty root.
fn is_static(path: &Path) -> bool {
    // The name of the dynamic loader is near the beginning of those that have one.
    fs::read(path).is_ok_and(|bytes| {
        let head = &bytes[..bytes.len().min(4096)];
        !head
            .windows(8)
            .any(|window| window == b"/ld-linu" || window == b"/ld-musl")
    })
}

/// Makes a small root file system in `dir`, which must not exist: busybox with all its applets,
/// the usual directories and files, and the tools for extended attributes where this machine has
/// them.
///
/// # Errors
///
/// When busybox is missing, or `dir` cannot be written.
pub fn busybox_root(dir: &Path) -> Result<()> {
    let busybox = need_busybox()?;
    let listed = Command::new(&busybox)
        .arg("--list")
        .output()
        .with_context(|| format!("listing the applets of {}", busybox.display()))?;
    if !listed.status.success() {
        bail!("{} --list: {}", busybox.display(), listed.status);
    }
    let make = |name: &str, mode: u32| -> Result<()> {
        let path = dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("changing the mode of {}", path.display()))
    };
    for name in [
        "", "bin", "etc", "proc", "sys", "dev", "usr", "usr/bin", "var", "run",
    ] {
        make(name, 0o755)?;
    }
    make("root", 0o700)?;
    make("tmp", 0o1777)?;
    let target = dir.join("bin/busybox");
    fs::copy(&busybox, &target).with_context(|| format!("copying {}", busybox.display()))?;
    for applet in String::from_utf8_lossy(&listed.stdout).lines() {
        let link = dir.join("bin").join(applet);
        if applet != "busybox" {
            symlink("busybox", &link).with_context(|| format!("linking {}", link.display()))?;
        }
    }
    let files = [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    for name in ["setfattr", "getfattr"] {
        if let Ok(program) = need_program(name) {
            add_program(dir, &program)?;
        }
    }
    Ok(())
}

/// Copies a program of this machine into a root file system, with the libraries that it loads.
fn add_program(root: &Path, program: &Path) -> Result<()> {
    let listed = Command::new("ldd")
        .arg(program)
        .output()
        .context("running ldd")?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    // `name => /path (address)`, or `/path (address)` for the loader.
    let libraries = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(Path::new);
    for file in libraries.chain([program]) {
        let inside = file.strip_prefix("/").unwrap_or(file);
        let target = root.join(inside);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        if !target.exists() {
            fs::copy(file, &target).with_context(|| format!("copying {}", file.display()))?;
        }
    }
    Ok(())
}

/// The tar of a minimal Debian root file system. `HMVM_TEST_DEBIAN` names it; otherwise it is
/// `images/debian.tar` in the target directory, where `scripts/test` makes it once.
///
/// # Errors
///
/// A [`Skip`] when there is none.
pub fn debian_root() -> Result<PathBuf, Skip> {
    let named = std::env::var_os("HMVM_TEST_DEBIAN").map(PathBuf::from);
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let made = target
        .into_iter()
        .chain([tree])
        .map(|dir| dir.join("images/debian.tar"));
    named
        .into_iter()
        .chain(made)
        .find(|path| path.is_file())
        .ok_or_else(|| Skip::new("needs target/images/debian.tar: run scripts/test as root once"))
}
