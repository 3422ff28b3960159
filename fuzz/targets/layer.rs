//! Archives of layers and of root file systems.
#![no_main]

#[path = "../checks/layers.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::layer(bytes));
