//! Tests of the testkit itself.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "runner/fake.rs"]
mod fake;
