//! One run, from its plan to its record.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hm_pipeline::plan::PlanOptions;
use hm_pipeline::record::{Retention, RunHeader, RunRecord, RunStore, RunWriter};
use hm_pipeline::schedule::{self, RunOutcome, ScheduleOptions};
use hm_pipeline::{Plan, RunEvent, RunEventSink, StepRunner, Verdict};
use hm_vm::store::Store;
use hm_vm::{Cancellation, HmVm, VmConfig};

use super::file::Loaded;
use super::held_end::HeldEnd;
use super::inputs::EngineInputs;
use super::keys::Keys;
use super::manifests;
use super::runner::{EngineRunner, RunnerState};
use crate::app::App;
use crate::backend::{BackendArgs, Keeper, Opened, daemon};
use crate::exit_codes;
use crate::images::needed::PullArgs;
use crate::remote_cache::{self, ChosenCache, SharedCache};
use crate::report::{self, Mode, Report, ReportContext};

/// What the user asks of a run, beyond the pipeline.
#[derive(Clone, Debug)]
pub(crate) struct RunSettings {
    pub(crate) plan: PlanOptions,
    pub(crate) keep_going: bool,
    pub(crate) parallelism: Option<NonZeroUsize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) mode: Mode,
    pub(crate) settings: PlanSettings,
    /// As the user wrote it, for the record.
    pub(crate) options: Vec<String>,
}

/// The store and the engine that runs use.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) store: Store,
    pub(crate) engine: Arc<HmVm>,
    pub(crate) keeper: Keeper,
    shared: Option<SharedCache>,
}

/// The record of runs of a store.
pub(crate) fn run_store(store: &Store) -> Result<RunStore> {
    let directory = store.root().join("runs");
    RunStore::open(&directory)
        .with_context(|| format!("cannot open the record of runs in {}", directory.display()))
}

impl Session {
    /// Opens what a pipeline needs. `cancel` ends what goes to the shared cache, and what comes from it.
    ///
    /// # Errors
    ///
    /// The store cannot be opened, the pipeline's backend is not known, or the shared cache is none.
    pub(crate) fn open(
        app: &App,
        backend: &BackendArgs,
        loaded: &Loaded,
        shared: Option<ChosenCache>,
        cancel: &Cancellation,
    ) -> Result<Self> {
        let named = loaded.pipeline.backend.as_deref();
        let Opened {
            store,
            engine,
            keeper,
            notices,
        } = backend.open(app, named, VmConfig::default())?;
        for notice in &notices {
            app.ui.notice(notice);
        }
        let (engine, shared) = SharedCache::attach(app, engine, (&store, &keeper), shared, cancel)?;
        Ok(Self {
            store,
            engine: Arc::new(engine),
            keeper,
            shared,
        })
    }

    /// Pulls the images that a run needs and the store does not have.
    ///
    /// # Errors
    ///
    /// A target that does not exist, or an image that cannot be had.
    pub(crate) async fn fetch_images(
        &self,
        app: &App,
        loaded: &Loaded,
        options: &PlanOptions,
        pull: &PullArgs,
        cancel: &Cancellation,
    ) -> Result<()> {
        let images = hm_pipeline::plan::images(&loaded.pipeline, options)?;
        pull.ensure(app, &self.keeper, images, cancel).await
    }

    /// Plans a run.
    ///
    /// # Errors
    ///
    /// A target that does not exist, a directory to inject that is not there, or a failure to look something up.
    pub(crate) async fn plan(
        &self,
        loaded: &Loaded,
        options: &PlanOptions,
        settings: PlanSettings,
    ) -> Result<Plan> {
        let mut pipeline = loaded.pipeline.clone();
        for step in &mut pipeline.steps {
            step.env.extend(settings.env.iter().cloned());
        }
        let inputs = EngineInputs::new(
            Arc::clone(&self.engine),
            &pipeline,
            settings.changed_since,
            settings.variables,
        );
        Plan::make(pipeline, &inputs, options).await
    }

    /// Runs a pipeline, and returns the exit code of the program.
    ///
    /// # Errors
    ///
    /// The run could not be begun or recorded. That a step fails is no error.
    pub(crate) async fn run(
        &self,
        app: &App,
        loaded: &Loaded,
        settings: RunSettings,
        cancel: Cancellation,
    ) -> Result<u8> {
        let plan = self
            .plan(loaded, &settings.plan, settings.settings.clone())
            .await?;
        let plan = Arc::new(plan);
        let runs = run_store(&self.store)?;
        let reaped = self.reap(&runs);
        let header = RunHeader::of(&plan, &loaded.path, settings.options.clone());
        let earlier = runs.latest_of(&header.identity).unwrap_or_default();
        let writer = Arc::new(runs.begin(&plan, header)?);
        let context = ReportContext {
            plan: Arc::clone(&plan),
            run: writer.id(),
            log_directory: writer.directory().to_owned(),
            cancel: cancel.clone(),
        };
        let report = report::start(app, settings.mode, context)?;
        reaped.await;
        let lists = tokio::spawn(manifests::save(
            Arc::clone(self.engine.backend()),
            Arc::clone(&plan),
            runs.clone(),
        ));
        let outcome = self
            .carry_out(&plan, &settings, &writer, &report, cancel)
            .await;
        // It is of use for a later explanation only: but the next run may be the one to be explained.
        drop(lists.await);
        let finished = self.record(app, &runs, &plan, &writer, &outcome, earlier.as_ref());
        finished.await?;
        report.finish()?;
        Ok(exit_code(outcome.verdict))
    }

