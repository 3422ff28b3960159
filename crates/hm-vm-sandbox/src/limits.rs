//! Limits of a VM: which can be enforced here, and their groups while a command runs.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use hm_vm_core::{Error, Limit, ResourceUsage, VmConfig};
use hm_vm_store::Store;
use hm_vm_sys::cgroup::{Cgroup, CgroupLimits, CgroupManager, CgroupUnavailable};

const MIB: u64 = 1 << 20;

/// What this machine can enforce. Looked up when first asked for.
#[derive(Debug)]
pub(crate) struct LimitSupport {
    store: Store,
    manager: OnceLock<Result<CgroupManager, CgroupUnavailable>>,
}

impl LimitSupport {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            manager: OnceLock::new(),
        }
    }

    fn manager(&self) -> Result<&CgroupManager, &CgroupUnavailable> {
        self.manager
            .get_or_init(|| {
                // The root is the same for every process that has this store open.
                let root = self.store.root().as_os_str().as_encoded_bytes();
                let owner = format!("{:016x}", fnv(root));
                let manager = CgroupManager::detect(&owner, &self.store.session().to_string())?;
                self.remove_leftovers(&manager);
                Ok(manager)
            })
            .as_ref()
    }

    fn is_alive(&self, session: &str) -> bool {
        session
            .parse()
            .is_ok_and(|session| self.store.session_is_alive(session))
    }

    /// Removes the groups that killed processes left.
    fn remove_leftovers(&self, manager: &CgroupManager) {
        if let Err(error) = manager.remove_leftovers(|session| self.is_alive(session)) {
            tracing::warn!(%error, "control groups of an ended process are still there");
        }
    }

    /// Groups that killed processes left, after an attempt to remove them.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let Ok(manager) = self.manager() else {
            return Vec::new();
        };
        self.remove_leftovers(manager);
        manager
            .leftovers(|session| self.is_alive(session))
            .into_iter()
            .map(|leftover| format!("control group {}", leftover.path.display()))
            .collect()
    }

    pub(crate) fn supports(&self, limit: Limit) -> bool {
        self.refusal(limit).is_none()
    }

    pub(crate) fn why_not(&self, limit: Limit) -> String {
        self.refusal(limit).unwrap_or_default()
    }

    fn refusal(&self, limit: Limit) -> Option<String> {
        if limit == Limit::Disk {
            return crate::disk::refusal();
        }
        let manager = match self.manager() {
            Ok(manager) => manager,
            Err(unavailable) => return Some(unavailable.to_string()),
        };
        let support = manager.support();
        let support = match limit {
            Limit::Cpus => &support.cpus,
            Limit::Memory => &support.memory,
            Limit::Pids => &support.pids,
            _ => return Some("the sandbox does not know this limit".into()),
        };
        support.as_ref().err().cloned()
    }

    /// The group for one command. Without limits there is none.
    pub(crate) fn confine(&self, config: &VmConfig) -> Result<Confinement> {
        let limits = CgroupLimits {
            cpus: config.cpus,
            memory_bytes: config.memory_mib.map(|mib| mib.saturating_mul(MIB)),
            // Init counts as well: the user's number is about the command.
            pids: config.pids.map(|pids| pids.saturating_add(1)),
        };
        if limits.is_empty() {
            return Ok(Confinement {
                group: None,
                memory_mib: None,
            });
        }
        let manager = self
            .manager()
            .map_err(|unavailable| anyhow::anyhow!("limiting the VM: {unavailable}"))?;
        let group = manager.create(&limits).context("limiting the VM")?;
        Ok(Confinement {
            group: Some(group),
            memory_mib: config.memory_mib,
        })
    }
}

/// FNV-1a: the same on every machine and in every version, which std's hasher does not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The limits of one command. Dropping it removes the group; the processes must have ended.
#[derive(Debug)]
pub(crate) struct Confinement {
    group: Option<Cgroup>,
    memory_mib: Option<u64>,
}

impl Confinement {
    /// What the first process writes to, to enter.
    pub(crate) fn entrances(&self) -> Result<Vec<Arc<OwnedFd>>> {
        match &self.group {
            Some(group) if group.can_be_entered() => {
                Ok(group.procs_files()?.into_iter().map(Arc::new).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Whether the command must wait for [`attach`](Self::attach).
    pub(crate) fn needs_attachment(&self) -> bool {
        self.group
            .as_ref()
            .is_some_and(|group| !group.can_be_entered())
    }

    pub(crate) fn attach(&self, pid: u32) -> Result<()> {
        match &self.group {
            Some(group) if !group.can_be_entered() => group.attach(pid).context("limiting the VM"),
            _ => Ok(()),
        }
    }

    /// Adds what the group counted, and says whether a limit ended a process.
    pub(crate) fn look(&self, usage: &mut ResourceUsage) -> Option<Error> {
        let stats = self.group.as_ref()?.stats();
        usage.cpu = stats.cpu.or(usage.cpu);
        usage.peak_memory_bytes = stats.memory_peak.or(usage.peak_memory_bytes);
        (stats.oom_kills > 0).then(|| Error::LimitExceeded {
            limit: Limit::Memory,
            detail: format!(
                "the kernel killed a process of it at {} MiB",
                self.memory_mib.unwrap_or_default()
            ),
        })
    }
}
