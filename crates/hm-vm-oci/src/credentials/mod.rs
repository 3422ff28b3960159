//! Credentials that users have for registries, as Docker and Podman keep them.
//!
//! Files are read and helpers are run when a registry asks for credentials, not before. What cannot be read is passed
//! over, and told when the registry refuses us in the end: a broken helper must not keep anybody from public images.
//!
//! Own code, because the crate `docker_credential` reads the environment, waits for helpers without limit, puts what
//! they print into its errors and knows no entries of repositories.

mod files;
mod format;
mod helper;
mod secret;

pub use files::CredentialFiles;
pub use secret::{Credential, Found, Secret};
