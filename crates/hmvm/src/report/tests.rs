//! The text of a small run in each view, and what the views' tests share.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hm_pipeline::event::StepDetail;
use hm_pipeline::pipeline::StepBase;
use hm_pipeline::{
    Decision, Pipeline, Plan, PlannedStep, RunEvent, RunEventSink as _, RunReason, SkipReason,
    Step, StepId, StepOutcome, StepResult, Verdict,
};
use hm_vm::{Phase, SnapshotId, Stream};

use super::json::Json;
use super::plain::Plain;
use super::queue::{Outlet, Queue};
use super::start::{Lines, Mode, Report};
use super::tally::Facts;
use crate::output::Style;

/// Standard output and standard error in memory.
#[derive(Default)]
pub(super) struct Memory {
    parts: Mutex<Vec<(Stream, Vec<u8>)>>,
    closed: AtomicBool,
}

impl Memory {
    /// What was written to one of them.
    pub(super) fn text(&self, of: Stream) -> String {
        let parts = self.parts.lock().expect("no panic");
        let bytes = parts.iter().filter(|(stream, _)| *stream == of);
        let bytes = bytes.flat_map(|(_, bytes)| bytes.iter().copied());
        String::from_utf8(bytes.collect()).expect("UTF-8")
    }

    /// What was written, in order.
    pub(super) fn all(&self) -> String {
        let parts = self.parts.lock().expect("no panic");
        let bytes = parts.iter().flat_map(|(_, bytes)| bytes.iter().copied());
        String::from_utf8(bytes.collect()).expect("UTF-8")
    }
}

impl Outlet for Memory {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut parts = self.parts.lock().expect("no panic");
        parts.push((stream, bytes.to_vec()));
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn take_error(&self) -> Option<io::Error> {
        None
    }
}

/// Run 7 of a pipeline `demo` with these steps, all of which run.
pub(super) fn facts(names: &[&str]) -> Facts {
    let planned = PlannedStep {
        selected: true,
        key: None,
        components: None,
        injects: Vec::new(),
        decision: Decision::Run(RunReason::NoEntry),
    };
    let pipeline = Pipeline {
        name: "demo".into(),
        directory: PathBuf::from("/project"),
        backend: None,
        timeout: None,
        parallelism: None,
        changed_since: None,
        remote_cache: None,
        steps: names.iter().map(|name| step(name)).collect(),
    };
    let plan = Plan {
        steps: vec![planned; names.len()],
        order: pipeline.ids().collect(),
        pipeline,
    };
    Facts::new(Arc::new(plan), 7, "/store/runs/7".into())
}

fn step(name: &str) -> Step {
    Step::new(name, StepBase::Image("host".into()), "true")
}

/// A step that took 1.5 s.
pub(super) fn result(outcome: StepOutcome, attempt: u32) -> StepResult {
    StepResult {
        outcome,
        allowed: false,
        took: Duration::from_millis(1500),
        attempt,
        detail: StepDetail::default(),
    }
}

fn output(step: usize, line: &str) -> RunEvent {
    RunEvent::StepOutput {
        step: StepId(step),
        stream: Stream::Stdout,
        line: line.into(),
    }
}

/// A run with a step that is cached, one that runs, one that fails and one that is skipped.
fn small_run() -> Vec<RunEvent> {
    let started = |step| RunEvent::StepStarted {
        step: StepId(step),
        attempt: 1,
    };
    let ended = |step, result| RunEvent::StepEnded {
        step: StepId(step),
        result: Box::new(result),
    };
    let mut cached = result(StepOutcome::Cached, 1);
    cached.detail.saved = Some(Duration::from_secs(130));
    let mut failed = result(StepOutcome::Failed { exit_code: 2 }, 1);
    failed.detail.log = Some("/store/runs/7/2.log".into());
    failed.detail.kept = Some(SnapshotId::new("abc"));
    let skipped = StepOutcome::Skipped(SkipReason::Dependency(StepId(2)));
    vec![
        RunEvent::RunStarted {
            parallelism: 2,
            steps: 4,
        },
        started(0),
        output(0, "from the cache"),
        ended(0, cached),
        started(1),
        RunEvent::StepPhase {
            step: StepId(1),
            phase: Phase::Create,
        },
        output(1, "gcc -c \u{1b}[31mx.c"),
        RunEvent::Notice {
            step: Some(StepId(1)),
            text: "weak\u{1b}[2J".into(),
        },
        ended(1, result(StepOutcome::Succeeded, 1)),
        started(2),
        output(2, "no!\u{9b}2J"),
        ended(2, failed),
        ended(3, result(skipped, 0)),
        RunEvent::RunEnded {
            verdict: Verdict::Failed {
                step: StepId(2),
                exit_code: 2,
            },
            took: Duration::from_millis(4100),
        },
    ]
}

fn small_facts() -> Facts {
    facts(&["deps", "build", "test[os=a]", "pack"])
}

fn lines(is_terminal: bool) -> Lines {
    Lines {
        out: Style::plain(),
        err: Style::plain(),
        is_terminal,
    }
}

/// What a view writes during a run.
fn shown(
    events: &[RunEvent],
    view: impl FnOnce(Queue) -> Box<dyn super::start::View>,
) -> Arc<Memory> {
    let memory = Arc::new(Memory::default());
    let report = Report::of(view(Queue::new(memory.clone()).expect("a thread")));
    for event in events {
        report.on_event(event);
    }
    report.finish().expect("nothing fails");
    memory
}

