//! From the process's start to its exit code.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Parser as _;
use hm_pipeline::Configuration;
use hm_vm::ImageRegistry;
use hm_vm::store::Store;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::backend::forget_that_it_works;
use crate::cli::{Cli, Command};
use crate::exit_codes;
use crate::failure::{Problem, Report, contract};
use crate::input::config;
use crate::input::environment::Environment;
use crate::output::Ui;
use crate::output::ui::{Talk, write_out};
use crate::usage::Usage;

/// Number of keys that the cache remembers before it forgets the least recently used one.
const CACHE_CAPACITY: NonZeroU64 = NonZeroU64::new(1_000_000).expect("not zero");

/// What every command works with. Nothing is opened before a command asks for it.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) ui: Ui,
    pub(crate) environment: Environment,
    store: Option<PathBuf>,
    configuration: OnceLock<Configuration>,
}

impl App {
    /// What the user has configured; read when it is first asked for.
    pub(crate) fn configuration(&self) -> anyhow::Result<&Configuration> {
        if let Some(known) = self.configuration.get() {
            return Ok(known);
        }
        let read = config::load(&self.environment, &self.ui)?;
        Ok(self.configuration.get_or_init(|| read))
    }

    /// Directory of the store.
    pub(crate) fn store_root(&self) -> anyhow::Result<PathBuf> {
        Ok(self.environment.store_root(self.store.as_deref())?)
    }

    /// Opens the store; creates it when it is not there.
    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        let root = self.store_root()?;
        Store::open(&root).map_err(|error| cannot_open("store", &root, error.into()))
    }

    /// Opens the cache whose files are in a directory.
    pub(crate) fn registry(&self, directory: &Path) -> anyhow::Result<ImageRegistry> {
        let path = directory.join("registry.db");
        ImageRegistry::open(&path, CACHE_CAPACITY)
            .map_err(|error| cannot_open("cache", &path, error))
    }
}

fn cannot_open(what: &str, path: &Path, error: anyhow::Error) -> anyhow::Error {
    let hint = if matches!(contract(&error), Some(hm_vm::Error::NoSpace { .. })) {
        // Removing anything needs a little room for the database first.
        "free some space on its disk; then hmvm cache gc frees what is not in use"
    } else {
        "another place for the store is given by --store DIR"
    };
    let message = format!("cannot open the {what} {}", path.display());
    error.context(Problem::new(message).hint(hint))
}

/// Runs the program on the arguments of the process.
pub fn main() -> ExitCode {
    ExitCode::from(run(&std::env::args_os().collect::<Vec<_>>()))
}

fn run(arguments: &[OsString]) -> u8 {
    let environment = Environment::read();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return explain_usage(&error, arguments, &environment),
    };
    let talk = if cli.global.quiet {
        Talk::Quiet
    } else {
        Talk::Normal
    };
    let app = App {
        ui: Ui::new(talk, &environment),
        environment,
        store: cli.global.store,
        configuration: OnceLock::new(),
    };
    let outcome = start_log(cli.global.verbose, &app)
        .map_err(anyhow::Error::from)
        .and_then(|()| dispatch(&app, cli.command));
    outcome.unwrap_or_else(|error| {
        if let Some(hm_vm::Error::BackendUnavailable { backend, .. }) = contract(&error)
            && backend == "sandbox"
            && let Ok(root) = app.store_root()
        {
            forget_that_it_works(&root);
        }
        fail(&app.ui, &error)
    })
}

fn dispatch(app: &App, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(run) => return run.run(app),
        Command::Plan(plan) => plan.run(app)?,
        Command::Runs(runs) => runs.run(app)?,
        Command::Logs(logs) => logs.run(app)?,
        Command::Verify(verify) => return verify.run(app),
        Command::Graph(graph) => graph.run(app)?,
        Command::Init(init) => init.run(app)?,
        Command::Schema(schema) => schema.run()?,
        Command::Exec(exec) => return exec.run(app),
        Command::Shell(shell) => return shell.run(app),
        Command::Doctor(doctor) => return doctor.run(app),
        Command::Explain(explain) => return explain.run(app),
        Command::Snapshot(snapshot) => return snapshot.run(app),
        Command::Image(image) => image.run(app)?,
        Command::Push(push) => push.run(app)?,
        Command::Cache(cache) => cache.run(app)?,
        Command::Completions(completions) => completions.run(app)?,
    }
    Ok(exit_codes::SUCCESS)
}

/// Tells of a failure, and gives its exit code.
pub(crate) fn fail(ui: &Ui, error: &anyhow::Error) -> u8 {
    let report = Report::of(error);
    if let Some(message) = &report.message {
        ui.error(message, report.hint.as_deref());
    }
    tracing::debug!("{error:?}");
    report.code
}

fn explain_usage(error: &clap::Error, arguments: &[OsString], environment: &Environment) -> u8 {
    let ui = Ui::new(Talk::Normal, environment);
    let usage = Usage::of(error, arguments, ui.out_style().is_coloured());
    match &usage {
        Usage::Asked(text) => {
            if let Err(error) = write_out(|out| write!(out, "{text}")) {
                return fail(&ui, &error);
            }
        }
        Usage::Nothing(text) => ui.say(text.trim_end()),
        Usage::Wrong { message, hint } => ui.error(message, Some(hint)),
    }
    usage.code()
}

/// Sends what the libraries trace to standard error: warnings, or more when asked.
fn start_log(verbose: u8, app: &App) -> Result<(), Problem> {
    let ui = app.ui.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || ui.log())
        .with_ansi(app.ui.err_style().is_coloured())
        .with_target(false);
    if let Some(filter) = &app.environment.log {
        let filter = EnvFilter::try_new(filter).map_err(|error| {
            Problem::new(format!("HMVM_LOG={filter:?}: {error}"))
                .hint("write a level, or names with levels: hm_vm=debug,hm_vm_store=trace")
        })?;
        log.with_env_filter(filter).init();
        return Ok(());
    }
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    if verbose == 0 {
        log.without_time().with_max_level(level).init();
    } else {
        log.with_max_level(level).init();
    }
    Ok(())
}
