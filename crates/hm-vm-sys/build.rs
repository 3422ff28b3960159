//! Builds the programs that are PID 1 of a VM: static, without the standard library, for the crate's own target.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=helper");
    println!("cargo::rerun-if-changed=build.rs");
    build("init");
    build("helper");
}

/// Builds `NAME/main.rs` as `hm-vm-NAME`.
fn build(name: &str) {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join(format!("hm-vm-{name}"));
    let mut command = Command::new(variable("RUSTC"));
    command
        .args(["--edition=2024", "--crate-type=bin"])
        .arg(format!("--crate-name=hm_vm_{name}"))
        .args(["--target", &variable("TARGET")])
        .args([
            "-Cpanic=abort",
            "-Copt-level=s",
            "-Cdebuginfo=0",
            "-Cstrip=symbols",
        ])
        .args(["-Crelocation-model=static", "-Ctarget-feature=+crt-static"])
        .args([
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
        ])
        .args([
            "-Clink-arg=-Wl,--build-id=none",
            "-Clink-arg=-Wl,-z,norelro",
        ])
        .arg("-o")
        .arg(&output)
        .arg(format!("{name}/main.rs"));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("running rustc: {error}"));
    assert!(
        status.success(),
        "the {name} program does not build: {status}"
    );
}
