use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use hm_pipeline::Configuration;
use hm_vm::docker::{EndpointSearch, Finding, FindingState, examine};
use hm_vm::sandbox::{Check, CheckState, SandboxBackend, SandboxOptions, doctor};
use hm_vm::store::Leftover;
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::daemon;
use crate::exit_codes;
use crate::failure::Report;
use crate::input::environment::ConfigPlace;
use crate::output::sanitize::{sanitize, sanitize_path};
use crate::output::{Style, human, json};

/// Tell what this machine can do, what it lacks and how to get it, and what is left over
///
/// Exits with 0 when VMs can run here by one backend at least, nothing is left over and the configuration is right, with 1
/// otherwise.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hmvm doctor")]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let checks = doctor(&existing(app.store_root()?));
        // A store that cannot be opened is a finding, not an end of the examination.
        let leftovers = leftovers(app);
        let daemons = Daemons::look(app)?;
        let healthy = leftovers.as_ref().is_ok_and(Vec::is_empty) && daemons.leftovers.is_empty();
        let usable = checks
            .iter()
            .all(|check| check.state != CheckState::Missing);
        let place = app.environment.config_place()?;
        // As for the store: what is wrong with it is a finding. All its problems are told above the report.
        let configuration = app.configuration();
        let is_readable = configuration.is_ok();
        if self.json {
            let document = json!({
                "usable": usable,
                "config": place.as_ref().map(|place| json!({
                    "path": place.path,
                    "exists": place.path.exists(),
                    "error": configuration.as_ref().err().map(|error| Report::of(error).message),
                })),
                "daemons": daemons.findings.iter().map(finding_json).collect::<Vec<Value>>(),
                "daemon_leftovers": daemons.leftovers,
                "checks": checks.iter().map(check_json).collect::<Vec<Value>>(),
                "leftovers": leftovers.as_ref().map_or_else(|_| Value::Null, |list| json!(list)),
                "store_error": leftovers.as_ref().err().map(|error| Report::of(error).message),
            });
            json::document(&document)?;
        } else {
            let style = app.ui.out_style();
            for check in &checks {
                print_check(app, check, style)?;
            }
            for finding in &daemons.findings {
                print_finding(app, finding, style)?;
            }
            print_leftovers(app, &leftovers, style)?;
            print_daemon_leftovers(app, &daemons.leftovers, style)?;
            print_configuration(app, place.as_ref(), &configuration, style)?;
        }
        // One backend is enough.
        Ok(
            if (usable || daemons.is_one_usable()) && healthy && is_readable {
                exit_codes::SUCCESS
            } else {
                exit_codes::NEGATIVE
            },
        )
    }
}

/// What there is of Docker and Podman.
struct Daemons {
    findings: Vec<Finding>,
    /// In all that this store has used, and that answer.
    leftovers: Vec<String>,
}

impl Daemons {
    fn look(app: &App) -> anyhow::Result<Self> {
        let findings = examine(&EndpointSearch::from_environment());
        Ok(Self {
            findings,
            leftovers: daemon::leftovers(app)?,
        })
    }

    fn is_one_usable(&self) -> bool {
        let usable = |finding: &Finding| finding.state != FindingState::Missing;
        self.findings.iter().any(usable)
    }
}

fn finding_word(state: FindingState) -> &'static str {
    match state {
        FindingState::Ok => "ok",
        FindingState::Weak => "weak",
        FindingState::Missing => "absent",
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "name": finding.name,
        "state": finding_word(finding.state),
        "detail": finding.detail,
        "fix": finding.fix,
    })
}

/// A daemon that is not there is nothing wrong: nobody needs one where the sandbox works.
fn print_finding(app: &App, finding: &Finding, style: Style) -> anyhow::Result<()> {
    let state = format!("{:<8}", finding_word(finding.state));
    let state = match finding.state {
        FindingState::Ok => style.green(&state),
        FindingState::Weak => style.yellow(&state),
        FindingState::Missing => style.dim(&state),
    };
    let (name, detail) = (sanitize(&finding.name), sanitize(&finding.detail));
    app.ui.data(format_args!("{state} {name:<22} {detail}"))?;
    if let Some(fix) = &finding.fix {
        app.ui
            .data(format_args!("{:31} fix: {}", "", sanitize(fix)))?;
    }
    Ok(())
}

