//! What the live view draws, on a terminal in memory.

use std::io::Write;

use hm_pipeline::{SkipReason, StepOutcome};
use hm_vm::{CancelCause, SnapshotId, Stream};
use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike as _};

use super::screen::Size;
use super::*;
use crate::report::tests::{facts, result};

const SIZE: Size = Size {
    rows: 30,
    columns: 60,
};

fn shared(names: &[&str], utf8: bool) -> Shared {
    Shared::new(facts(names), Cancellation::new(), Style::plain(), utf8)
}

/// The terminal, for text with line ends.
struct Lines(InMemoryTerm);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).expect("UTF-8");
        self.0.write_str(&text.replace('\n', "\r\n"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A screen, and the terminal that it draws on.
fn screen(size: Size) -> (Screen, InMemoryTerm) {
    let narrow = |number: usize| u16::try_from(number).expect("a small number");
    let terminal = InMemoryTerm::new(narrow(size.rows), narrow(size.columns));
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
    let out = Box::new(Lines(terminal.clone()));
    let screen = Screen::new(target, out, Box::new(move || size));
    (screen, terminal)
}

fn start(shared: &Shared, step: usize) {
    shared.take(&RunEvent::StepStarted {
        step: StepId(step),
        attempt: 1,
    });
}

fn line(shared: &Shared, step: usize, line: &str) {
    shared.take(&RunEvent::StepOutput {
        step: StepId(step),
        stream: Stream::Stdout,
        line: line.into(),
    });
}

fn end(shared: &Shared, step: usize, result: StepResult) {
    shared.take(&RunEvent::StepEnded {
        step: StepId(step),
        result: Box::new(result),
    });
}

#[test]
fn running_steps_have_a_line_each_and_ended_ones_stay() {
    let shared = shared(&["deps", "build", "lint"], true);
    let (mut screen, terminal) = screen(SIZE);
    shared.take(&RunEvent::RunStarted {
        parallelism: 2,
        steps: 3,
    });
    let mut cached = result(StepOutcome::Cached, 1);
    cached.detail.saved = Some(Duration::from_millis(3400));
    start(&shared, 0);
    end(&shared, 0, cached);
    start(&shared, 1);
    start(&shared, 2);
    shared.take(&RunEvent::StepPhase {
        step: StepId(2),
        phase: Phase::Inject,
    });
    line(
        &shared,
        1,
        &format!("\u{1b}[2J{}", "gcc -c main.c ".repeat(9)),
    );
    // A time that is the same whenever the test runs.
    for running in shared.state().running.values_mut() {
        running.since = Instant::now() + Duration::from_secs(60);
    }
    shared.state().since = Instant::now() + Duration::from_secs(60);
    shared.draw(&mut screen);
    assert_eq!(
        terminal.contents(),
        "● deps cached, saved 3.4 s\n\
         ⠋ build   0.0 s  \\u{1b}[2Jgcc -c main.c gcc -c main.c gcc …\n\
         ⠋ lint    0.0 s  inject\n\
         1/3 done, 1 cached, 2 running, 0.0 s"
    );
    shared.cancel.cancel(CancelCause::User);
    shared.draw(&mut screen);
    assert!(terminal.contents().ends_with("2 running, 0.0 s, stopping"));
    screen.clear();
    assert_eq!(terminal.contents(), "● deps cached, saved 3.4 s");
}

#[test]
fn a_long_phase_shows_how_far_it_is() {
    let shared = shared(&["build"], true);
    start(&shared, 0);
    let phase = |phase| {
        shared.take(&RunEvent::StepPhase {
            step: StepId(0),
            phase,
        });
        let running = shared.state().running[&StepId(0)];
        shared.doing(StepId(0), running)
    };
    assert_eq!(phase(Phase::Inject), "inject");
    shared.take(&RunEvent::StepProgress {
        step: StepId(0),
        phase: Phase::Inject,
        state: ProgressState {
            done: 4200,
            total: Some(10_000),
            ..ProgressState::default()
        },
    });
    let running = shared.state().running[&StepId(0)];
    let doing = shared.doing(StepId(0), running);
    assert_eq!(doing, "inject 4,200/10,000 files");
    assert_eq!(phase(Phase::Snapshot), "snapshot");
}

#[test]
fn a_failure_shows_where_to_look() {
    let shared = shared(&["test"], false);
    let (mut screen, terminal) = screen(Size {
        columns: 80,
        ..SIZE
    });
    start(&shared, 0);
    for number in 0..25 {
        line(&shared, 0, &format!("line {number}"));
    }
    let mut failed = result(StepOutcome::Failed { exit_code: 2 }, 1);
    failed.detail.log = Some("/store/runs/7/0.log".into());
    failed.detail.kept = Some(SnapshotId::new("abc"));
    end(&shared, 0, failed);
    shared.draw(&mut screen);
    screen.clear();
    let text = terminal.contents();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "x test failed with exit code 2 after 1.5 s");
    assert_eq!(lines[1], "  its last 20 lines:");
    assert_eq!((lines[2], lines[21]), ("    line 5", "    line 24"));
    assert_eq!(
        &lines[22..],
        [
            "  log:   /store/runs/7/0.log (hmvm logs 7 test)",
            "  shell: hmvm shell --failed 7/test",
        ]
    );
}

#[test]
fn many_cached_steps_are_one_line() {
    let names: Vec<String> = (0..1000).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let shared = shared(&names, true);
    let (mut screen, terminal) = screen(SIZE);
    for step in 0..1000 {
        start(&shared, step);
        let outcome = match step {
            0 => StepOutcome::Succeeded,
            999 => StepOutcome::Skipped(SkipReason::Condition),
            _ => StepOutcome::Cached,
        };
        end(&shared, step, result(outcome, 1));
    }
    shared.draw(&mut screen);
    screen.clear();
    assert_eq!(
        terminal.contents(),
        "✓ s0 ran in 1.5 s\n● 998 steps cached\n○ s999 skipped: its condition does not hold"
    );
}

#[test]
fn more_running_steps_than_the_terminal_has_lines() {
    let shared = shared(&["a", "b", "c", "d", "e"], true);
    let (mut screen, terminal) = screen(Size {
        rows: 6,
        columns: 40,
    });
    for step in 0..5 {
        start(&shared, step);
    }
    shared.draw(&mut screen);
    let text = terminal.contents();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("… 3 more"), "{text}");
}

#[test]
fn the_thread_draws_and_ends() {
    let (screen, terminal) = screen(SIZE);
    let live = Live::on(
        screen,
        facts(&["a"]),
        Cancellation::new(),
        Style::plain(),
        true,
    );
    let live = live.expect("a thread");
    live.shared.say("note: beside\n");
    start(&live.shared, 0);
    end(&live.shared, 0, result(StepOutcome::Succeeded, 1));
    live.on_event(&RunEvent::RunEnded {
        verdict: Verdict::Succeeded,
        took: Duration::from_secs(2),
    });
    live.finish();
    live.finish();
    assert_eq!(
        terminal.contents(),
        "note: beside\n✓ a ran in 1.5 s\n\n\
         STEP  RESULT   TIME\n\
         a     ran     1.5 s\n\n\
         1 step: 1 ran, in 2 s\nrun 7 of demo succeeded"
    );
}
