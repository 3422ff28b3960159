use clap::Args;
use hm_pipeline::plan::{LostEntry, PlanOptions};
use hm_pipeline::record::{FileChanges, RunHeader, RunStore, StepRecord, changed_files};
use hm_pipeline::{Decision, RunReason, StepId};
use hm_vm::{ComponentChange, ImageRegistry, KeyComponents};
use serde_json::json;

use crate::app::App;
use crate::backend::BackendArgs;
use crate::commands::plan::{self, Planned, reason, step_names};
use crate::commands::run::SettingArgs;
use crate::exit_codes;
use crate::failure::Problem;
use crate::names;
use crate::output::json;
use crate::output::sanitize::sanitize;
use crate::output::{Style, human};
use crate::remote_cache::RemoteCacheArgs;
use crate::run::{FileArgs, run_store};

/// Longest list of files that is shown without --all.
const FILES: usize = 20;

/// Tell why a step would run: what has changed since its last run, or what became of its result
///
/// With two arguments, tells in what two cached commands differ.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hmvm explain build
  build would run: not cached yet
  since its last run:
    cmd     make → make -j2
    inject  2 files
      changed  src/main.c
      added    src/new.c
  hmvm explain 3f2a81 9c01de
  cmd     make → make test
  env.CI  1 → absent")]
pub(crate) struct Explain {
    /// A step; or, with a second one, a key or the snapshot stored under it, which may be abbreviated
    #[arg(value_name = "STEP|KEY1")]
    old: String,
    /// The second key
    #[arg(value_name = "KEY2")]
    new: Option<String>,
    /// Exit with code 1 when the step would run, or the two differ
    #[arg(long)]
    exit_code: bool,
    /// List all files
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    shared: RemoteCacheArgs,
    #[command(flatten)]
    backend: BackendArgs,
}

/// What is known of a step.
struct Explanation {
    step: String,
    decision: Decision,
    why: String,
    /// Whether an earlier run of the step is on record.
    compared: bool,
    changes: Vec<ComponentChange>,
    /// By guest directory.
    files: Vec<(String, FileChanges)>,
}

impl Explain {
    pub(crate) fn run(&self, app: &App) -> anyhow::Result<u8> {
        let differs = match &self.new {
            Some(new) => self.keys(app, new)?,
            None => self.step(app)?,
        };
        Ok(if self.exit_code && differs {
            exit_codes::NEGATIVE
        } else {
            exit_codes::SUCCESS
        })
    }

    fn keys(&self, app: &App, new: &str) -> anyhow::Result<bool> {
        let registry = self.backend.look(app)?.registry(app)?;
        let (old_key, old) = components(&registry, &self.old)?;
        let (new_key, new) = components(&registry, new)?;
        let changes = old.diff(&new);
        if self.json {
            let document = json!({ "old": old_key, "new": new_key, "changes": changes });
            json::document(&document)?;
        } else if changes.is_empty() {
            app.ui.say("hmvm: no difference");
        } else {
            app.ui.print(table(&changes, "", app.ui.out_style()))?;
        }
        Ok(!changes.is_empty())
    }

    fn step(&self, app: &App) -> anyhow::Result<bool> {
        let options = PlanOptions {
            targets: vec![self.old.clone()],
            ..PlanOptions::default()
        };
        let planned = plan::make(
            app,
            &self.file,
            &self.settings,
            Some(&self.shared),
            &self.backend,
            &options,
        )?;
        let plan = &planned.plan;
        let named = |id: &&StepId| {
            let step = plan.pipeline.step(**id);
            step.name == self.old || step.group == self.old
        };
        let mut explanations = Vec::new();
        for id in plan.order.iter().filter(named) {
            explanations.push(explain(&planned, *id)?);
        }
        if self.json {
            let list: Vec<_> = explanations.iter().map(to_json).collect();
            json::document(&list)?;
        } else {
            for explanation in &explanations {
                app.ui.print(self.text(explanation, app.ui.out_style()))?;
            }
        }
        Ok(explanations
            .iter()
            .any(|explanation| matches!(explanation.decision, Decision::Run(_))))
    }

    fn text(&self, explanation: &Explanation, style: Style) -> String {
        let would = match explanation.decision {
            Decision::Hit(_) => "is cached",
            Decision::Run(_) => "would run",
            Decision::Skip(_) => "would be skipped",
        };
        let mut text = format!("{} {would}", style.bold(&sanitize(&explanation.step)));
        if !explanation.why.is_empty() {
            text.push_str(&format!(": {}", explanation.why));
        }
        text.push('\n');
        if !explanation.compared {
            return text;
        }
        if explanation.changes.is_empty() {
            text.push_str("since its last run, nothing of it has changed\n");
            return text;
        }
        text.push_str("since its last run:\n");
        text.push_str(&table(&explanation.changes, "  ", style));
        for (target, files) in &explanation.files {
            text.push_str(&format!("  files for {}\n", sanitize(target)));
            text.push_str(&self.file_list(files));
        }
        text
    }

