//! The peers, each driven the way its users drive it.

mod bwrap;
mod command;
mod docker;
mod docker_only;
mod dockerd;
mod runc;

pub(crate) use bwrap::Bwrap;
pub(crate) use command::version;
pub(crate) use docker::Docker;
pub(crate) use docker_only::DockerOnly;
pub(crate) use dockerd::Dockerd;
pub(crate) use runc::Runc;
