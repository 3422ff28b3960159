//! Measures hm-vm beside its peers, in one run and by turns, and writes `docs/benchmarks.md`.
//!
//! ```text
//! cargo run --release -p hm-vm-bench
//! ```
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod containers;
mod images;
mod machine;
mod measure;
mod ours;
mod peers;
mod pipelines;
mod report;
mod row;
mod rows;
mod talk;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use arguments::Arguments;
use bench::Bench;
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let outcome = match &arguments[..] {
        [_, order, socket, folder] if order == containers::DRIVE => {
            containers::drive(socket.as_ref(), folder.as_ref())
        }
        _ => run(&Arguments::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            talk::progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let start = Instant::now();
    let bench = Bench::open(arguments)?;
    let mut report = Report::new(&bench);
    for part in arguments.parts() {
        talk::progress(&format!("measuring: {part}"));
        rows::run(part, &bench, &mut report)?;
    }
    report.finish(&bench, start.elapsed());
    talk::print(&report.table());
    if let Some(path) = arguments.output(&bench.repository) {
        report.write(&path)?;
        talk::progress(&format!("wrote {}", path.display()));
    }
    Ok(())
}
