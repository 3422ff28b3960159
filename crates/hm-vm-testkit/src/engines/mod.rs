//! Docker and Podman for tests.
//!
//! | Module | What |
//! |---|---|
//! | `docker` | [`DockerDaemon`]: a `dockerd` of the test's own |
//! | `podman` | [`PodmanService`]: a `podman system service` of the test's own |
//! | `orphans` | what an engine leaves when it is killed |
//! | `shared` | [`TestEngine`]: the one that all tests of a run share, with an image in it |

mod docker;
mod orphans;
mod podman;
mod shared;

pub use docker::DockerDaemon;
pub use podman::PodmanService;
pub use shared::{IMAGE, TestEngine};
