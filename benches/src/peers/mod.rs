//! The peers, each driven the way its users drive it.

mod build_file;
mod buildah;
mod buildkit;
mod bwrap;
mod command;
mod docker;
mod docker_only;
mod dockerd;
mod driver;
mod runc;

pub(crate) use build_file::STEPS as CHAIN_STEPS;
pub(crate) use buildah::Buildah;
pub(crate) use buildkit::BuildKit;
pub(crate) use bwrap::Bwrap;
pub(crate) use command::version;
pub(crate) use docker::Docker;
pub(crate) use docker_only::DockerOnly;
pub(crate) use dockerd::{Dockerd, IMAGE as DOCKER_IMAGE};
pub(crate) use driver::Driver;
pub(crate) use runc::Runc;