#[test]
fn a_view_is_chosen() {
    assert_eq!(Mode::choose(true, true, true), Mode::Json);
    assert_eq!(Mode::choose(false, true, true), Mode::Quiet);
    assert_eq!(Mode::choose(false, false, true), Mode::Live);
    assert_eq!(Mode::choose(false, false, false), Mode::Plain);
}

#[test]
fn plain_lines() {
    let memory = shown(&small_run(), |queue| {
        Box::new(Plain::new(small_facts(), queue, lines(false)))
    });
    assert_eq!(
        memory.text(Stream::Stdout),
        "deps       | from the cache\n\
         build      | gcc -c \u{1b}[31mx.c\n\
         test[os=a] | no!\u{9b}2J\n"
    );
    assert_eq!(
        memory.text(Stream::Stderr),
        "run 7 of demo: 4 steps, up to 2 at once
deps: runs (not cached yet)
deps: cached, saved 2 min 10 s
build: runs (not cached yet)
build: note: weak\\u{1b}[2J
build: ran in 1.5 s
test[os=a]: runs (not cached yet)
test[os=a]: failed with exit code 2 after 1.5 s
  log:   /store/runs/7/2.log (hmvm logs 7 'test[os=a]')
  shell: hmvm shell --failed '7/test[os=a]'
pack: skipped: test[os=a] did not end well

STEP        RESULT                                 TIME
deps        cached, saved 2 min 10 s                  -
build       ran                                   1.5 s
test[os=a]  failed with exit code 2               1.5 s
pack        skipped: test[os=a] did not end well      -

4 steps: 1 ran, 1 cached (saved 2 min 10 s), 1 failed, 1 skipped, in 4.1 s
run 7 of demo failed: test[os=a] ended with exit code 2
"
    );
}

#[test]
fn a_terminal_gets_no_control_characters() {
    let memory = shown(&small_run(), |queue| {
        Box::new(Plain::new(small_facts(), queue, lines(true)))
    });
    let text = memory.text(Stream::Stdout);
    assert!(text.contains("gcc -c \u{1b}[31mx.c\u{1b}[0m\n"), "{text:?}");
    assert!(text.contains("no!\\u{9b}2J\n"), "{text:?}");
}

#[test]
fn last_lines_that_others_have_pushed_away_are_shown_again() {
    let mut events = vec![output(2, "the reason")];
    events.extend((0..100).map(|number| output(1, &format!("noise {number}"))));
    events.push(RunEvent::StepEnded {
        step: StepId(2),
        result: Box::new(result(StepOutcome::Failed { exit_code: 1 }, 1)),
    });
    let memory = shown(&events, |queue| {
        Box::new(Plain::new(small_facts(), queue, lines(false)))
    });
    let text = memory.text(Stream::Stderr);
    assert!(
        text.contains("  its last 1 line:\n    the reason\n"),
        "{text}"
    );
}

#[test]
fn quiet_tells_of_failures_alone() {
    let memory = shown(&small_run(), |queue| {
        Box::new(Plain::quiet(small_facts(), queue, Style::plain()))
    });
    assert_eq!(
        memory.all(),
        "test[os=a]: failed with exit code 2 after 1.5 s
  its last 1 line:
    no!\\u{9b}2J
  log:   /store/runs/7/2.log (hmvm logs 7 'test[os=a]')
  shell: hmvm shell --failed '7/test[os=a]'
"
    );
}

#[test]
fn json_lines() {
    let memory = shown(&small_run(), |queue| {
        Box::new(Json::new(small_facts(), queue))
    });
    let text = memory.all();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"event":"run_started","schema":1,"run":7,"pipeline":"demo","steps":4,"parallelism":2,"log_directory":"/store/runs/7"}"#
    );
    assert_eq!(
        lines[2],
        r#"{"event":"output","step":"deps","stream":"stdout","line":"from the cache"}"#
    );
    assert_eq!(
        lines[3],
        r#"{"event":"step_ended","step":"deps","outcome":"cached","exit_code":0,"cached":true,"took_ms":1500.0,"saved_ms":130000.0,"fetched_bytes":null,"attempt":1,"key":null,"snapshot":null,"kept":null,"log":null,"reason":null,"because":null,"hint":null,"allowed":false,"output_files":0}"#
    );
    assert_eq!(
        lines[10],
        r#"{"event":"output","step":"test[os=a]","stream":"stdout","line":"no!\u009b2J"}"#
    );
    assert_eq!(
        lines[13],
        r#"{"event":"run_ended","verdict":"failed","step":"test[os=a]","exit_code":2,"took_ms":4100.0,"counts":{"succeeded":1,"cached":1,"failed":1,"timed_out":0,"cancelled":0,"skipped":1,"broken":0},"saved_ms":130000.0}"#
    );
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    }
}

#[test]
fn a_reader_who_is_gone_ends_the_report() {
    let memory = Arc::new(Memory::default());
    memory.closed.store(true, Ordering::Relaxed);
    let queue = Queue::new(memory.clone()).expect("a thread");
    let report = Report::of(Box::new(Plain::new(small_facts(), queue, lines(false))));
    report.on_event(&output(0, "unseen"));
    assert!(report.closed());
    assert!(report.finish().is_err());
    assert_eq!(memory.text(Stream::Stdout), "");
}
