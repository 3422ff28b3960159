//! The program itself.

/// The helper: a static program for Linux on [`PROCESSOR`]. Built by `build.rs` from `helper/main.rs`.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hm-vm-helper"));

/// For which processor [`PROGRAM`] is, as images name it.
pub const PROCESSOR: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};
