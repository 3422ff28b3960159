//! Other people's programs, for a bounded time.

use std::path::Path;
use std::process::{Command, Stdio};

use hm_vm_testkit::privilege::need_program;
use hm_vm_testkit::skip::Skip;

/// How many seconds a program may take.
const LIMIT: &str = "120";

/// A program that is killed after a while.
pub(super) fn limited(program: &str) -> Result<Command, Skip> {
    let path = need_program(program)?;
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", LIMIT])
        .arg(path)
        .stdin(Stdio::null());
    Ok(command)
}

/// Runs it, and gives what it says on its output.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `skopeo`, which trusts everybody here.
pub(super) fn skopeo() -> Result<Command, Skip> {
    let mut command = limited("skopeo")?;
    command.arg("--insecure-policy");
    Ok(command)
}

/// What a build takes in.
pub(super) fn write_context(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let tool = vec![b'x'; 300_000];
    for (name, content) in [
        ("tool", &tool[..]),
        ("one", b"one"),
        ("two", b"two"),
        ("Dockerfile", super::DOCKERFILE.as_bytes()),
    ] {
        std::fs::write(directory.join(name), content).unwrap();
    }
}