fn print_daemon_leftovers(app: &App, leftovers: &[String], style: Style) -> anyhow::Result<()> {
    if leftovers.is_empty() {
        return Ok(());
    }
    let state = style.yellow("weak    ");
    let count = human::plural(leftovers.len() as u64, "thing is|things are");
    app.ui.data(format_args!(
        "{state} {:<22} {count} left over; hmvm cache gc removes them",
        "daemons"
    ))?;
    leftovers.iter().try_for_each(|leftover| {
        app.ui
            .data(format_args!("{:31} {}", "", sanitize(leftover)))
    })
}

/// The store, or where it will be made: before the first run, what matters is the file system it
/// will be on.
fn existing(root: PathBuf) -> PathBuf {
    let found = root.ancestors().find(|path| path.is_dir());
    found.map_or_else(|| "/".into(), Path::to_owned)
}

/// What is left over in the store and on the machine, each in words. A store that does not exist
/// has nothing.
fn leftovers(app: &App) -> anyhow::Result<Vec<String>> {
    let root = app.store_root()?;
    if !root
        .try_exists()
        .with_context(|| format!("looking for {}", root.display()))?
    {
        return Ok(Vec::new());
    }
    // Opening it takes over and removes what dead processes left: what remains is what could not
    // be removed.
    let store = app.store()?;
    store.flush()?;
    let describe = |leftover: &Leftover| format!("{}: {}", leftover.what, leftover.path.display());
    let mut found: Vec<String> = store.leftovers()?.iter().map(describe).collect();
    found.extend(SandboxBackend::open(store, SandboxOptions::default())?.leftovers());
    Ok(found)
}

fn word(state: CheckState) -> &'static str {
    match state {
        CheckState::Ok => "ok",
        CheckState::Weak => "weak",
        CheckState::Missing => "missing",
    }
}

fn check_json(check: &Check) -> Value {
    json!({
        "name": check.name,
        "state": word(check.state),
        "detail": check.detail,
        "fix": check.fix,
    })
}

fn print_check(app: &App, check: &Check, style: Style) -> anyhow::Result<()> {
    let state = format!("{:<8}", word(check.state));
    let state = match check.state {
        CheckState::Ok => style.green(&state),
        CheckState::Weak => style.yellow(&state),
        CheckState::Missing => style.red(&state),
    };
    let detail = sanitize(&check.detail);
    app.ui
        .data(format_args!("{state} {:<22} {detail}", check.name))?;
    if let Some(fix) = &check.fix {
        app.ui
            .data(format_args!("{:31} fix: {}", "", sanitize(fix)))?;
    }
    Ok(())
}

fn print_leftovers(
    app: &App,
    leftovers: &anyhow::Result<Vec<String>>,
    style: Style,
) -> anyhow::Result<()> {
    let name = "store";
    match leftovers {
        Ok(list) if list.is_empty() => {
            let state = style.green("ok      ");
            app.ui
                .data(format_args!("{state} {name:<22} nothing is left over"))
        }
        Ok(list) => {
            let state = style.yellow("weak    ");
            let count = human::plural(list.len() as u64, "thing is|things are");
            app.ui
                .data(format_args!("{state} {name:<22} {count} left over"))?;
            list.iter().try_for_each(|leftover| {
                app.ui
                    .data(format_args!("{:31} {}", "", sanitize(leftover)))
            })
        }
        Err(error) => {
            let state = style.red("missing ");
            let message = Report::of(error).message.unwrap_or_default();
            app.ui.data(format_args!("{state} {name:<22} {message}"))
        }
    }
}

fn print_configuration(
    app: &App,
    place: Option<&ConfigPlace>,
    read: &anyhow::Result<&Configuration>,
    style: Style,
) -> anyhow::Result<()> {
    let ok = style.green("ok      ");
    let (state, detail) = match (place, read) {
        (_, Err(error)) => (
            style.red("missing "),
            Report::of(error).message.unwrap_or_default(),
        ),
        (None, _) => (ok, "there is no place for one".to_owned()),
        (Some(place), Ok(_)) => {
            let path = sanitize_path(&place.path);
            let there = if place.path.exists() {
                ""
            } else {
                ": none, the defaults hold"
            };
            (ok, format!("{path}{there}"))
        }
    };
    app.ui
        .data(format_args!("{state} {:<22} {detail}", "configuration"))
}
