//! Limits and accounting through control groups.
//!
//! # Where groups are made
//!
//! A VM's group is `hm-vm/hm-vm-OWNER-SESSION-N`, in every hierarchy that has a controller for one
//! of its limits. The directory `hm-vm` is made
//!
//! * cgroup v2: in the nearest ancestor of our own group (or in that itself) that holds no
//!   processes, that we may write, and in which the controllers are available. Groups with
//!   controllers for their children cannot hold processes, so our own group rarely will do.
//! * cgroup v1: in our own group of each controller's hierarchy, so that limits put on us hold for
//!   our VMs. Machines where some controllers are in v1 and others in v2 have a group in each.
//! * for an ordinary user to whom nothing was delegated: in a transient scope with delegation,
//!   which the user's own systemd makes on request. A placeholder process keeps the scope alive; it
//!   ends when we do, and systemd then removes the scope with all that is in it.
//!
//! We never move our own process: the program that uses this library decides where it lives.
//!
//! # What remains after a kill -9
//!
//! Empty groups, outside of systemd's scopes. Their names say whose they were:
//! [`CgroupManager::leftovers`] finds them, [`CgroupManager::remove_leftovers`] removes them.
//!
//! # Costs
//!
//! [`CgroupManager::detect`] reads a few files and changes nothing. A group is some directories,
//! and one write for each limit. VMs without limits need none of this.

mod files;
mod group;
mod leftovers;
mod limits;
mod machine;
mod manager;
mod systemd;
mod v2;

pub use group::{Cgroup, CgroupStats};
pub use leftovers::LeftoverCgroup;
pub use limits::CgroupLimits;
pub use manager::{CgroupManager, CgroupSupport, CgroupUnavailable};

#[cfg(test)]
mod tests;
