//! From a command's lines to the run's events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hm_pipeline::{RunEvent, RunEventSink, StepId};
use hm_vm::{Event, EventSink, OutputSink, Stream};

/// Passes the output and the phases of one step on.
pub(super) struct StepSink {
    pub(super) step: StepId,
    pub(super) events: Arc<dyn RunEventSink>,
    last: Mutex<VecDeque<String>>,
}

/// Lines that are looked at when a command fails, and how much of each.
const LAST_LINES: usize = 20;
const LONGEST_LAST: usize = 500;

impl StepSink {
    pub(super) fn new(step: StepId, events: Arc<dyn RunEventSink>) -> Self {
        Self {
            step,
            events,
            last: Mutex::default(),
        }
    }

    fn line(&self, stream: Stream, line: &str) {
        self.events.on_event(&RunEvent::StepOutput {
            step: self.step,
            stream,
            line: line.to_owned(),
        });
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = if last.len() == LAST_LINES {
            last.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        text.clear();
        // The room of the oldest line is used again: a line costs no allocation here.
        text.push_str(beginning(line));
        last.push_back(text);
    }

    /// Whether one of the last lines contains one of these.
    pub(super) fn said(&self, texts: &[&str]) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter()
            .any(|line| texts.iter().any(|text| line.contains(text)))
    }
}

/// The part of a line that is looked at.
fn beginning(line: &str) -> &str {
    let mut end = line.len().min(LONGEST_LAST);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

impl OutputSink for StepSink {
    fn on_stdout(&self, line: &str) {
        self.line(Stream::Stdout, line);
    }

    fn on_stderr(&self, line: &str) {
        self.line(Stream::Stderr, line);
    }
}

impl EventSink for StepSink {
    fn on_event(&self, event: &Event) {
        let event = match event {
            Event::Started(phase) => RunEvent::StepPhase {
                step: self.step,
                phase: *phase,
            },
            Event::Progress { phase, state } => RunEvent::StepProgress {
                step: self.step,
                phase: *phase,
                state: *state,
            },
            Event::Notice(text) => RunEvent::Notice {
                step: Some(self.step),
                text: text.clone(),
            },
            _ => return,
        };
        self.events.on_event(&event);
    }
}
