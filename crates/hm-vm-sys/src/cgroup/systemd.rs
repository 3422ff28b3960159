//! A delegated scope, asked of the user's own systemd over D-Bus.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use zbus::export::futures_core::Stream as _;
use zbus::proxy::{Builder, CacheProperties};
use zbus::zvariant::{OwnedObjectPath, Value};
use zbus::{Connection, Proxy};

use super::files;
use super::machine::{Hierarchy, Machine};
use super::v2;
use crate::error::SysError;

/// systemd answers within milliseconds, or is stuck.
const TIMEOUT: Duration = Duration::from_secs(20);

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Those of `wanted` that systemd delegates to the user's services and scopes.
pub(super) fn delegated(machine: &Machine, wanted: &[&str]) -> Vec<String> {
    let (Some(v2), Some(_)) = (machine.v2(), &machine.user_bus) else {
        return Vec::new();
    };
    if machine.uid == 0 {
        return Vec::new();
    }
    let uid = machine.uid;
    let service = format!("user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
    let available = files::words(&v2.mount_point.join(service));
    wanted
        .iter()
        .map(|name| (*name).to_owned())
        .filter(|name| available.contains(name))
        .collect()
}

/// A transient scope of ours. It ends when this is dropped, or when our process ends.
#[derive(Debug)]
pub(super) struct Scope {
    systemd: Systemd,
    unit: String,
    dir: PathBuf,
    may_be_entered: bool,
    placeholder: Mutex<Child>,
}

impl Scope {
    /// Asks for the scope, and makes `controllers` available to groups in it. Waits until done.
    pub(super) fn start(
        bus: &str,
        unit: &str,
        v2: &Hierarchy,
        controllers: &[String],
    ) -> Result<Self, SysError> {
        let systemd = Systemd::on(bus)?;
        let mut placeholder = placeholder()?;
        let set_up = || {
            let pid = placeholder.id();
            systemd.call(Call::StartScope {
                unit: unit.to_owned(),
                pid,
            })?;
            let dir = group_of(pid, &v2.mount_point)?;
            // A group whose children have controllers must not hold processes itself.
            let aside = dir.join("placeholder");
            files::make_dir(&aside)?;
            files::write(&aside.join("cgroup.procs"), &pid.to_string())?;
            v2::enable(&dir, controllers)?;
            Ok(dir)
        };
        match set_up() {
            Ok(dir) => Ok(Self {
                systemd,
                unit: unit.to_owned(),
                may_be_entered: may_move(&v2.own, &dir),
                dir,
                placeholder: Mutex::new(placeholder),
            }),
            Err(e) => {
                end(&mut placeholder);
                Err(e)
            }
        }
    }

    /// The scope's group, in which ours are made.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether our children may move themselves here. They may not when we live in a session scope
    /// of the system's systemd, after a login by ssh for instance: the common ancestor is root's.
    pub(super) fn may_be_entered(&self) -> bool {
        self.may_be_entered
    }

    /// Has systemd move the process to the group of that name in the scope.
    pub(super) fn attach(&self, group: &str, pid: u32) -> Result<(), SysError> {
        self.systemd.call(Call::Attach {
            unit: self.unit.clone(),
            group: format!("/{group}"),
            pid,
        })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        end(&mut self
            .placeholder
            .lock()
            .unwrap_or_else(PoisonError::into_inner));
    }
}

/// A process that does nothing but wait for the end of its input, of which we hold the other side:
/// it ends when we do, however that happens.
fn placeholder() -> Result<Child, SysError> {
    Command::new("cat")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| SysError::new("starting cat to keep a systemd scope", e))
}

fn end(placeholder: &mut Child) {
    // Ended already, or ends now.
    drop(placeholder.kill());
    drop(placeholder.wait());
}

/// The directory of a process's v2 group.
fn group_of(pid: u32, mount_point: &Path) -> Result<PathBuf, SysError> {
    let file = format!("/proc/{pid}/cgroup");
    let text =
        fs::read_to_string(&file).map_err(|e| SysError::new(format!("reading {file}"), e))?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .map(|path| mount_point.join(path))
        .ok_or_else(|| {
            SysError::new(
                format!("finding the cgroup v2 group in {file}"),
                io::Error::from_raw_os_error(libc::ENOENT),
            )
        })
}

/// Whether a process in `from` may move itself to a group below `to`.
fn may_move(from: &Path, to: &Path) -> bool {
    from.ancestors()
        .find(|ancestor| to.starts_with(ancestor))
        .is_some_and(|common| files::writable(&common.join("cgroup.procs")))
}

