//! The end of a run is told last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hm_pipeline::{RunEvent, RunEventSink};

/// Passes events on, but for the last one, which waits: after the steps, results are shared with other machines.
pub(super) struct HeldEnd {
    events: Arc<dyn RunEventSink>,
    end: Mutex<Option<RunEvent>>,
}

impl HeldEnd {
    pub(super) fn new(events: Arc<dyn RunEventSink>) -> Self {
        Self {
            events,
            end: Mutex::default(),
        }
    }

    /// Tells the end, if it has come. A second call does nothing.
    pub(super) fn release(&self) {
        let end = self.end().take();
        if let Some(end) = end {
            self.events.on_event(&end);
        }
    }

    fn end(&self) -> MutexGuard<'_, Option<RunEvent>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunEventSink for HeldEnd {
    fn on_event(&self, event: &RunEvent) {
        if matches!(event, RunEvent::RunEnded { .. }) {
            *self.end() = Some(event.clone());
        } else {
            self.events.on_event(event);
        }
    }
}
