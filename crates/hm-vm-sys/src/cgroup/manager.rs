//! Choosing where groups go, and making them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::files;
use super::group::{Cgroup, Entrance, GroupDir};
use super::limits::{CgroupLimits, Controller, settings};
use super::machine::{Machine, Version};
use super::systemd::{self, Scope};
use super::v2::{self, Place};
use crate::error::SysError;

/// The directory that holds the groups of all stores.
pub(super) const PARENT: &str = "hm-vm";

/// No limit can be enforced on this machine by this user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {fix}")]
pub struct CgroupUnavailable {
    /// Why not.
    pub reason: String,
    /// What the user can do about it.
    pub fix: String,
}

/// Which limits can be enforced. The text says why not, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupSupport {
    /// [`CgroupLimits::cpus`].
    pub cpus: Result<(), String>,
    /// [`CgroupLimits::memory_bytes`].
    pub memory: Result<(), String>,
    /// [`CgroupLimits::pids`].
    pub pids: Result<(), String>,
}

/// Makes groups, and knows their names. Shared between threads by reference or `Arc`.
///
/// Dropping it ends its systemd scope, if it asked for one; groups must not outlive it there.
#[derive(Debug)]
pub struct CgroupManager {
    pub(super) machine: Machine,
    pub(super) owner: String,
    pub(super) session: String,
    next: AtomicU64,
    slots: Vec<Slot>,
    support: CgroupSupport,
    scope: Mutex<Option<Arc<Scope>>>,
}

/// A hierarchy in which groups are made, and the controllers used there.
#[derive(Clone, Debug)]
struct Slot {
    controllers: Vec<Controller>,
    site: Site,
}

#[derive(Clone, Debug)]
enum Site {
    V1 {
        own: PathBuf,
        cpuacct: bool,
    },
    V2(Place),
    /// In a scope that is yet to be asked for.
    Scope {
        bus: String,
        names: Vec<String>,
    },
}

impl CgroupManager {
    /// Looks at what this machine offers. Reads only.
    ///
    /// `owner` names the store, and `session` the process that has it open: together they are in
    /// the name of every group. Characters other than ASCII letters and digits become `_`.
    ///
    /// # Errors
    ///
    /// When no limit at all could be enforced.
    pub fn detect(owner: &str, session: &str) -> Result<Self, CgroupUnavailable> {
        let machine = Machine::read().map_err(|e| CgroupUnavailable {
            reason: e.to_string(),
            fix: "mount /proc and /sys/fs/cgroup".into(),
        })?;
        Self::on(machine, owner, session)
    }

    pub(super) fn on(
        machine: Machine,
        owner: &str,
        session: &str,
    ) -> Result<Self, CgroupUnavailable> {
        let slots = choose_slots(&machine);
        let reason = |controller: Controller| {
            if slots
                .iter()
                .any(|slot| slot.controllers.contains(&controller))
            {
                Ok(())
            } else {
                let (reason, fix) = explain(&machine, controller);
                Err(format!("{reason}; {fix}"))
            }
        };
        let support = CgroupSupport {
            cpus: reason(Controller::Cpu),
            memory: reason(Controller::Memory),
            pids: reason(Controller::Pids),
        };
        if slots.is_empty() {
            let (reason, fix) = explain(&machine, Controller::Memory);
            return Err(CgroupUnavailable { reason, fix });
        }
        Ok(Self {
            machine,
            owner: tidy(owner),
            session: tidy(session),
            next: AtomicU64::new(0),
            slots,
            support,
            scope: Mutex::new(None),
        })
    }

    /// Which limits can be enforced.
    pub fn support(&self) -> &CgroupSupport {
        &self.support
    }