/// What we ask of systemd.
#[derive(Debug)]
pub(super) enum Call {
    StartScope {
        unit: String,
        pid: u32,
    },
    Attach {
        unit: String,
        group: String,
        pid: u32,
    },
}

type Answer = Result<(), SysError>;

/// A thread with a connection to systemd. It needs no async runtime of the caller, and keeps the
/// connection for the next call.
#[derive(Debug)]
pub(super) struct Systemd {
    calls: Option<mpsc::Sender<(Call, mpsc::Sender<Answer>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Systemd {
    /// Starts the thread. It connects at the first call.
    pub(super) fn on(bus: &str) -> Result<Self, SysError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| SysError::new("preparing to talk to systemd", e))?;
        let (calls, receiver) = mpsc::channel::<(Call, mpsc::Sender<Answer>)>();
        let bus = bus.to_owned();
        let thread = std::thread::Builder::new()
            .name("hm-vm-systemd".into())
            .spawn(move || {
                let mut connection = None;
                while let Ok((call, answer)) = receiver.recv() {
                    let work = async {
                        tokio::time::timeout(TIMEOUT, perform(&bus, &mut connection, &call)).await
                    };
                    let result = match runtime.block_on(work) {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(e)) => Err(failure(&call, io::Error::other(e))),
                        Err(_) => Err(failure(&call, io::ErrorKind::TimedOut.into())),
                    };
                    if result.is_err() {
                        connection = None;
                    }
                    // The caller waits for it; if it is gone, nobody needs the answer.
                    drop(answer.send(result));
                }
            })
            .map_err(|e| SysError::new("starting a thread to talk to systemd", e))?;
        Ok(Self {
            calls: Some(calls),
            thread: Some(thread),
        })
    }

    /// Makes a call, and waits for its result.
    pub(super) fn call(&self, call: Call) -> Answer {
        let gone = || {
            SysError::new(
                "talking to systemd",
                io::Error::from(io::ErrorKind::BrokenPipe),
            )
        };
        let (sender, answer) = mpsc::channel();
        let calls = self.calls.as_ref().ok_or_else(gone)?;
        calls.send((call, sender)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.calls.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn failure(call: &Call, source: io::Error) -> SysError {
    let doing = match call {
        Call::StartScope { unit, .. } => format!("asking the user's systemd for {unit}"),
        Call::Attach { unit, group, pid } => {
            format!("asking the user's systemd to move process {pid} to {unit}{group}")
        }
    };
    SysError::new(doing, source)
}

async fn perform(
    bus: &str,
    connection: &mut Option<Connection>,
    call: &Call,
) -> Result<(), zbus::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let new = zbus::connection::Builder::address(bus)?.build().await?;
            connection.insert(new)
        }
    };
    let manager: Proxy<'_> = Builder::new(connection)
        .destination(DESTINATION)?
        .path(PATH)?
        .interface(MANAGER)?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    match call {
        Call::StartScope { unit, pid } => start_scope(&manager, unit, *pid).await,
        // Since systemd 238. It moves what the caller may signal, across borders of delegation.
        Call::Attach { unit, group, pid } => {
            manager
                .call::<_, _, ()>("AttachProcessesToUnit", &(unit, group, &[*pid][..]))
                .await
        }
    }
}

async fn start_scope(manager: &Proxy<'_>, unit: &str, pid: u32) -> Result<(), zbus::Error> {
    // systemd sends signals to subscribers only. A second subscription is an error that does not
    // matter.
    drop(manager.call::<_, _, ()>("Subscribe", &()).await);
    // Listening begins before the job does, so that its end cannot be missed.
    let mut ended = manager.receive_signal("JobRemoved").await?;
    let properties: Vec<(&str, Value<'_>)> = vec![
        ("Description", Value::from("Virtual machines of hm-vm")),
        ("PIDs", Value::from(vec![pid])),
        ("Delegate", Value::from(true)),
        ("CollectMode", Value::from("inactive-or-failed")),
    ];
    let others: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
    let job: OwnedObjectPath = manager
        .call("StartTransientUnit", &(unit, "fail", properties, others))
        .await?;
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut ended).poll_next(context)).await;
        let message = next.ok_or_else(|| {
            zbus::Error::Failure("the connection ended before the scope was there".into())
        })?;
        let body = message.body();
        let (_, path, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
        if path == job {
            return if result == "done" {
                Ok(())
            } else {
                Err(zbus::Error::Failure(format!(
                    "the job ended with {result:?}"
                )))
            };
        }
    }
}
