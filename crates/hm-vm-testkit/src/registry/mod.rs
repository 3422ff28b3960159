//! A real registry for tests, a proxy before it that misbehaves as told, and images to put into it.
//!
//! | Module | What |
//! |---|---|
//! | `setup`, `server` | [`RegistryServer`]: a process of `docker-registry` on a loopback port |
//! | `access` | [`Request`]: what the server was asked |
//! | `proxy` | [`FaultProxy`]: cuts, delays, truncates, corrupts, lies |
//! | `image` | [`TestImage`]: layered images in a layout directory, made by `umoci` |

mod access;
mod image;
mod proxy;
mod server;
mod setup;

pub use crate::engines::DockerDaemon;
pub use access::Request;
pub use image::TestImage;
pub use proxy::{Fault, FaultProxy, Faults, Passed, Rule};
pub use server::RegistryServer;
pub use setup::{PASSWORD, RegistrySetup, USER, need_registry};
