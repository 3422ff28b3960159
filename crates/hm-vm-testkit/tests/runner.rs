//! Tests of the testkit itself.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "runner/broken.rs"]
mod broken;
#[path = "runner/broken_backend.rs"]
mod broken_backend;
#[path = "runner/engines.rs"]
mod engines;
#[path = "runner/fake.rs"]
mod fake;
#[path = "runner/fake_conformance.rs"]
mod fake_conformance;
#[path = "runner/registry.rs"]
mod registry;
#[path = "runner/registry_faults.rs"]
mod registry_faults;
