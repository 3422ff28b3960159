//! The command line.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// Measures hm-vm beside bwrap, runc, docker and the Docker-only crate of the same API.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Fewer rounds and a smaller registry: a look, not a measurement
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only these parts; nothing is written unless --output says where to
    #[arg(long, value_name = "PART", num_args = 1..)]
    only: Vec<Part>,
    /// Write the report here [default: docs/benchmarks.md]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Empty,
    Step,
    Hit,
    Snapshot,
    Fork,
    Inject,
    Many,
    Program,
    Chain,
    Parallel,
    Workspace,
    Images,
    Containers,
    Lines,
    Registry,
    Memory,
}

impl Part {
    /// Whether it measures the Docker-only crate, which takes minutes to compile.
    pub(crate) fn has_docker_only(self) -> bool {
        !matches!(
            self,
            Self::Program
                | Self::Chain
                | Self::Parallel
                | Self::Workspace
                | Self::Images
                | Self::Lines
                | Self::Memory
        )
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Arguments {
    /// What to measure, in order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        if self.only.is_empty() {
            Part::value_variants().to_vec()
        } else {
            self.only.clone()
        }
    }

    /// Where to write the report; a part of it never replaces the whole by itself.
    pub(crate) fn output(&self, repository: &Path) -> Option<PathBuf> {
        let whole = self.only.is_empty() && !self.quick;
        self.output
            .clone()
            .or_else(|| whole.then(|| repository.join("docs/benchmarks.md")))
    }
}
