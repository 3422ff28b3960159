//! Where daemons listen: how addresses are written, and where to look for them.
//!
//! | Module | What |
//! |---|---|
//! | `address` | [`Endpoint`], and what people write for one |
//! | `contexts` | the contexts of Docker's client |
//! | `search` | [`EndpointSearch`]: all places, in their order |
//! | `find` | which of them is used |

mod address;
mod contexts;
mod find;
mod search;

pub use address::{Endpoint, TlsFiles};
pub(crate) use find::advice;
pub use search::{Candidate, EndpointSearch};
