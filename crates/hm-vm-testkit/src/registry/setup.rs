//! How a registry is set up for a test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege::need_program;
use crate::skip::Skip;

/// The user that a registry with `htpasswd` knows.
pub const USER: &str = "user";

/// The password of [`USER`].
pub const PASSWORD: &str = "secret";

/// [`USER`] with bcrypt of [`PASSWORD`], the only form that the server takes.
const HTPASSWD: &str = "user:$2y$05$hmvmtestkitregistryusehNm6QnCEC0L2V4SfsBt0gJHjT50iHcq\n";

/// How a registry is set up. The default is open to everybody, speaks plain HTTP, and lets blobs
/// be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrySetup {
    /// Asks for [`USER`] and [`PASSWORD`] by basic authentication.
    pub htpasswd: bool,
    /// Speaks TLS, with a certificate for `localhost` and `127.0.0.1` of an authority of its own.
    pub tls: bool,
    /// Refuses everything that writes.
    pub read_only: bool,
    /// Allows manifests and blobs to be deleted.
    pub delete: bool,
}

impl Default for RegistrySetup {
    fn default() -> Self {
        Self {
            htpasswd: false,
            tls: false,
            read_only: false,
            delete: true,
        }
    }
}

/// Needs what [`super::RegistryServer`] runs: the registry, `setpriv`, and `openssl` for TLS.
///
/// # Errors
///
/// A [`Skip`] when one is missing.
pub fn need_registry() -> Result<(), Skip> {
    for program in ["docker-registry", "setpriv", "openssl"] {
        need_program(program)?;
    }
    Ok(())
}

impl RegistrySetup {
    /// Writes the configuration of a server, and what it refers to, into `dir`. Tells where the
    /// configuration is.
    pub(super) fn write(self, dir: &Path, address: &str) -> Result<PathBuf> {
        let mut text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: {}\n  maintenance:\n    uploadpurging:\n      enabled: false\n    \
             readonly:\n      enabled: {}\nhttp:\n  addr: {address}\n  secret: test\n",
            dir.join("storage").display(),
            self.delete,
            self.read_only,
        );
        if self.tls {
            let made = dir.join("server.pem").exists();
            if !made {
                make_certificates(dir)?;
            }
            write!(
                text,
                "  tls:\n    certificate: {}\n    key: {}\n",
                dir.join("server.pem").display(),
                dir.join("server.key").display()
            )?;
        }
        if self.htpasswd {
            let file = dir.join("htpasswd");
            fs::write(&file, HTPASSWD).with_context(|| format!("writing {}", file.display()))?;
            write!(
                text,
                "auth:\n  htpasswd:\n    realm: tests\n    path: {}\n",
                file.display()
            )?;
        }
        let file = dir.join("config.yml");
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

/// Makes an authority, `ca.pem`, and a certificate that it signed, `server.pem`.
fn make_certificates(dir: &Path) -> Result<()> {
    let extensions = dir.join("extensions");
    fs::write(
        &extensions,
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n\
         subjectAltName=DNS:localhost,IP:127.0.0.1\n",
    )
    .with_context(|| format!("writing {}", extensions.display()))?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        dir,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 3650 -subj /CN=hm-vm-tests"),
    )?;
    openssl(
        dir,
        &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"),
    )?;
    openssl(
        dir,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
         -extfile extensions -out server.pem",
    )
}

fn openssl(dir: &Path, arguments: &str) -> Result<()> {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .output()
        .context("running openssl")?;
    if !output.status.success() {
        bail!(
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
