//! `hmvm exec`: options and outcome. The files beside this one write the output and the events.

mod closing;
mod events;
mod sinks;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hm_vm::remote::RemoteReport;
use hm_vm::{
    Action, CachingPolicy, Cancellation, EventSink, ExecuteOptions, ExecutionResult, HmVm,
    ImageSource, KeyComponents, OutputSink,
};

use crate::app::App;
use crate::backend::Opened;
use crate::failure::{OutputClosed, Report, contract};
use crate::images::needed::PullArgs;
use crate::input::parse_duration;
use crate::input::quote;
use crate::input::values::{CacheMode, parse_cache_mode};
use crate::machine::{ContentArgs, LimitArgs, SourceArgs};
use crate::output::gate::Gate;
use crate::remote_cache::{self, ChosenCache, RemoteCacheArgs, SharedCache};
use crate::signals;

use events::{JsonEvents, PlainEvents};
use sinks::{JsonOutput, RawOutput};

/// How often an execution is begun anew because its files changed while it was being begun.
const RENEWALS: usize = 3;

/// Run a command in a VM of its own, keep the VM's state, and skip the command the next time
///
/// The command's output goes to standard output and standard error as it comes, and its exit code
/// is passed through (124: timeout, 125: hmvm failed, 130: cancelled). Nothing that the command
/// started is alive afterwards. When it succeeds, a snapshot keeps the files as it left them:
/// `--from` forks from it.
///
/// Several arguments behind -- are a program and its arguments, which it gets exactly as they are.
/// A single argument is a line for the VM's shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm exec -- uname -a
  hmvm exec --inject . --timeout 10m -- 'make && make test'
  hmvm exec --from 3f2a81 --network outbound -- curl -fsS https://example.org
  hmvm exec --json --cache off -e RUST_LOG -e CI=1 -- cargo test")]
pub(crate) struct Exec {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    content: ContentArgs,
    /// End the command after this time, such as 90s or 5m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL when the command is cancelled or timed out
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// Skip the command when it ran before: under the key that derives from image, files,
    /// command and environment (auto), never (off), or under a key of your own
    #[arg(long, value_name = "auto|off|KEY", default_value = "auto", value_parser = parse_cache_mode)]
    cache: CacheMode,
    /// Keep the VM's state when the command fails, and tell its id
    #[arg(long)]
    keep_failed: bool,
    /// Print one event a line, output lines included
    #[arg(long)]
    json: bool,
    /// The command
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    images: PullArgs,
    #[command(flatten)]
    shared: RemoteCacheArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

impl Exec {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        let code = runtime.block_on(self.execute(app));
        // A thread of the backend that still waits for something must not hold the program.
        runtime.shutdown_background();
        code
    }

    async fn execute(&self, app: &App) -> anyhow::Result<u8> {
        let cancel = Cancellation::new();
        let gate = Arc::new(Gate::new(cancel.clone(), self.timeout));
        let outcome = self.attempt(app, &cancel, &gate).await;
        if gate.is_closed() {
            return Err(OutputClosed.into());
        }
        if let Some(error) = gate.take_error() {
            return Err(anyhow::Error::new(error).context("cannot write the command's output"));
        }
        match outcome {
            Ok(result) => Ok(self.finish(app, &gate, &result)),
            Err(error) => {
                if self.json {
                    events::failed(&gate, &Report::of(&error));
                }
                Err(error)
            }
        }
    }

    async fn attempt(
        &self,
        app: &App,
        cancel: &Cancellation,
        gate: &Arc<Gate>,
    ) -> anyhow::Result<Done> {
        let cmd = quote::command_line(&self.command)?;
        let (env, inject) = (self.content.env()?, self.content.inject()?);
        let shared = match self.cache {
            CacheMode::Off => None,
            _ => self.shared.choose(app, None)?,
        };
        let opened = self.limits.open(app)?;
        // Not before: who waits for a daemon that does not answer can be ended by the first signal.
        signals::watch(cancel, self.grace, &app.ui).context("cannot wait for signals")?;
        for notice in &opened.notices {
            self.notice(app, gate, notice);
        }
        let action = Action {
            source: self.source.resolve(app, &opened.keeper)?,
            cmd,
            env,
            working_dir: self.content.working_dir(),
            timeout: self.timeout,
            inject,
        };
        let keeper = opened.keeper.clone();
        let done = self.on_backend(app, cancel, gate, (opened, shared), &action);
        let done = done.await;
        keeper.end(cancel);
        done
    }

