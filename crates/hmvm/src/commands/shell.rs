use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hm_vm::{
    Cancellation, ExecOutcome, ExecRequest, HmVm, ImageSource, SnapshotLabel, Terminal, Vm,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::backend::Opened;
use crate::exit_codes;
use crate::failed_step::FailedStep;
use crate::failure::Problem;
use crate::history::Wanted;
use crate::images::needed::PullArgs;
use crate::input::quote;
use crate::machine::{ContentArgs, LimitArgs, SourceArgs};
use crate::names;
use crate::raw_terminal::{self, RawMode};
use crate::signals;

/// What runs without CMD: the better shell of the two that images have.
const LOGIN: &str = "if command -v bash >/dev/null 2>&1; then exec bash -i; else exec sh -i; fi";

/// Time between SIGTERM and SIGKILL when the program is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// Open an interactive terminal in a throw-away fork of an image or a snapshot
///
/// All that is done in it is gone at its end, unless --save keeps it as a snapshot.
///
/// --failed opens it in the files that a failed step of a pipeline left, with the step's working directory, environment
/// and user. They are kept until the next run of the pipeline has ended. Secrets are not there.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm shell --from 3f2a81
  hmvm shell --failed             # where the newest failed step ended
  hmvm shell --failed 7/test
  hmvm shell --image host --inject . --save
  hmvm shell --from 3f2a81 -- gdb ./program core")]
pub(crate) struct Shell {
    #[command(flatten)]
    source: SourceArgs,
    /// Start where this step failed [default: the newest failed one]
    #[arg(
        long,
        value_name = "RUN/STEP",
        num_args = 0..=1,
        default_missing_value = "",
        conflicts_with_all = ["image", "from"]
    )]
    failed: Option<String>,
    #[command(flatten)]
    content: ContentArgs,
    /// Keep the state as a snapshot at the end, and print its id
    #[arg(long)]
    save: bool,
    /// The command to run instead of a shell
    #[arg(value_name = "CMD", last = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    images: PullArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

impl Shell {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        if !io::stdin().is_terminal() {
            return Err(Problem::new("standard input is not a terminal")
                .hint("hmvm exec runs commands without one")
                .into());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start")?;
        let outcome = runtime.block_on(self.session(app));
        // A thread that still waits for a key must not hold the program.
        runtime.shutdown_background();
        outcome
    }

    async fn session(&self, app: &App) -> anyhow::Result<u8> {
        let cmd = if self.command.is_empty() {
            LOGIN.to_owned()
        } else {
            quote::command_line(&self.command)?
        };
        let (declared, inject) = (self.content.env()?, self.content.inject()?);
        let stop = Cancellation::new();
        let opened = self.limits.open(app)?;
        signals::watch(&stop, GRACE, &app.ui).context("cannot wait for signals")?;
        let outcome = self
            .in_vm(app, &opened, &cmd, (declared, inject), &stop)
            .await;
        opened.keeper.end(&stop);
        outcome
    }

    async fn in_vm(
        &self,
        app: &App,
        opened: &Opened,
        cmd: &str,
        (declared, inject): (Vec<(String, String)>, Option<PathBuf>),
        stop: &Cancellation,
    ) -> anyhow::Result<u8> {
        for notice in &opened.notices {
            app.ui.notice(notice);
        }
        let (engine, keeper) = (&opened.engine, &opened.keeper);
        let failed = match &self.failed {
            Some(name) => Some(FailedStep::find(app, keeper, &Wanted::parse(name))?),
            None => None,
        };
        let source = match &failed {
            Some(step) => ImageSource::Snapshot(step.state.clone()),
            None => self.source.resolve(app, keeper)?,
        };
        if let ImageSource::Image(image) = &source {
            let images = [image.clone()].into();
            self.images.ensure(app, keeper, images, stop).await?;
        }
        for notice in engine.backend().notices() {
            app.ui.notice(&notice);
        }
        let mut vm = start(engine, &source).await?;
        let working_dir = self.working_dir(failed.as_ref());
        // What is declared now goes over what the step had.
        let term = app.environment.term.iter();
        let mut env: Vec<(String, String)> =
            term.map(|term| ("TERM".into(), term.clone())).collect();
        env.extend(failed.iter().flat_map(|step| step.env.iter().cloned()));
        env.extend(declared);
        let request = ExecRequest {
            env: &env,
            working_dir: &working_dir,
            user: failed.as_ref().and_then(|step| step.user.as_deref()),
            grace: GRACE,
            ..ExecRequest::new(cmd, stop)
        };
        let outcome = self
            .use_vm(app, vm.as_mut(), &request, inject.as_deref())
            .await;
        // The VM goes in every case; the session's own failure is the one to tell.
        let destroyed = vm.destroy().await;
        let outcome = outcome?;
        destroyed?;
        Ok(u8::try_from(outcome.exit_code).unwrap_or(exit_codes::FAILED))
    }

    fn working_dir(&self, failed: Option<&FailedStep>) -> String {
        match (self.content.given_working_dir(), failed) {
            (None, Some(step)) => step.working_dir.clone(),
            _ => self.content.working_dir(),
        }
    }

    async fn use_vm(
        &self,
        app: &App,
        vm: &mut dyn Vm,
        request: &ExecRequest<'_>,
        inject: Option<&Path>,
    ) -> anyhow::Result<ExecOutcome> {
        if let Some(directory) = inject {
            vm.inject(directory, request.working_dir).await?;
        }
        let outcome = interact(vm, request).await?;
        if self.save {
            keep(app, vm).await?;
        }
        Ok(outcome)
    }
}

async fn keep(app: &App, vm: &mut dyn Vm) -> anyhow::Result<()> {
    let snapshot = vm.snapshot(&SnapshotLabel::Ephemeral).await?;
    app.ui.data(&snapshot)?;
    app.ui.say(format_args!(
        "hmvm: kept as snapshot {id}; hmvm shell --from {id} goes on from there",
        id = names::short(&snapshot)
    ));
    Ok(())
}

async fn start(engine: &HmVm, source: &ImageSource) -> anyhow::Result<Box<dyn Vm>> {
    match source {
        ImageSource::Image(image) => engine.backend().create(image, engine.config()).await,
        ImageSource::Snapshot(snapshot) => {
            engine.backend().restore(snapshot, engine.config()).await
        }
    }
}

/// Connects the user's terminal to the VM's until the command ends.
async fn interact(vm: &dyn Vm, request: &ExecRequest<'_>) -> anyhow::Result<ExecOutcome> {
    let (sender, size) = watch::channel(raw_terminal::size());
    let mut resized = signal(SignalKind::window_change()).context("cannot wait for signals")?;
    let follow = async {
        // The size may have changed before the handler was there.
        loop {
            sender.send_replace(raw_terminal::size());
            if resized.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    };
    let terminal = Terminal {
        input: Box::pin(tokio::io::stdin()),
        output: Box::pin(tokio::io::stdout()),
        size,
    };
    let _raw = RawMode::enter().context("cannot set the terminal's mode")?;
    tokio::select! {
        outcome = vm.terminal(request, terminal) => outcome,
        () = follow => unreachable!("it never ends"),
    }
}