    fn file_list(&self, files: &FileChanges) -> String {
        let lists = [
            ("changed", &files.changed),
            ("added  ", &files.added),
            ("removed", &files.removed),
        ];
        let lines: Vec<String> = lists
            .iter()
            .flat_map(|(what, paths)| {
                let line = move |path: &String| format!("    {what}  {}\n", sanitize(path));
                paths.iter().map(line)
            })
            .collect();
        let shown = if self.all { lines.len() } else { FILES };
        let mut text: String = lines.iter().take(shown).map(String::as_str).collect();
        if lines.len() > shown {
            let more = u64::try_from(lines.len() - shown).unwrap_or(u64::MAX);
            text.push_str(&format!(
                "    and {} more (--all)\n",
                human::plural(more, "file")
            ));
        }
        text
    }
}

fn explain(all: &Planned, id: StepId) -> anyhow::Result<Explanation> {
    let plan = &all.plan;
    let runs = run_store(&all.session.store)?;
    let identity = RunHeader::of(plan, &all.loaded.path, Vec::new()).identity;
    let planned = &plan.steps[id.0];
    let names = step_names(plan);
    let why = match &planned.decision {
        Decision::Run(RunReason::Lost(LostEntry { at, by })) => {
            let ago = human::ago(std::time::SystemTime::now(), *at);
            format!("its result is gone: {}, {ago}", sanitize(by))
        }
        decision => sanitize(&reason(decision, &names)).into_owned(),
    };
    let mut explanation = Explanation {
        step: plan.pipeline.step(id).name.clone(),
        decision: planned.decision.clone(),
        why,
        compared: false,
        changes: Vec::new(),
        files: Vec::new(),
    };
    let Some(new) = &planned.components else {
        return Ok(explanation);
    };
    let Some(old) = runs.previous_step(&identity, &explanation.step)? else {
        return Ok(explanation);
    };
    if let Some(components) = &old.components {
        explanation.compared = true;
        explanation.changes = components.diff(new);
        explanation.files = files(all, id, &runs, &old);
    }
    Ok(explanation)
}

/// The files that differ, for each inject that does and of which the earlier list is known.
fn files(
    all: &Planned,
    id: StepId,
    runs: &RunStore,
    old: &StepRecord,
) -> Vec<(String, FileChanges)> {
    let mut found = Vec::new();
    for inject in &all.plan.steps[id.0].injects {
        let before = old.injects.iter().find(|old| old.target == inject.target);
        let digest = before.and_then(|old| old.digest.as_ref());
        let Some(digest) = digest.filter(|digest| inject.digest.as_ref() != Some(digest)) else {
            continue;
        };
        let backend = all.session.engine.backend();
        let now = all.runtime.block_on(backend.inject_entries(&inject.source));
        if let (Ok(Some(before)), Ok(now)) = (runs.load_manifest(digest), now) {
            found.push((inject.target.clone(), changed_files(&before, &now)));
        }
    }
    found
}

fn table(changes: &[ComponentChange], indent: &str, style: Style) -> String {
    let width = changes
        .iter()
        .map(|change| change.component.chars().count())
        .max();
    let width = width.unwrap_or_default();
    let value = |value: &Option<String>| {
        value
            .as_deref()
            .map_or_else(|| style.dim("absent"), |value| sanitize(value).into_owned())
    };
    let mut text = String::new();
    for change in changes {
        let name = sanitize(&change.component);
        text.push_str(&format!(
            "{indent}{}{:pad$}  {} → {}\n",
            style.bold(&name),
            "",
            value(&change.old),
            value(&change.new),
            pad = width.saturating_sub(name.chars().count()),
        ));
    }
    text
}

fn to_json(explanation: &Explanation) -> serde_json::Value {
    let files: Vec<_> = explanation
        .files
        .iter()
        .map(|(target, files)| {
            json!({
                "target": target,
                "added": files.added,
                "changed": files.changed,
                "removed": files.removed,
            })
        })
        .collect();
    json!({
        "step": explanation.step,
        "decision": plan::word(&explanation.decision),
        "reason": explanation.why,
        "compared": explanation.compared,
        "changes": explanation.changes,
        "files": files,
    })
}

fn components(registry: &ImageRegistry, text: &str) -> anyhow::Result<(String, KeyComponents)> {
    let entry = names::entry(registry, text)?;
    let components = registry.components(&entry.key)?.ok_or_else(|| {
        Problem::new(format!(
            "nothing is known of what key {} was made from",
            names::short_key(&entry.key)
        ))
        .hint("only keys of --cache auto derive from parts that can be compared")
    })?;
    Ok((entry.key, components))
}
