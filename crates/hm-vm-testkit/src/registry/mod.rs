//! A real registry for tests, a proxy before it that misbehaves as told, images to put into it, and
//! a Docker daemon to compare with.
//!
//! | Module | What |
//! |---|---|
//! | `setup`, `server` | [`RegistryServer`]: a process of `docker-registry` on a loopback port |
//! | `access` | [`Request`]: what the server was asked |
//! | `proxy` | [`FaultProxy`]: cuts, delays, truncates, corrupts, lies |
//! | `image` | [`TestImage`]: layered images in a layout directory, made by `umoci` |
//! | `docker` | [`DockerDaemon`]: a `dockerd` of the test's own |
//! | `process` | programs that die with the test that started them |

mod access;
mod docker;
mod image;
mod process;
mod proxy;
mod server;
mod setup;

pub use access::Request;
pub use docker::DockerDaemon;
pub use image::TestImage;
pub use proxy::{Fault, FaultProxy, Faults, Passed, Rule};
pub use server::RegistryServer;
pub use setup::{PASSWORD, RegistrySetup, USER, need_registry};
