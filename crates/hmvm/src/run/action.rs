//! A step as the engine takes it.

use hm_pipeline::Step;
use hm_pipeline::pipeline::CacheMode;
use hm_pipeline::plan::{Decision, PlannedStep, RunReason};
use hm_vm::{Action, CachingPolicy, ExecuteOptions, ImageSource};

use super::keys::StepKey;
use super::services;
use crate::failure::Problem;
use crate::input::quote;

/// Longest command that another shell than the guest's `sh` can be given: it is one argument.
const LONGEST_FOR_SHELL: usize = 100 * 1024;

/// The command and where it runs.
pub(super) fn action(step: &Step, source: ImageSource) -> Result<Action, Problem> {
    Ok(Action {
        source,
        cmd: command(step)?,
        env: step.env.clone().into_iter().collect(),
        working_dir: step.working_dir.clone(),
        timeout: step.timeout,
        inject: None,
    })
}

fn command(step: &Step) -> Result<String, Problem> {
    let Some(shell) = &step.shell else {
        return Ok(step.run.clone());
    };
    if step.run.len() > LONGEST_FOR_SHELL {
        return Err(Problem::new(format!(
            "the command of {} has {} bytes; with a shell of its own it may have {LONGEST_FOR_SHELL}",
            step.name,
            step.run.len()
        ))
        .hint("put it into a file, and inject that"));
    }
    // One process: the guest's `sh` becomes the other shell.
    Ok(format!("exec {shell} -c {}", quote::quote(&step.run)))
}

/// Whether the engine caches the step.
pub(super) fn policy(key: &StepKey) -> CachingPolicy {
    match &key.key {
        Some(key) => CachingPolicy::Cache { key: key.clone() },
        None => CachingPolicy::None,
    }
}

/// What follows from the step and its plan alone.
pub(super) fn options(step: &Step, planned: &PlannedStep, key: &StepKey) -> ExecuteOptions {
    let hit = matches!(planned.decision, Decision::Hit(_));
    ExecuteOptions {
        config: Some(services::config(step.limits, step.network)),
        injects: planned
            .injects
            .iter()
            .map(|inject| (inject.source.clone(), inject.target.clone()))
            .collect(),
        inject_digests: key.inject_digests.clone(),
        user: step.user.clone(),
        components: match step.cache.mode {
            CacheMode::Auto => key.components.clone(),
            CacheMode::Off | CacheMode::Key(_) => None,
        },
        keep_failed: true,
        refresh: planned.decision == Decision::Run(RunReason::Asked),
        max_age: step.cache.ttl,
        // A hit is one by the plan, which has looked at the parents.
        same_parent: !hit,
        ..ExecuteOptions::default()
    }
}
