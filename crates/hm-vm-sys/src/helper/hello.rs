//! The helper's first words.

use super::program::PROCESSOR;

/// What the helper says before it reads anything. A container that does not say it has another first process, or a broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The processor that it was built for, as images name it.
    pub processor: &'static str,
}

/// What should be a hello, and is none of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Not the helper's.
    #[error("the first process of the container is not the helper: it began with {0:?}")]
    Foreign([u8; Hello::SIZE]),
    /// Of a helper of another version.
    #[error(
        "the helper in the container speaks version {found} of its protocol, and not {}",
        Hello::VERSION
    )]
    Version {
        /// Its version.
        found: u8,
    },
}

impl Hello {
    /// In bytes.
    pub const SIZE: usize = 8;
    /// Version of the protocol.
    pub const VERSION: u8 = 1;

    /// Reads it.
    ///
    /// # Errors
    ///
    /// These are not the helper's words, or those of another version.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Result<Self, HelloError> {
        let [b'h', b'm', b'-', b'v', b'm', version, processor, 0] = *bytes else {
            return Err(HelloError::Foreign(*bytes));
        };
        if version != Self::VERSION {
            return Err(HelloError::Version { found: version });
        }
        let processor = match processor {
            1 => "amd64",
            2 => "arm64",
            _ => return Err(HelloError::Foreign(*bytes)),
        };
        Ok(Self { processor })
    }

    /// Whether that is [`PROCESSOR`].
    pub fn is_ours(&self) -> bool {
        self.processor == PROCESSOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_hello_is_one() {
        let hello = Hello::parse(b"hm-vm\x01\x01\0").expect("ours");
        assert_eq!(hello.processor, "amd64");
        assert_eq!(
            Hello::parse(b"hm-vm\x02\x01\0"),
            Err(HelloError::Version { found: 2 })
        );
        for foreign in [b"hm-vm\x01\x09\0", b"hm-vm\x01\x01\x01", b"/ # \x1b[6n"] {
            assert!(matches!(Hello::parse(foreign), Err(HelloError::Foreign(_))));
        }
    }
}
