//! The clock, the events and the cancellation of one execution.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use hm_vm_core::{CancelCause, Cancellation, Error, Event, EventSink, Phase, PhaseTimes};
use tracing::Instrument;

use super::ExecuteOptions;

/// Watches over one execution.
pub(super) struct Phases<'a> {
    events: Option<&'a Arc<dyn EventSink>>,
    cancel: Option<&'a Cancellation>,
    times: PhaseTimes,
}

/// A phase that has begun.
#[must_use]
pub(super) struct Begun {
    phase: Phase,
    start: Instant,
}

impl<'a> Phases<'a> {
    pub(super) fn new(options: &'a ExecuteOptions) -> Self {
        Self {
            events: options.events.as_ref(),
            cancel: options.cancel.as_ref(),
            times: PhaseTimes::default(),
        }
    }

    pub(super) fn begin(&self, phase: Phase) -> Begun {
        self.tell(|| Event::Started(phase));
        Begun {
            phase,
            start: Instant::now(),
        }
    }

    pub(super) fn end(&mut self, begun: Begun) {
        let Begun { phase, start } = begun;
        let took = start.elapsed();
        self.times.push(phase, took);
        self.tell(|| Event::Ended { phase, took });
    }

    /// Runs a phase to its end.
    pub(super) async fn run<T>(&mut self, phase: Phase, work: impl Future<Output = T>) -> T {
        let begun = self.begin(phase);
        let span = tracing::debug_span!("phase", name = phase.name());
        let value = work.instrument(span).await;
        self.end(begun);
        value
    }

    /// Runs a phase, and drops its future when the execution is cancelled.
    pub(super) async fn run_or_cancel<T>(
        &mut self,
        phase: Phase,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let cancel = self.cancel;
        self.run(phase, or_cancel(cancel, work)).await
    }

    pub(super) fn events(&self) -> Option<&'a Arc<dyn EventSink>> {
        self.events
    }

    pub(super) fn cancel(&self) -> Option<&'a Cancellation> {
        self.cancel
    }

    /// Fails when the execution is cancelled.
    pub(super) fn check(&self) -> Result<()> {
        Ok(self.cancel.map_or(Ok(()), Cancellation::check)?)
    }

    /// Tells the user something that does not stop the execution. Who takes events gets it as one,
    /// and not as a warning in the log as well.
    pub(super) fn notice(&self, text: impl FnOnce() -> String) {
        let text = text();
        if self.events.is_some() {
            tracing::debug!("{text}");
        } else {
            tracing::warn!("{text}");
        }
        self.tell(|| Event::Notice(text));
    }

    /// The times so far. The execution ends with this.
    pub(super) fn take_times(&mut self) -> PhaseTimes {
        std::mem::take(&mut self.times)
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = self.events {
            events.on_event(&event());
        }
    }
}

/// Runs `work`, and drops it when cancelled.
pub(super) async fn or_cancel<T>(
    cancel: Option<&Cancellation>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        cause = cancelled(cancel) => Err(Error::from(cause).into()),
        done = work => done,
    }
}

/// Waits for a cancellation; for ever without a token.
pub(super) async fn cancelled(cancel: Option<&Cancellation>) -> CancelCause {
    match cancel {
        Some(cancel) => cancel.cancelled().await,
        None => std::future::pending().await,
    }
}
