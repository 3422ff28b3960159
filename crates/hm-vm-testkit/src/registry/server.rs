//! A real registry: the program of the Debian package `docker-registry`.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use super::access::Request;
use super::setup::RegistrySetup;
use crate::privilege::need_program;
use crate::process::{Lines, PATIENCE, Supervised};
use crate::roots::TestRoot;

/// A registry on a loopback port, with its storage in a temporary directory.
///
/// It is killed and reaped on drop, and dies with the test's process however that ends.
#[derive(Debug)]
pub struct RegistryServer {
    // Before the root: the process must be gone when its files are removed.
    process: Option<Supervised>,
    setup: RegistrySetup,
    address: String,
    access: Arc<Lines>,
    log: Arc<Lines>,
    marks: AtomicU64,
    root: TestRoot,
}

impl RegistryServer {
    /// Starts one, and returns when it answers.
    ///
    /// # Errors
    ///
    /// When a program of [`super::need_registry`] is missing, or the server does not come up.
    pub fn start(setup: RegistrySetup) -> Result<Self> {
        let mut server = Self {
            process: None,
            setup,
            // The kernel chooses the port, so that nobody can take it first.
            address: "127.0.0.1:0".to_owned(),
            access: Arc::default(),
            log: Arc::default(),
            marks: AtomicU64::new(0),
            root: TestRoot::new()?,
        };
        server.restart()?;
        Ok(server)
    }

    /// `127.0.0.1:PORT`: the first part of references.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port alone: `localhost:PORT` is the same server.
    pub fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// How it was set up.
    pub fn setup(&self) -> RegistrySetup {
        self.setup
    }

    /// The PEM file of the authority that signed the server's certificate; there with `tls` only.
    pub fn authority(&self) -> PathBuf {
        self.root.join("ca.pem")
    }

    /// The directory that the server keeps everything in.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// The file that holds the bytes of a blob, manifests included, given by its digest
    /// (`sha256:…`): to be looked at, damaged, or removed.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
        let start = hex.get(..2).unwrap_or_default();
        self.storage()
            .join("docker/registry/v2/blobs")
            .join(algorithm)
            .join(start)
            .join(hex)
            .join("data")
    }

    /// The digests of all blobs that are stored, manifests included, in order.
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    pub fn blobs(&self) -> Result<Vec<String>> {
        let top = self.storage().join("docker/registry/v2/blobs/sha256");
        let mut found = Vec::new();
        if !top.exists() {
            return Ok(found);
        }
        for start in read_dir(&top)? {
            for blob in read_dir(&start)? {
                let name = blob.file_name().unwrap_or_default().to_string_lossy();
                found.push(format!("sha256:{name}"));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The tags of a repository, in order, from the storage.
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let top = self
            .storage()
            .join("docker/registry/v2/repositories")
            .join(repository)
            .join("_manifests/tags");
        if !top.exists() {
            return Ok(Vec::new());
        }
        let mut tags: Vec<String> = read_dir(&top)?
            .iter()
            .filter_map(|tag| Some(tag.file_name()?.to_string_lossy().into_owned()))
            .collect();
        tags.sort();
        Ok(tags)
    }

    /// Kills the server: connections to it are refused from now on. What it stores stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts a server that was stopped, at the address that it had; a running one is first
    /// stopped.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let config = self.setup.write(self.root.path(), &self.address)?;
        let program = need_program("docker-registry")?;
        // Another program may have the port for a moment: as that of a connection to elsewhere.
        for _ in 0..100 {
            let told = self.log.count();
            let mut process = Supervised::start(
                &[program.as_os_str(), OsStr::new("serve"), config.as_os_str()],
                &[("OTEL_TRACES_EXPORTER", OsStr::new("none"))],
                &self.access,
                &self.log,
            )?;
            // Written after the socket listens.
            if let Some(address) = self.log.wait_for(told, listening) {
                self.address = address;
                self.process = Some(process);
                return Ok(());
            }
            let words = process.words();
            if process.ended().is_none() || !words.contains("address already in use") {
                bail!("the registry does not come up: {words}");
            }
        }
        bail!("the port of {} stays taken", self.address)
    }

    /// What the server has written about itself.
    pub fn log(&self) -> String {
        self.log.all().join("\n")
    }

    /// Everything that the server was asked so far, and has answered, in order; also by servers
    /// before a restart.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn requests(&self) -> Result<Vec<Request>> {
        if self.process.is_some() {
            // Lines come through a pipe: those before the line of this request are all there.
            let mark = format!("/v2/?mark={}", self.marks.fetch_add(1, Ordering::Relaxed));
            self.ask(&mark)?;
            let found = self
                .access
                .wait_for(0, |line| line.contains(&format!("{mark} ")).then_some(()));
            found.context("the registry did not log a request")?;
        }
        let requests = self.access.all().into_iter();
        Ok(requests
            .filter_map(|line| Request::parse(&line))
            .filter(|request| !request.path.starts_with("/v2/?mark="))
            .collect())
    }

    /// Stores a manifest that needs no more than what the repository has, under a tag: the way to
    /// an index, or to a manifest that nobody in his right mind would write. Not with TLS or a
    /// password.
    ///
    /// # Errors
    ///
    /// When the server does not take it, with what it says.
    pub fn put_manifest(&self, name: &str, media_type: &str, manifest: &str) -> Result<()> {
        let (repository, tag) = name.split_once(':').context("a name without a tag")?;
        let request = format!(
            "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{manifest}",
            self.address,
            manifest.len()
        );
        let answer = self.call(&request)?;
        if !answer.starts_with("HTTP/1.1 201") {
            bail!("the registry does not take {name}: {answer}");
        }
        Ok(())
    }

    fn ask(&self, path: &str) -> Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        if self.call(&request)?.is_empty() {
            bail!("the registry at {} does not answer", self.address);
        }
        Ok(())
    }

    /// What comes back for a request, to the end of the connection.
    fn call(&self, request: &str) -> Result<String> {
        let mut answer = Vec::new();
        if self.setup.tls {
            let mut client = Command::new("openssl")
                .args(["s_client", "-quiet", "-connect", &self.address])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("starting openssl s_client")?;
            let mut input = client.stdin.take().context("no standard input")?;
            let mut output = client.stdout.take().context("no standard output")?;
            input.write_all(request.as_bytes())?;
            let read = output.read_to_end(&mut answer);
            drop(input);
            client.wait().context("waiting for openssl s_client")?;
            read.context("reading from openssl s_client")?;
        } else {
            let mut stream = TcpStream::connect(&self.address)
                .with_context(|| format!("connecting to {}", self.address))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_end(&mut answer)?;
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// The address in a line such as `… msg="listening on 127.0.0.1:5000, tls" …`.
fn listening(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("msg=\"listening on ")?;
    let end = rest.find([',', '"'])?;
    rest.get(..end).map(str::to_owned)
}

fn read_dir(dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect()
}
