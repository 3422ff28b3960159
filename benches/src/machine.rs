//! What the figures were measured on.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::peers;

/// Pairs of a name and a value, for the head of the report.
pub(crate) fn describe(folder: &Path, repository: &Path) -> Vec<(&'static str, String)> {
    vec![
        (
            "date",
            first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
        ),
        (
            "commit",
            first_line(
                Command::new("git")
                    .args(["rev-parse", "--short", "HEAD"])
                    .current_dir(repository),
            ),
        ),
        ("processor", processor()),
        ("memory", memory()),
        ("kernel", first_line(Command::new("uname").arg("-sr"))),
        (
            "file system",
            first_line(
                Command::new("stat")
                    .args(["--file-system", "--format", "%T"])
                    .arg(folder),
            ),
        ),
        (
            "user",
            if is_root() {
                "root".into()
            } else {
                "an ordinary user".into()
            },
        ),
        ("versions", versions()),
    ]
}

/// The load of the last minute: above the number of processors, something else was running.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines()
        .next()
        .filter(|line| !line.is_empty())
        .unwrap_or("unknown")
        .to_owned()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{model}, {count} logical")
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: Option<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok());
    kib.map_or("unknown".into(), |kib| {
        format!("{} GiB", kib / (1024 * 1024))
    })
}

fn is_root() -> bool {
    first_line(Command::new("id").arg("-u")) == "0"
}

fn versions() -> String {
    let mut versions: Vec<String> = ["bwrap", "runc", "docker", "dockerd", "buildah"]
        .map(peers::version)
        .into_iter()
        .collect();
    versions.push("Docker-only crate: hm-vm 0.0.9".into());
    versions.join("; ")
}
