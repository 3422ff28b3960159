//! All tests of images as others see them, in one program.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod corpus;
mod daemon;
mod local;
mod registry;
