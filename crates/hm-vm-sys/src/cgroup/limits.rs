//! What can be limited, and how each generation writes it.

use super::machine::Version;

/// Limits of one VM. `None` leaves a resource unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Processor time per wall time, in whole processors; at least 1.
    pub cpus: Option<u32>,
    /// Memory of all processes together, page cache included, in bytes. Swap does not add to it.
    pub memory_bytes: Option<u64>,
    /// Processes and threads alive at once, the VM's init included.
    pub pids: Option<u32>,
}

impl CgroupLimits {
    /// Whether nothing is limited: no group is needed then.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A controller that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name of it, in both generations.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// Whether the limits need it.
    pub(super) fn is_needed(self, limits: &CgroupLimits) -> bool {
        match self {
            Self::Cpu => limits.cpus.is_some(),
            Self::Memory => limits.memory_bytes.is_some(),
            Self::Pids => limits.pids.is_some(),
        }
    }
}

/// A value for a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// The file is absent on kernels without swap accounting: without the file, nothing to set.
    pub(super) optional: bool,
}

/// Length of the period in which processor time is counted: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The settings for one controller, in the order in which the kernel takes them.
pub(super) fn settings(
    version: Version,
    controller: Controller,
    limits: &CgroupLimits,
) -> Vec<Setting> {
    let set = |file, value: String| Setting {
        file,
        value,
        optional: false,
    };
    let maybe = |file, value: String| Setting {
        file,
        value,
        optional: true,
    };
    match (version, controller) {
        (Version::V2, Controller::Cpu) => limits.cpus.map_or_else(Vec::new, |cpus| {
            let quota = u64::from(cpus) * PERIOD_US;
            vec![set("cpu.max", format!("{quota} {PERIOD_US}"))]
        }),
        (Version::V1, Controller::Cpu) => limits.cpus.map_or_else(Vec::new, |cpus| {
            let quota = u64::from(cpus) * PERIOD_US;
            vec![
                set("cpu.cfs_period_us", PERIOD_US.to_string()),
                set("cpu.cfs_quota_us", quota.to_string()),
            ]
        }),
        // Without a limit of swap, memory over the limit would go there instead.
        (Version::V2, Controller::Memory) => limits.memory_bytes.map_or_else(Vec::new, |bytes| {
            vec![
                set("memory.max", bytes.to_string()),
                maybe("memory.swap.max", "0".into()),
            ]
        }),
        // memsw is memory and swap together, and must not be below the memory limit at any time.
        (Version::V1, Controller::Memory) => limits.memory_bytes.map_or_else(Vec::new, |bytes| {
            vec![
                set("memory.limit_in_bytes", bytes.to_string()),
                maybe("memory.memsw.limit_in_bytes", bytes.to_string()),
                maybe("memory.swappiness", "0".into()),
            ]
        }),
        (_, Controller::Pids) => limits
            .pids
            .map_or_else(Vec::new, |pids| vec![set("pids.max", pids.to_string())]),
    }
}
