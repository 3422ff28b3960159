//! The options of the program.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::commands;

/// Run a command in an isolated machine, keep the machine's state as a snapshot, and never do the
/// same work twice.
#[derive(Debug, Parser)]
#[command(
    name = "hmvm",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  hmvm exec --inject . -- make test    # runs\n  hmvm exec --inject . -- make test    # the same again: skipped, its output is shown"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory of images, snapshots and the cache [default: $HMVM_STORE, else
    /// $XDG_DATA_HOME/hm-vm, else ~/.local/share/hm-vm]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) store: Option<PathBuf>,
    /// Tell what happens inside, on standard error; twice for more ($HMVM_LOG chooses by name)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Tell nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// One variant a command; each is a file under `commands`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(commands::run::Run),
    Plan(commands::plan::PlanCommand),
    Runs(commands::runs::Runs),
    Logs(commands::logs::Logs),
    Verify(commands::verify::Verify),
    Graph(commands::graph::Graph),
    Init(commands::init::Init),
    Schema(commands::schema::Schema),
    Exec(commands::exec::Exec),
    Shell(commands::shell::Shell),
    Snapshot(commands::snapshot::Snapshot),
    Image(commands::image::Image),
    Push(commands::snapshot::export::Push),
    Cache(commands::cache::Cache),
    Explain(commands::explain::Explain),
    Doctor(commands::doctor::Doctor),
    Completions(commands::completions::Completions),
}

/// The options as clap sees them: for completions and the reference.
pub fn command() -> clap::Command {
    Cli::command()
}
