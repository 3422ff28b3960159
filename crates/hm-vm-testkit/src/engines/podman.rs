//! A service of Podman's of a test's own.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::orphans::end_orphans;
use super::shared::client;
use crate::privilege::{need_program, need_root};
use crate::process::{Lines, Supervised};
use crate::roots::TestRoot;
use crate::skip::Skip;

/// Locks in files: those in `/dev/shm` are shared with everything of Podman's on the machine, and stay. Limits on what a process may
/// open: Podman's own are more than a caged root may ask for.
const CONFIGURATION: &str = "[engine]\nlock_type = \"file\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
    [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";

/// Registries of tests speak plain HTTP, which Docker takes from this machine by itself.
const REGISTRIES: &str = "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n";

/// A `podman system service` on a socket in a temporary directory, with all that it keeps beside it.
///
/// It ends on drop, and dies with the test's process; its mounts are in a namespace that goes with it.
#[derive(Debug)]
pub struct PodmanService {
    // Before the root: the process must be gone when its files are removed.
    process: Supervised,
    root: TestRoot,
}

impl PodmanService {
    /// Needs root, Podman, and the client of Docker.
    ///
    /// # Errors
    ///
    /// A [`Skip`] where one is missing.
    pub fn need() -> Result<(), Skip> {
        need_root()?;
        for program in ["podman", "conmon", "docker", "setpriv", "unshare"] {
            need_program(program)?;
        }
        Ok(())
    }

    /// Starts one, and returns when it answers.
    ///
    /// # Errors
    ///
    /// When something of [`Self::need`] is missing, or the service does not come up.
    pub fn start() -> Result<Self> {
        let root = TestRoot::new()?;
        let at = |name: &str| root.join(name).display().to_string();
        for name in ["home", "user", "temporary"] {
            fs::create_dir(root.join(name)).with_context(|| format!("making {}", at(name)))?;
        }
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            at("root"),
            at("run")
        );
        for (name, text) in [
            ("containers.conf", CONFIGURATION),
            ("storage.conf", &storage),
            ("registries.conf", REGISTRIES),
        ] {
            fs::write(root.join(name), text).with_context(|| format!("writing {}", at(name)))?;
        }
        // Its monitor leaves a file in its working directory when memory runs out.
        let directory = format!("--wd={}", root.path().display());
        let mut arguments = ["--mount", "--propagation=private", &directory, "--"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(need_program("podman")?.display().to_string());
        let places = [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
            ("--volumepath", "volumes"),
            ("--network-config-dir", "networks"),
        ];
        for (option, name) in places {
            arguments.extend([option.to_owned(), at(name)]);
        }
        arguments.extend(["system", "service", "-t", "0"].map(str::to_owned));
        arguments.push(format!("unix://{}", at("sock")));
        let unshare = need_program("unshare")?;
        let mut program = vec![unshare.as_os_str()];
        program.extend(arguments.iter().map(OsStr::new));
        let (home, user, temporary) =
            (root.join("home"), root.join("user"), root.join("temporary"));
        let (containers, stored) = (root.join("containers.conf"), root.join("storage.conf"));
        let registries = root.join("registries.conf");
        let environment = [
            (
                "PATH",
                OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ),
            ("HOME", home.as_os_str()),
            ("XDG_RUNTIME_DIR", user.as_os_str()),
            ("TMPDIR", temporary.as_os_str()),
            ("CONTAINERS_CONF", containers.as_os_str()),
            ("CONTAINERS_STORAGE_CONF", stored.as_os_str()),
            ("CONTAINERS_REGISTRIES_CONF", registries.as_os_str()),
        ];
        let (out, err): (Arc<Lines>, Arc<Lines>) = Default::default();
        let process = Supervised::start(&program, &environment, &out, &err)?;
        let mut service = Self { process, root };
        service.wait()?;
        Ok(service)
    }

    /// It says nothing when it is ready.
    fn wait(&mut self) -> Result<()> {
        for _ in 0..600 {
            if std::os::unix::net::UnixStream::connect(self.socket()).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.ended() {
                bail!("podman ended ({status}): {}", self.process.words());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        bail!("podman does not come up: {}", self.process.words())
    }

    /// The file of its socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("sock")
    }

    /// Kills it, without a chance to clean up. What it left is removed on drop.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What the service has written about itself.
    pub fn log(&self) -> String {
        self.process.words()
    }
}

impl Drop for PodmanService {
    fn drop(&mut self) {
        // The containers' processes do not end with the service.
        if let Ok(all) = client(&self.socket(), &["ps", "--all", "--quiet"]) {
            let mut remove = vec!["rm", "--force"];
            remove.extend(all.split_whitespace());
            if remove.len() > 2 {
                let _ = client(&self.socket(), &remove);
            }
        }
        self.process.ask_to_end();
        // Nothing, unless it was killed.
        end_orphans(self.root.path(), &self.root.join("root/overlay-containers"));
    }
}
