//! Bringing files of the host into a container.
//!
//! The host's directory is scanned as for the sandbox, so that digests are the same, and sent to the daemon as one
//! archive that is made while it is sent: neither a file nor the archive is ever in memory as a whole.
//!
//! # What was brought before
//!
//! A VM's [`Injects`] name the trees that were brought to each place; they are kept in labels of its snapshots. What such
//! a tree has and the new one has not is removed first. The trees themselves are files in the owner's state directory
//! ([`manifests`]).
//!
//! An inject resets what commands have changed of its files, as in the sandbox. So only where nothing ran since
//! the same tree was brought to the same place, nothing is sent.

mod archive;
mod bring;
mod forgotten;
mod manifests;
mod place;
mod record;
mod scan;
mod upload;

pub(crate) use bring::{Inject, RemovePaths};
pub(crate) use place::{Found, Place, look};
pub(crate) use record::Injects;
pub(crate) use scan::{digest_of, entries};