    /// Where groups go, for a person to read.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = self.slots.iter().map(Slot::describe).collect();
        parts.join("; ")
    }

    /// Makes the group of one VM, with its limits set. Processes enter it as
    /// [`Cgroup::can_be_entered`] says.
    ///
    /// # Errors
    ///
    /// When a limit is not supported, or the kernel or systemd refuses. Nothing is left behind.
    pub fn create(&self, limits: &CgroupLimits) -> Result<Cgroup, SysError> {
        self.check(limits)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PARENT}-{}-{}-{number}", self.owner, self.session);
        // Owns the directories from the beginning, so that a failure removes those made so far.
        let mut group = Cgroup::new();
        for slot in &self.slots {
            let needed: Vec<Controller> = slot
                .controllers
                .iter()
                .copied()
                .filter(|controller| controller.is_needed(limits))
                .collect();
            if needed.is_empty() {
                continue;
            }
            let path = match &slot.site {
                Site::V1 { own, .. } => make_group(&name, || {
                    let parent = own.join(PARENT);
                    files::make_dir(&parent)?;
                    Ok(parent)
                })?,
                Site::V2(place) => make_group(&name, || v2::prepare_parent(place))?,
                Site::Scope { bus, names } => {
                    let scope = self.scope(bus, names)?;
                    let path = make_group(&name, || Ok(scope.dir().to_path_buf()))?;
                    if !scope.may_be_entered() {
                        group.enter_by(Entrance::Systemd {
                            scope,
                            name: name.clone(),
                        });
                    }
                    path
                }
            };
            let (version, cpuacct) = match slot.site {
                Site::V1 { cpuacct, .. } => (Version::V1, cpuacct),
                _ => (Version::V2, false),
            };
            group.add(GroupDir {
                path: path.clone(),
                version,
                cpuacct,
            });
            for controller in needed {
                apply(&path, version, controller, limits)?;
            }
        }
        Ok(group)
    }

    fn check(&self, limits: &CgroupLimits) -> Result<(), SysError> {
        let wanted = [
            (Controller::Cpu, &self.support.cpus),
            (Controller::Memory, &self.support.memory),
            (Controller::Pids, &self.support.pids),
        ];
        for (controller, support) in wanted {
            if let (true, Err(reason)) = (controller.is_needed(limits), support) {
                return Err(SysError::new(
                    format!("limiting {}", controller.name()),
                    io::Error::new(io::ErrorKind::Unsupported, reason.clone()),
                ));
            }
        }
        Ok(())
    }

    /// The scope, asked for at the first use. Asked for again if it ended meanwhile.
    fn scope(&self, bus: &str, controllers: &[String]) -> Result<Arc<Scope>, SysError> {
        let mut scope = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = scope.as_ref().filter(|scope| scope.dir().is_dir()) {
            return Ok(Arc::clone(scope));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unit = format!("{PARENT}-{}-{}-{number}.scope", self.owner, self.session);
        let Some(v2) = self.machine.v2() else {
            return Err(SysError::new(
                "finding the cgroup v2 hierarchy",
                io::Error::from_raw_os_error(libc::ENOENT),
            ));
        };
        let new = Arc::new(Scope::start(bus, &unit, v2, controllers)?);
        *scope = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl Drop for CgroupManager {
    fn drop(&mut self) {
        // Empty parents go; those in use by other stores or sessions refuse.
        for slot in &self.slots {
            match &slot.site {
                Site::V1 { own, .. } => drop(fs::remove_dir(own.join(PARENT))),
                Site::V2(place) => drop(fs::remove_dir(place.dir.join(PARENT))),
                Site::Scope { .. } => {}
            }
        }
    }
}

impl Slot {
    fn describe(&self) -> String {
        let names: Vec<&str> = self.controllers.iter().map(|c| c.name()).collect();
        let names = names.join(", ");
        match &self.site {
            Site::V1 { own, .. } => format!("{names}: cgroup v1 below {}", own.display()),
            Site::V2(place) => format!("{names}: cgroup v2 below {}", place.dir.display()),
            Site::Scope { .. } => format!("{names}: cgroup v2 in a scope of the user's systemd"),
        }
    }
}

/// Sets the limits of one controller.
pub(super) fn apply(
    dir: &Path,
    version: Version,
    controller: Controller,
    limits: &CgroupLimits,
) -> Result<(), SysError> {
    for setting in settings(version, controller, limits) {
        let path = dir.join(setting.file);
        if !setting.optional || path.exists() {
            files::write(&path, &setting.value)?;
        }
    }
    Ok(())
}

/// Makes `parent()/name`. The parent may be removed by another process that found it empty: then
/// it is made anew.
fn make_group(
    name: &str,
    parent: impl Fn() -> Result<PathBuf, SysError>,
) -> Result<PathBuf, SysError> {
    let mut attempts = 0;
    loop {
        let path = parent()?.join(name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound && attempts < 100 => attempts += 1,
            Err(e) => {
                let doing = format!("making the control group {}", path.display());
                return Err(SysError::new(doing, e));
            }
        }
    }
}

/// For each controller, v1 where it is mounted, else v2, else a scope.
fn choose_slots(machine: &Machine) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut others = Vec::new();
    for controller in Controller::ALL {
        let Some(hierarchy) = machine.v1(controller.name()) else {
            others.push(controller);
            continue;
        };
        if !files::writable(&hierarchy.own) {
            continue;
        }
        let same = slots
            .iter_mut()
            .find(|slot| matches!(&slot.site, Site::V1 { own, .. } if *own == hierarchy.own));
        if let Some(slot) = same {
            slot.controllers.push(controller);
        } else {
            slots.push(Slot {
                controllers: vec![controller],
                site: Site::V1 {
                    own: hierarchy.own.clone(),
                    cpuacct: hierarchy.controllers.iter().any(|name| name == "cpuacct"),
                },
            });
        }
    }
    slots.extend(v2_slot(machine, &others));
    slots
}

fn v2_slot(machine: &Machine, wanted: &[Controller]) -> Option<Slot> {
    let hierarchy = machine.v2()?;
    let names: Vec<&str> = wanted.iter().map(|c| c.name()).collect();
    let direct = v2::find_place(hierarchy, &names);
    let delegated = systemd::delegated(machine, &names);
    // The scope costs a process and some milliseconds: only where it gives more.
    let by_scope = delegated.len() > direct.as_ref().map_or(0, |place| place.controllers.len());
    let has = |controller: &Controller| {
        if by_scope {
            delegated.iter().any(|name| name == controller.name())
        } else {
            direct.as_ref().is_some_and(|place| place.has(*controller))
        }
    };
    let controllers: Vec<Controller> = wanted.iter().copied().filter(has).collect();
    let site = if by_scope {
        Site::Scope {
            bus: machine.user_bus.clone()?,
            names: delegated,
        }
    } else {
        Site::V2(direct?)
    };
    Some(Slot { controllers, site })
}

/// Why the controller cannot be used, and what to do.
fn explain(machine: &Machine, controller: Controller) -> (String, String) {
    let name = controller.name();
    if let Some(hierarchy) = machine.v1(name) {
        return (
            format!(
                "the {name} controller is in cgroup v1, where {} is not writable",
                hierarchy.own.display()
            ),
            "run as root, or boot with systemd.unified_cgroup_hierarchy=1".into(),
        );
    }
    if machine.v2().is_none() {
        return (
            "no control groups are mounted".into(),
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup".into(),
        );
    }
    if machine.uid == 0 {
        return (
            format!("cgroup v2 does not offer the {name} controller to groups below ours"),
            "in a container, start it with a writable cgroup and an init of its own \
             (docker run --privileged --init --cgroupns=host)"
                .into(),
        );
    }
    if machine.user_bus.is_none() {
        return (
            "no control group is delegated to this user, and there is no systemd user session"
                .into(),
            format!(
                "loginctl enable-linger {}, then log in anew; or run as root",
                machine.uid
            ),
        );
    }
    (
        format!("systemd does not delegate the {name} controller to users"),
        "sudo mkdir -p /etc/systemd/system/user@.service.d && printf \
         '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee \
         /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload, \
         then log in anew"
            .into(),
    )
}

/// Keeps what can be part of a group's name, so that names can be taken apart again.
pub(super) fn tidy(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
