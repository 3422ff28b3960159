//! Running the command of an action, and recording its output.

use std::time::Duration;

use anyhow::Result;
use hm_vm_core::{CancelCause, Cancellation, Error, ExecOutcome, ExecRequest, OutputSink, Phase};

use super::execute::Execution;
use super::guard::LiveVm;
use super::phases::cancelled;
use crate::output::{Destination, RecordedOutput, Recorder};

/// Time that a backend has for ending a stopped command, after the grace period, before the engine
/// drops the call. Rule V13 makes this needless; a backend that hangs must not hang its callers.
const ABANDON_AFTER: Duration = Duration::from_secs(30);

impl Execution<'_> {
    /// Prepares what is to be prepared, and runs the command.
    pub(super) async fn exec(
        &mut self,
        vm: &mut LiveVm,
        key: Option<&str>,
    ) -> Result<(ExecOutcome, Option<RecordedOutput>)> {
        let Some(preparation) = self.options.preparation.as_deref() else {
            return self.exec_prepared(vm, key).await;
        };
        let prepared = self
            .phases
            .run_or_cancel(Phase::Prepare, preparation.prepare());
        let outcome = match prepared.await {
            Ok(prepared) => match self.setup.add(self.options, prepared) {
                Ok(()) => self.exec_prepared(vm, key).await,
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        preparation.finish().await;
        outcome
    }

    /// Runs the command; with a key or a log, records its output.
    async fn exec_prepared(
        &mut self,
        vm: &mut LiveVm,
        key: Option<&str>,
    ) -> Result<(ExecOutcome, Option<RecordedOutput>)> {
        let to = Destination {
            stored: key.map(|key| (self.engine.registry.logs(), key)),
            shown: self.options.log.as_deref(),
        };
        let mask = self.setup.mask.clone();
        if to.is_nowhere() && mask.is_none() {
            return Ok((self.exec_to(vm, self.sink, None).await?, None));
        }
        let recorder = Recorder::new(to, mask.as_ref(), self.sink);
        // Nobody else reads a log that has no name yet.
        let read_meanwhile = to.shown.is_some().then_some(&recorder);
        let outcome = self.exec_to(vm, &recorder, read_meanwhile).await;
        recorder.flush();
        let (mut output, problems) = recorder.finish();
        for problem in problems {
            self.phases.notice(|| problem);
        }
        let outcome = outcome?;
        if outcome.exit_code == 0 && output.needs_copy() {
            output = self.copy(output).await?;
        }
        Ok((outcome, Some(output)))
    }

    async fn copy(&mut self, mut output: RecordedOutput) -> Result<RecordedOutput> {
        let (output, copied) = tokio::task::spawn_blocking(move || {
            let copied = output.copy();
            (output, copied)
        })
        .await?;
        if let Err(error) = copied {
            self.phases
                .notice(|| format!("the output of this command cannot be stored: {error}"));
        }
        Ok(output)
    }

    /// Runs the command until it ends, its time is over, or the execution is cancelled.
    async fn exec_to(
        &mut self,
        vm: &mut LiveVm,
        sink: &dyn OutputSink,
        recorder: Option<&Recorder<'_>>,
    ) -> Result<ExecOutcome> {
        let stop = Cancellation::new();
        let request = ExecRequest {
            env: &self.setup.env,
            working_dir: &self.action.working_dir,
            grace: self.options.grace,
            user: self.options.user.as_deref(),
            mounts: &self.setup.mounts,
            network: self.setup.network.as_ref(),
            ..ExecRequest::new(&self.action.cmd, &stop)
        };
        let exec = vm.get()?.exec_with(&request, sink);
        let watch = stop_in_time(
            &stop,
            self.phases.cancel(),
            self.action.timeout,
            self.options.grace,
        );
        let flush = async {
            match recorder {
                Some(recorder) => recorder.flush_now_and_then().await,
                None => std::future::pending().await,
            }
        };
        let outcome = self
            .phases
            .run(Phase::Exec, async {
                tokio::select! {
                    biased;
                    outcome = exec => Some(outcome),
                    () = watch => None,
                    never = flush => match never {},
                }
            })
            .await;
        let Some(cause) = stop.cause() else {
            return outcome.unwrap_or_else(|| Err(anyhow::anyhow!("the command was abandoned")));
        };
        // Stopped is stopped, even if the command then ended well: its work may be half done.
        let error = Error::from(cause);
        match outcome {
            None => self
                .phases
                .notice(|| "the backend did not end the command: it was abandoned".into()),
            Some(Err(other)) if other.downcast_ref() != Some(&error) => self
                .phases
                .notice(|| format!("while the command was being stopped: {other:#}")),
            Some(_) => {}
        }
        Err(error.into())
    }
}

/// Triggers `stop` when the time is over or `cancel` is triggered, and passes a kill on. Returns
/// when the command should long have been dead; never, if nothing stops it.
async fn stop_in_time(
    stop: &Cancellation,
    cancel: Option<&Cancellation>,
    timeout: Option<Duration>,
    grace: Duration,
) {
    let over = async {
        match timeout {
            Some(limit) => {
                tokio::time::sleep(limit).await;
                CancelCause::Timeout(limit)
            }
            None => std::future::pending().await,
        }
    };
    let cause = tokio::select! {
        biased;
        cause = cancelled(cancel) => cause,
        cause = over => cause,
    };
    stop.cancel(cause.clone());
    let killed = async {
        match cancel {
            Some(cancel) => cancel.killed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = killed => stop.kill(cause),
        () = tokio::time::sleep(grace) => {}
    }
    tokio::time::sleep(ABANDON_AFTER).await;
}
