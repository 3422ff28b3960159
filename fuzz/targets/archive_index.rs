//! Where parts lie in archives.
#![no_main]

#[path = "../checks/images.rs"]
#[expect(dead_code, reason = "each target uses one of them")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::archive_index(bytes));
