use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hm_pipeline::plan::PlanOptions;
use hm_pipeline::{Decision, Plan, RunEvent, RunEventSink, StepId};
use hm_vm::Cancellation;
use hm_vm::store::ChangeKind;
use serde_json::{Value, json};

use crate::app::App;
use crate::backend::BackendArgs;
use crate::commands::run::{SettingArgs, runtime};
use crate::commands::snapshot::diff;
use crate::exit_codes;
use crate::failure::Problem;
use crate::output::Ui;
use crate::output::human::plural;
use crate::output::json;
use crate::output::sanitize::{sanitize, sanitize_path};
use crate::run::{FileArgs, Session, Verification, VerifyOptions};
use crate::signals;

/// Run cached steps again, and compare what they make with what is cached
///
/// A step that makes other files is not reproducible, or depends on something that its key does not cover: the date, a
/// server, chance. Exit code 1 says that there is one. Neither the cache nor outputs are touched.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  hmvm verify build
  build: differs in 1 path
    C /src/build.log")]
pub(crate) struct Verify {
    /// Steps to verify [default: all that are cached]
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
    /// Compare modification times of files as well
    #[arg(long)]
    times: bool,
    /// Show the output of the steps
    #[arg(long)]
    output: bool,
    /// Time between SIGTERM and SIGKILL for a step that is to end
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::input::parse_duration)]
    grace: Duration,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One step and what came of it.
struct Verified {
    step: String,
    verification: Verification,
}

impl Verify {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let runtime = runtime()?;
        let verified = runtime.block_on(self.carry_out(app));
        runtime.shutdown_background();
        let verified = verified?;
        if self.json {
            let list: Vec<Value> = verified.iter().map(to_json).collect();
            json::document(&list)?;
        }
        let bad = verified.iter().any(|it| {
            matches!(
                it.verification,
                Verification::Differs { .. } | Verification::Failed { .. }
            )
        });
        Ok(if bad {
            exit_codes::NEGATIVE
        } else {
            exit_codes::SUCCESS
        })
    }

    async fn carry_out(&self, app: &App) -> anyhow::Result<Vec<Verified>> {
        let loaded = self.file.load(app)?;
        let cancel = Cancellation::new();
        signals::watch(&cancel, self.grace, &app.ui).context("cannot wait for signals")?;
        let session = Session::open(app, &self.backend, &loaded, None, &cancel)?;
        session.keeper.store("hmvm verify")?;
        let options = PlanOptions {
            targets: self.steps.clone(),
            ..PlanOptions::default()
        };
        let images = &self.settings.images;
        let fetched = session.fetch_images(app, &loaded, &options, images, &cancel);
        fetched.await?;
        let settings = self.settings.plan_settings()?;
        let plan = session.plan(&loaded, &options, settings).await?;
        let verify = VerifyOptions {
            times: self.times,
            grace: self.grace,
            cancel: cancel.clone(),
            events: Arc::new(Output {
                ui: app.ui.clone(),
                names: super::plan::step_names(&plan),
                shown: self.output,
            }),
        };
        let mut verified = Vec::new();
        for id in self.chosen(&plan) {
            if let Some(cause) = cancel.cause() {
                return Err(hm_vm::Error::from(cause).into());
            }
            let step = plan.pipeline.step(id).name.clone();
            let verification = session
                .verify(&plan, id, &verify)
                .await
                .with_context(|| format!("verifying {}", sanitize(&step)))?;
            let done = Verified { step, verification };
            if !self.json {
                app.ui.print(text(&done))?;
            }
            verified.push(done);
        }
        if verified.is_empty() {
            return Err(Problem::new("no step is cached")
                .hint("hmvm run runs them first")
                .into());
        }
        Ok(verified)
    }

    /// The steps that the user named; without names, those that are cached.
    fn chosen(&self, plan: &Plan) -> Vec<StepId> {
        let named = |id: &StepId| {
            let step = plan.pipeline.step(*id);
            self.steps
                .iter()
                .any(|name| *name == step.name || *name == step.group)
        };
        let cached = |id: &StepId| matches!(plan.steps[id.0].decision, Decision::Hit(_));
        let all = plan.order.iter().copied();
        all.filter(|id| {
            if self.steps.is_empty() {
                cached(id)
            } else {
                named(id)
            }
        })
        .collect()
    }
}

fn text(done: &Verified) -> String {
    let step = sanitize(&done.step);
    match &done.verification {
        Verification::Same => format!("{step}: the same\n"),
        Verification::NotCached => format!("{step}: not cached\n"),
        Verification::Failed { exit_code } => {
            format!("{step}: failed this time, with exit code {exit_code}\n")
        }
        Verification::Differs { changes, times } => {
            let count = u64::try_from(changes.len() + times.len()).unwrap_or(u64::MAX);
            let mut text = format!("{step}: differs in {}\n", plural(count, "path"));
            for change in changes {
                let mark = diff::mark(change.kind);
                text.push_str(&format!("  {mark} {}\n", sanitize_path(&change.path)));
            }
            for path in times {
                text.push_str(&format!("  T {}\n", sanitize_path(path)));
            }
            text
        }
    }
}

fn to_json(done: &Verified) -> Value {
    let mut value = json!({ "step": done.step });
    match &done.verification {
        Verification::Same => value["result"] = "same".into(),
        Verification::NotCached => value["result"] = "not_cached".into(),
        Verification::Failed { exit_code } => {
            value["result"] = "failed".into();
            value["exit_code"] = (*exit_code).into();
        }
        Verification::Differs { changes, times } => {
            value["result"] = "differs".into();
            let of = |kind: ChangeKind| -> Vec<String> {
                let found = changes.iter().filter(|change| change.kind == kind);
                found
                    .map(|change| change.path.to_string_lossy().into_owned())
                    .collect()
            };
            value["added"] = of(ChangeKind::Added).into();
            value["changed"] = of(ChangeKind::Changed).into();
            value["deleted"] = of(ChangeKind::Deleted).into();
            let times = times.iter().map(|path| path.to_string_lossy().into_owned());
            value["times"] = times.collect::<Vec<_>>().into();
        }
    }
    value
}

/// Shows the output of steps on standard error, if asked to, and notices.
struct Output {
    ui: Ui,
    names: Vec<String>,
    shown: bool,
}

impl RunEventSink for Output {
    fn on_event(&self, event: &RunEvent) {
        match event {
            RunEvent::StepOutput { step, line, .. } if self.shown => {
                self.ui
                    .say(format_args!("{} | {}", self.names[step.0], sanitize(line)));
            }
            RunEvent::Notice { text, .. } => self.ui.notice(text),
            _ => {}
        }
    }
}
