//! Images that the daemon has by a name, and those that it is told to pull.
//!
//! | Module | What |
//! |---|---|
//! | `names` | what a name stands for in a daemon |
//! | `ensure` | an image by its name, pulled where it is missing |
//! | `request` | one pull |
//! | `login` | names and passwords for registries |
//! | `failure` | what a daemon says when it cannot pull |
//! | `progress` | [`PullProgress`] and its fellows |

mod ensure;
mod failure;
mod login;
mod names;
mod progress;
mod request;

pub(crate) use ensure::ensure;
pub use progress::{PullOptions, PullProgress, PulledImage};
