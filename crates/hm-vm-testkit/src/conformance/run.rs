//! Running checks and reporting on them.

use std::fmt;

use anyhow::anyhow;

use super::check::{CHECKS, Check};
use super::context::{Context, NoVerdict};
use super::harness::Harness;
use super::rules;
use crate::skip::Skip;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend keeps the rules.
    Passed,
    /// It is about something that the backend does not declare.
    NotApplicable(String),
    /// The guest or this machine lacks what the check needs.
    Skipped(String),
    /// The backend breaks a rule: which one, and what was seen.
    Failed(String),
}

/// Outcomes of a whole suite, in the order of [`CHECKS`].
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Name of each check and its outcome.
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Checks that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
            .map(|(name, _)| *name)
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.outcomes {
            match outcome {
                Outcome::Passed => writeln!(f, "passed  {name}")?,
                Outcome::NotApplicable(reason) => writeln!(f, "-       {name}: {reason}")?,
                Outcome::Skipped(reason) => writeln!(f, "SKIPPED {name}: {reason}")?,
                Outcome::Failed(reason) => writeln!(f, "FAILED  {name}: {reason}")?,
            }
        }
        Ok(())
    }
}

/// Runs one check on a root of its own.
pub async fn run_check(check: &Check, harness: &dyn Harness) -> Outcome {
    if harness.shell() < check.shell {
        return Outcome::NotApplicable("needs a real shell".into());
    }
    let context = Context::new(harness).await;
    let work = async {
        (check.run)(&context).await?;
        context.finish().await
    };
    let patience = context.scale.patience;
    let result = tokio::time::timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no end after {} s", patience.as_secs())));
    let Err(error) = result else {
        return Outcome::Passed;
    };
    match error.downcast_ref::<NoVerdict>() {
        Some(NoVerdict::NotApplicable(reason)) => Outcome::NotApplicable(reason.clone()),
        Some(NoVerdict::Skipped(reason)) => Outcome::Skipped(reason.clone()),
        None => Outcome::Failed(format!(
            "{error:#}\nrules:{}\n{}",
            rules::texts(check.rules),
            context.state().await
        )),
    }
}

/// Runs the whole suite, one check after another.
///
/// # Errors
///
/// The first [`Skip`] of the factory.
pub async fn run_all<H: Harness>(
    factory: impl AsyncFn() -> Result<H, Skip>,
) -> Result<Report, Skip> {
    let mut report = Report::default();
    for check in CHECKS {
        let harness = factory().await?;
        report
            .outcomes
            .push((check.name, run_check(check, &harness).await));
    }
    Ok(report)
}

/// Runs one check as a test. Called by [`conformance_tests!`](crate::conformance_tests).
///
/// # Panics
///
/// When the check fails, has no such name, or cannot run though `HMVM_TEST_REQUIRE_ALL=1`.
#[expect(clippy::print_stderr, reason = "what does not run must be visible")]
pub fn run_test<H: Harness>(name: &str, factory: impl AsyncFnOnce() -> Result<H, Skip>) {
    let Some(check) = CHECKS.iter().find(|check| check.name == name) else {
        panic!("no check is called {name}");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| panic!("starting a runtime: {error}"));
    let outcome = runtime.block_on(async {
        let harness = match factory().await {
            Ok(harness) => harness,
            Err(skip) => return Outcome::Skipped(skip.to_string()),
        };
        run_check(check, &harness).await
    });
    match outcome {
        Outcome::Passed => {}
        Outcome::NotApplicable(reason) => eprintln!("NOT APPLICABLE: {name}: {reason}"),
        Outcome::Skipped(reason) => Skip::new(format!("{name}: {reason}")).report(),
        Outcome::Failed(reason) => panic!("{name}: {reason}"),
    }
}
