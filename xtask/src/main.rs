//! House rules that neither rustc nor clippy can check: arrows between crates, file length, places
//! of unsafe code, links of the documents.
//!
//! `cargo xtask check` prints one line per finding and fails if one of them is an error.
#![forbid(unsafe_code)]

mod arrows;
mod changelog;
mod finding;
mod links;
mod sources;
mod workspace;

use std::process::ExitCode;

use finding::{Finding, Severity};
use workspace::Workspace;

const USAGE: &str = "usage: cargo xtask check";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [command] if command == "check" => check(),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match result {
        Ok(findings) => report(&findings),
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs every check and collects what they found.
fn check() -> anyhow::Result<Vec<Finding>> {
    let workspace = Workspace::load()?;
    let mut findings = arrows::check(&workspace.packages);
    findings.extend(sources::check(&workspace)?);
    findings.extend(links::check(&workspace.root)?);
    findings.extend(changelog::check(&workspace.root)?);
    Ok(findings)
}

fn report(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        say(&finding.to_string());
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    let warnings = findings.len() - errors;
    say(&format!(
        "xtask check: {errors} errors, {warnings} warnings"
    ));
    if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the one place where this program talks"
)]
fn say(line: &str) {
    println!("{line}");
}