    async fn on_backend(
        &self,
        app: &App,
        cancel: &Cancellation,
        gate: &Arc<Gate>,
        (opened, shared): (Opened, Option<ChosenCache>),
        action: &Action,
    ) -> anyhow::Result<Done> {
        if let ImageSource::Image(image) = &action.source {
            let images = [image.clone()].into();
            let ensured = self.images.ensure(app, &opened.keeper, images, cancel);
            ensured.await?;
        }
        let Opened {
            store,
            engine,
            keeper,
            ..
        } = opened;
        let (engine, shared) = SharedCache::attach(app, engine, (&store, &keeper), shared, cancel)?;
        let done = self.renewing(app, cancel, gate, &engine, action).await;
        // The result stands, whatever becomes of it elsewhere.
        if let Some(shared) = shared {
            let report = shared.finish(cancel).await;
            for line in remote_cache::troubles(&report) {
                self.notice(app, gate, &line);
            }
            self.tell_shared(app, gate, &report);
        }
        done
    }

    /// Executes, once more where files change while it begins.
    async fn renewing(
        &self,
        app: &App,
        cancel: &Cancellation,
        gate: &Arc<Gate>,
        engine: &HmVm,
        action: &Action,
    ) -> anyhow::Result<Done> {
        let mut renewals = 0;
        loop {
            let once = self.execute_once(app, cancel, gate, engine, action).await;
            let Err(error) = &once else { return once };
            // Files changed between the derivation of the key and the inject; the command has not run.
            let changed = matches!(contract(error), Some(hm_vm::Error::InputChanged { .. }));
            if !changed || renewals == RENEWALS {
                return once;
            }
            renewals += 1;
        }
    }

    /// Derives the key, and executes.
    async fn execute_once(
        &self,
        app: &App,
        cancel: &Cancellation,
        gate: &Arc<Gate>,
        engine: &HmVm,
        action: &Action,
    ) -> anyhow::Result<Done> {
        let (policy, components) = self.policy(app, gate, engine, action).await?;
        let key = match &policy {
            CachingPolicy::Cache { key } => Some(key.clone()),
            CachingPolicy::None => None,
        };
        let backend = engine.backend().clone();
        let (raw, json) = (RawOutput::new(gate.clone()), JsonOutput::new(gate.clone()));
        let json = Arc::new(json);
        let events: Arc<dyn EventSink> = if self.json {
            Arc::new(JsonEvents::new(gate.clone(), json.clone(), backend))
        } else {
            Arc::new(PlainEvents::new(gate.clone(), app.ui.clone(), backend))
        };
        let options = ExecuteOptions {
            cancel: Some(cancel.clone()),
            grace: self.grace,
            keep_failed: self.keep_failed,
            events: Some(events),
            components,
            ..ExecuteOptions::default()
        };
        let sink: &dyn OutputSink = if self.json { json.as_ref() } else { &raw };
        let action = action.clone();
        let result = engine.execute_with(action, policy, sink, options).await;
        json.finish();
        Ok(Done {
            result: result?,
            key,
        })
    }

    /// Decides under which key the command is cached.
    async fn policy(
        &self,
        app: &App,
        gate: &Gate,
        engine: &HmVm,
        action: &Action,
    ) -> anyhow::Result<(CachingPolicy, Option<KeyComponents>)> {
        match &self.cache {
            CacheMode::Off => Ok((CachingPolicy::None, None)),
            CacheMode::Key(key) => Ok((CachingPolicy::Cache { key: key.clone() }, None)),
            CacheMode::Auto => {
                let Some(components) = engine.derive_key(action).await? else {
                    let backend = engine.backend().name().to_owned();
                    let text = format!(
                        "not cached: the {backend} backend cannot tell what the content of its source is"
                    );
                    self.notice(app, gate, &text);
                    return Ok((CachingPolicy::None, None));
                };
                let key = components.key().into();
                Ok((CachingPolicy::Cache { key }, Some(components)))
            }
        }
    }

    fn notice(&self, app: &App, gate: &Gate, text: &str) {
        if self.json {
            events::notice(gate, text);
        } else {
            app.ui.notice(text);
        }
    }

    fn tell_shared(&self, app: &App, gate: &Gate, report: &RemoteReport) {
        let (results, bytes) = (report.published, report.bytes);
        if results == 0 {
            return;
        }
        if self.json {
            events::shared(gate, results, bytes);
        } else {
            gate.end_line();
            let text = remote_cache::shared_text(results, bytes);
            app.ui.say(format_args!("hmvm: {text}"));
        }
    }

    /// Tells the outcome, and gives the exit code.
    fn finish(&self, app: &App, gate: &Gate, done: &Done) -> u8 {
        if self.json {
            events::result(gate, done);
        } else {
            gate.end_line();
            app.ui.say(closing::line(&done.result, app.ui.err_style()));
        }
        // The contract says 0 to 255; anything else would be our failure, not a success.
        u8::try_from(done.result.exit_code).unwrap_or(crate::exit_codes::FAILED)
    }
}

/// An execution that came to its end.
#[derive(Debug)]
struct Done {
    result: ExecutionResult,
    key: Option<String>,
}
