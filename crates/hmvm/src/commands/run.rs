use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hm_pipeline::plan::PlanOptions;
use hm_vm::Cancellation;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::images::needed::PullArgs;
use crate::input::environment;
use crate::input::parse_duration;
use crate::input::values::{self, EnvArgument};
use crate::remote_cache::RemoteCacheArgs;
use crate::report::Mode;
use crate::run::{FileArgs, RunSettings, Session};
use crate::signals;

/// Run a pipeline: every step that its cache does not have
///
/// Reads hmvm.toml, derives the key of every step, and skips the steps whose result is known. The others run, each
/// in a VM of its own that forks from the snapshot of the step before. The exit code is that of the step
/// that failed first (124: timeout, 125: hmvm failed, 130: cancelled).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm run                     # everything
  hmvm run test lint           # these steps, and what they need
  hmvm run --from build        # build and all that forks from it, whatever the cache has
  hmvm run --json | jq -r 'select(.event == \"step_ended\") | .step'")]
pub(crate) struct Run {
    /// Steps to run, with all that they need [default: all]
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
    /// After a failure, go on with what does not depend on it
    #[arg(short, long)]
    keep_going: bool,
    /// Run every step, whatever the cache has; the results are cached
    #[arg(long)]
    no_cache: bool,
    /// Run this step, and all that forks from it, whatever the cache has
    #[arg(long, value_name = "STEP")]
    from: Vec<String>,
    #[command(flatten)]
    settings: SettingArgs,
    /// Steps that may run at once [default: the pipeline's, else one for each processor]
    #[arg(short = 'j', long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// End the run after this time, such as 30m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL for a step that is to end
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// Print one event a line, output lines included
    #[arg(long)]
    json: bool,
    /// Print lines as they come, also on a terminal
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    #[command(flatten)]
    shared: RemoteCacheArgs,
    #[command(flatten)]
    backend: BackendArgs,
}

/// What `run`, `plan` and their like share.
#[derive(Args, Clone, Debug)]
pub(crate) struct SettingArgs {
    /// Set a variable in the environment of every step, over the file's; without a value, take over the one it has
    /// here. Conditions see it too
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = values::parse_env)]
    env: Vec<EnvArgument>,
    /// What changed() compares with [default: the pipeline's, else where the branch left its upstream, else the last
    /// commit]
    #[arg(long, value_name = "REVISION")]
    changed_since: Option<String>,
    #[command(flatten)]
    pub(crate) images: PullArgs,
}

impl SettingArgs {
    /// As the planner takes them.
    pub(crate) fn plan_settings(&self) -> anyhow::Result<crate::run::PlanSettings> {
        let env = environment::declared(&self.env)?;
        let mut variables = environment::all();
        variables.extend(env.iter().cloned());
        Ok(crate::run::PlanSettings {
            env,
            variables,
            changed_since: self.changed_since.clone(),
        })
    }
}

impl Run {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let runtime = runtime()?;
        let code = runtime.block_on(self.carry_out(app));
        // A thread of the backend that still waits for something must not hold the program.
        runtime.shutdown_background();
        code
    }

    async fn carry_out(&self, app: &App) -> anyhow::Result<u8> {
        let loaded = self.file.load(app)?;
        let settings = self.settings(app)?;
        let cancel = Cancellation::new();
        let shared = self
            .shared
            .choose(app, loaded.pipeline.remote_cache.as_ref())?;
        let session = Session::open(app, &self.backend, &loaded, shared, &cancel)?;
        signals::watch(&cancel, self.grace, &app.ui).context("cannot wait for signals")?;
        let (plan, images) = (&settings.plan, &self.settings.images);
        let fetched = session.fetch_images(app, &loaded, plan, images, &cancel);
        let keeper = session.keeper.clone();
        let ended = match fetched.await {
            Ok(()) => session.run(app, &loaded, settings, cancel.clone()).await,
            Err(error) => Err(error),
        };
        keeper.end(&cancel);
        ended
    }

    fn settings(&self, app: &App) -> anyhow::Result<RunSettings> {
        let plan = self.settings.plan_settings()?;
        Ok(RunSettings {
            plan: PlanOptions {
                targets: self.steps.clone(),
                no_cache: self.no_cache,
                from: self.from.clone(),
            },
            keep_going: self.keep_going,
            parallelism: self.jobs,
            timeout: self.timeout,
            grace: self.grace,
            mode: self.mode(app),
            settings: plan,
            options: environment::arguments(),
        })
    }

    fn mode(&self, app: &App) -> Mode {
        Mode::choose(
            self.json,
            app.ui.is_quiet(),
            app.ui.is_live() && !self.plain,
        )
    }
}

/// The threads of a run: file work blocks, and steps run at once.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.clamp(2, 8))
        .enable_all()
        .build()
        .context("cannot start")
}
