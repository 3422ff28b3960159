//! What proves who we are.

use std::fmt;

/// Text that must not be seen by anybody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the other side only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What proves to a registry who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that the registry's token server changes into tokens for one purpose.
    Identity(Secret),
    /// A token for the registry itself.
    Bearer(Secret),
}

/// What was found for a repository.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The first credential that fits.
    pub credential: Option<Credential>,
    /// What could not be asked, for messages.
    pub troubles: Vec<String>,
}
