use clap::Args;
use hm_pipeline::plan::PlanOptions;
use hm_pipeline::{Decision, Plan, SkipReason, StepId};
use hm_vm::Cancellation;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::commands::run::{SettingArgs, runtime};
use crate::names;
use crate::output::human;
use crate::output::json;
use crate::output::sanitize::sanitize;
use crate::output::table::Table;
use crate::remote_cache::RemoteCacheArgs;
use crate::report::{run_reason, skip_reason};
use crate::run::{FileArgs, Loaded, Session};

/// Show what hmvm run would do: which steps would run, which would be skipped, and why
///
/// Nothing is run. Images that are not here are pulled: keys derive from what they hold.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  hmvm plan
  STEP   WOULD      KEY               WHY
  deps   be cached  hm1-8d727d99223e  saves 41.2 s
  build  run        hm1-55eb1f8bb7e5  not cached yet
  test   run        hm1-e2f58c5cb003  build runs")]
pub(crate) struct PlanCommand {
    /// Steps to run, with all that they need [default: all]
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
    /// As for hmvm run
    #[arg(long)]
    no_cache: bool,
    /// As for hmvm run
    #[arg(long, value_name = "STEP")]
    from: Vec<String>,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    shared: RemoteCacheArgs,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PlanCommand {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<()> {
        let options = PlanOptions {
            targets: self.steps.clone(),
            no_cache: self.no_cache,
            from: self.from.clone(),
        };
        let shared = Some(&self.shared);
        let planned = make(
            app,
            &self.file,
            &self.settings,
            shared,
            &self.backend,
            &options,
        )?;
        if self.json {
            return json::document(&document(&planned.plan));
        }
        print(app, &planned.plan)
    }
}

/// A plan, and what it was made with.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) session: Session,
    pub(crate) loaded: Loaded,
    pub(crate) runtime: Runtime,
}

/// Plans a run. Without `shared`, only results of this machine are seen.
pub(crate) fn make(
    app: &App,
    file: &FileArgs,
    settings: &SettingArgs,
    shared: Option<&RemoteCacheArgs>,
    backend: &BackendArgs,
    options: &PlanOptions,
) -> anyhow::Result<Planned> {
    let loaded = file.load(app)?;
    let shared = match shared {
        Some(shared) => shared.choose(app, loaded.pipeline.remote_cache.as_ref())?,
        None => None,
    };
    let cancel = Cancellation::new();
    let session = Session::open(app, backend, &loaded, shared, &cancel)?;
    let runtime = runtime()?;
    let plan = runtime.block_on(async {
        let images = &settings.images;
        let fetched = session.fetch_images(app, &loaded, options, images, &cancel);
        fetched.await?;
        let settings = settings.plan_settings()?;
        session.plan(&loaded, options, settings).await
    })?;
    Ok(Planned {
        plan,
        session,
        loaded,
        runtime,
    })
}

/// What becomes of a step, in one word.
pub(crate) fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Hit(_) => "cached",
        Decision::Run(_) => "run",
        Decision::Skip(_) => "skip",
    }
}

/// Why, in a few words.
pub(crate) fn reason(decision: &Decision, names: &[String]) -> String {
    match decision {
        Decision::Hit(entry) => {
            let saves = entry
                .cost
                .map(|cost| format!("saves {}", human::duration(cost)));
            let place = entry.elsewhere.then(|| "in the shared cache".to_owned());
            let parts: Vec<String> = saves.into_iter().chain(place).collect();
            parts.join(", ")
        }
        Decision::Run(reason) => run_reason(reason, names),
        // Nothing has run yet that could have failed.
        Decision::Skip(SkipReason::Dependency(step)) => format!("{} is skipped", names[step.0]),
        Decision::Skip(reason) => skip_reason(reason, names),
    }
}

/// The names of all steps, by their place.
pub(crate) fn step_names(plan: &Plan) -> Vec<String> {
    plan.pipeline
        .steps
        .iter()
        .map(|step| step.name.clone())
        .collect()
}

fn print(app: &App, plan: &Plan) -> anyhow::Result<()> {
    let style = app.ui.out_style();
    let names = step_names(plan);
    let mut table = Table::new(&["STEP", "WOULD", "KEY", "WHY"], style);
    for id in &plan.order {
        let planned = &plan.steps[id.0];
        let key = planned
            .key
            .as_deref()
            .map_or_else(String::new, names::short_key);
        let would = match &planned.decision {
            Decision::Hit(entry) if entry.elsewhere => "be fetched",
            Decision::Hit(_) => "be cached",
            decision => word(decision),
        };
        table.row(vec![
            sanitize(&names[id.0]).into_owned(),
            would.to_owned(),
            key,
            sanitize(&reason(&planned.decision, &names)).into_owned(),
        ]);
    }
    app.ui.print(table)?;
    app.ui.say(format_args!("hmvm: {}", totals(plan)));
    Ok(())
}

fn totals(plan: &Plan) -> String {
    let count = |wanted: &str| {
        let found = plan
            .order
            .iter()
            .filter(|id| word(&plan.steps[id.0].decision) == wanted);
        found.count()
    };
    let steps = u64::try_from(plan.order.len()).unwrap_or(u64::MAX);
    let elsewhere = plan
        .order
        .iter()
        .filter(|id| matches!(&plan.steps[id.0].decision, Decision::Hit(entry) if entry.elsewhere));
    let elsewhere = match elsewhere.count() {
        0 => String::new(),
        count => format!(" ({count} elsewhere)"),
    };
    format!(
        "{}: {} would run, {} cached{elsewhere}, {} skipped",
        human::plural(steps, "step"),
        count("run"),
        count("cached"),
        count("skip")
    )
}

fn document(plan: &Plan) -> Value {
    let names = step_names(plan);
    let name = |id: &StepId| names[id.0].clone();
    let steps: Vec<Value> = plan
        .order
        .iter()
        .map(|id| {
            let planned = &plan.steps[id.0];
            json!({
                "step": name(id),
                "decision": word(&planned.decision),
                "reason": reason(&planned.decision, &names),
                "elsewhere": matches!(&planned.decision, Decision::Hit(entry) if entry.elsewhere),
                "key": planned.key,
                "components": planned.components,
                "needs": plan.pipeline.step(*id).needs.iter().map(name).collect::<Vec<_>>(),
                "from": plan.parent(*id).as_ref().map(name),
            })
        })
        .collect();
    json!({ "schema": 1, "pipeline": plan.pipeline.name, "steps": steps })
}
