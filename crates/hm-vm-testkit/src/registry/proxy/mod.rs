//! An HTTP proxy before a server, that misbehaves as it is told.
//!
//! One thread per connection, one connection to the server per request. Bodies pass as they come,
//! so that a fault happens in the middle of a transfer, as it would in a network.

mod faults;
mod http;
mod passed;
mod relay;
mod server;

pub use faults::{Fault, Faults, Rule};
pub use passed::Passed;
pub use server::FaultProxy;
