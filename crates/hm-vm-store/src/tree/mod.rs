//! Trees of files, as layers hold them.
//!
//! What is in a layer was written by a guest. Every step here is taken relative to an open
//! directory, and no symbolic link is ever followed.

pub(crate) mod attributes;
pub(crate) mod compare;
pub(crate) mod copy;
pub(crate) mod directory;
pub(crate) mod measure;
pub(crate) mod merge;
#[cfg(test)]
mod merge_tests;
pub(crate) mod remove;
