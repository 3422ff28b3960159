//! Images on this machine: manifests, layouts and archives, made by hand and by other people's tools.

mod archives;
mod docker_archives;
mod hostile;
mod image;
mod layouts;
mod manifests;
mod memory;
mod tools;
mod written;
