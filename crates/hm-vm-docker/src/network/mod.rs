//! What containers reach.
//!
//! | policy | Docker | Podman |
//! |---|---|---|
//! | none | `none` | `none` |
//! | outbound | the bridge `hm-vm-outbound` | slirp4netns or pasta, one for each container |
//! | host | `host` | `host` |
//!
//! # What `outbound` allows
//!
//! Containers on Docker's bridge do not reach each other (`enable_icc=false`: the daemon's packet filter drops what goes from one
//! to another), nor do containers of other networks reach them; no port of theirs is published. They do reach services of the
//! daemon's machine that listen on one of its addresses other than loopback, the bridge's own among them, and processes
//! of that machine can reach them. A daemon that runs with `--iptables=false` filters nothing, and does not tell: there its
//! administrator must. Without the default bridge (`--bridge none`) the policy is not offered.
//!
//! On Podman each container has its own translation in user mode; the machine's loopback is out of reach, and nobody
//! reaches the container.

mod bridge;
mod policy;
mod programs;

pub(crate) use policy::{find_outbound, mode, offered};
