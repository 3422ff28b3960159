//! Tests that cannot run here: a visible skip on a developer's machine, a failure where all must
//! run.

use std::fmt;

/// Name of the environment variable that turns skips into failures when it is `1`.
pub const REQUIRE_ALL: &str = "HMVM_TEST_REQUIRE_ALL";

/// Why a test cannot run here, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    reason: String,
}

impl Skip {
    /// A skip for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }

    /// Says on standard error that the test is skipped.
    ///
    /// # Panics
    ///
    /// When [`REQUIRE_ALL`] is set: the test promised to run.
    #[expect(clippy::print_stderr, reason = "a skip must be visible")]
    pub fn report(&self) {
        assert!(
            !require_all(),
            "cannot run, though {REQUIRE_ALL}=1: {}",
            self.reason
        );
        eprintln!("SKIPPED: {}", self.reason);
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Skip {}

/// Whether a test that cannot run is a failure.
pub fn require_all() -> bool {
    std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1")
}

/// Takes the value out of a `Result<T, Skip>`, or reports the skip and returns from the test.
#[macro_export]
macro_rules! require {
    ($need:expr) => {
        match $need {
            Ok(value) => value,
            Err(skip) => {
                $crate::skip::Skip::report(&skip);
                return;
            }
        }
    };
}