    async fn carry_out(
        &self,
        plan: &Arc<Plan>,
        settings: &RunSettings,
        writer: &Arc<RunWriter>,
        report: &Arc<Report>,
        cancel: Cancellation,
    ) -> RunOutcome {
        let events: Arc<dyn RunEventSink> = report.clone();
        if let Some(shared) = &self.shared {
            let events = Arc::clone(&events);
            shared.tell_to(move |text| notice(events.as_ref(), text));
        }
        let runner = Arc::new(EngineRunner {
            plan: Arc::clone(plan),
            engine: Arc::clone(&self.engine),
            keeper: self.keeper.clone(),
            events: Arc::clone(&events),
            writer: Arc::clone(writer),
            grace: settings.grace,
            forks: plan.forks(),
            keys: Keys::default(),
            state: Mutex::new(RunnerState::default()),
            noticed: AtomicBool::new(false),
        });
        let machine = Machine::look();
        let options = ScheduleOptions {
            parallelism: settings
                .parallelism
                .or(plan.pipeline.parallelism)
                .unwrap_or(machine.processors),
            cpus: u32::try_from(machine.processors.get()).unwrap_or(u32::MAX),
            memory_mib: machine.memory_mib,
            keep_going: settings.keep_going,
            cancel: cancel.clone(),
            timeout: settings.timeout.or(plan.pipeline.timeout),
        };
        let steps: Arc<dyn StepRunner> = runner.clone();
        let held = Arc::new(HeldEnd::new(Arc::clone(&events)));
        let outcome = schedule::run(Arc::clone(plan), steps, options, held.clone()).await;
        runner.clean_up().await;
        if let Some(shared) = &self.shared {
            let report = shared.finish(&cancel).await;
            for line in remote_cache::troubles(&report) {
                notice(events.as_ref(), &line);
            }
            if report.published > 0 {
                events.on_event(&RunEvent::Shared {
                    results: report.published,
                    bytes: report.bytes,
                });
            }
        }
        held.release();
        outcome
    }

    async fn record(
        &self,
        app: &App,
        runs: &RunStore,
        plan: &Plan,
        writer: &RunWriter,
        outcome: &RunOutcome,
        earlier: Option<&RunRecord>,
    ) -> Result<()> {
        // From now on they belong to the record, and go with it.
        let results = outcome.results.iter().flatten();
        for kept in results.filter_map(|result| result.detail.kept.as_ref()) {
            writer.forget_ephemeral(kept);
        }
        writer.finish(plan, outcome)?;
        // The state of a step that failed is of use until the next run of its pipeline has ended.
        let old = earlier.iter().flat_map(|record| record.kept());
        let pruned = runs.prune(&Retention::default())?;
        let pruned = pruned.iter().flat_map(|run| run.kept.iter().cloned());
        let (ours, others): (Vec<_>, Vec<_>) = old
            .chain(pruned)
            .partition(|snapshot| self.keeper.may_have(snapshot));
        // The run before may have had another backend.
        tokio::task::block_in_place(|| daemon::remove_everywhere(app, &others))?;
        for snapshot in ours {
            if let Err(error) = self.engine.remove_snapshot(&snapshot).await {
                tracing::warn!(%snapshot, error = %format!("{error:#}"), "the state of an earlier failure was not removed");
            }
        }
        Ok(())
    }

    /// Removes what runs left that were killed.
    fn reap(&self, runs: &RunStore) -> impl Future<Output = ()> + use<> {
        let interrupted = runs.interrupted().unwrap_or_default();
        let (engine, runs) = (Arc::clone(&self.engine), runs.clone());
        let keeper = self.keeper.clone();
        async move {
            for (run, snapshots) in interrupted {
                if !snapshots.iter().all(|snapshot| keeper.may_have(snapshot)) {
                    // It had another backend; the next run with that does this.
                    continue;
                }
                for snapshot in snapshots {
                    if let Err(error) = engine.remove_snapshot(&snapshot).await {
                        tracing::warn!(run, %snapshot, error = %format!("{error:#}"), "a snapshot of a killed run was not removed");
                        return;
                    }
                }
                if let Err(error) = runs.mark_interrupted(run) {
                    tracing::warn!(run, error = %format!("{error:#}"), "a killed run was not put on record");
                }
            }
        }
    }
}

fn notice(events: &dyn RunEventSink, text: &str) {
    events.on_event(&RunEvent::Notice {
        step: None,
        text: text.to_owned(),
    });
}

/// What a plan depends on beside the pipeline and the options.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanSettings {
    /// Over the environment of every step.
    pub(crate) env: Vec<(String, String)>,
    /// What conditions see.
    pub(crate) variables: BTreeMap<String, String>,
    /// What `changed()` compares with.
    pub(crate) changed_since: Option<String>,
}

fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Succeeded => exit_codes::SUCCESS,
        Verdict::Failed { exit_code, .. } => u8::try_from(exit_code).unwrap_or(exit_codes::FAILED),
        Verdict::TimedOut { .. } => exit_codes::TIMED_OUT,
        Verdict::Cancelled => exit_codes::CANCELLED,
    }
}

/// What the machine has for steps.
struct Machine {
    processors: NonZeroUsize,
    memory_mib: u64,
}

impl Machine {
    fn look() -> Self {
        let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            processors,
            memory_mib: free_memory_mib().unwrap_or(u64::MAX),
        }
    }
}

/// What the kernel says could be used without swapping.
fn free_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string(PathBuf::from("/proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}
