//! A bar that shows how far one piece of work is.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use hm_vm::{Progress, ProgressState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{Ui, human};

/// What is quicker than this gets no bar.
const QUICK: Duration = Duration::from_millis(300);

/// Time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);

/// Does `work`, and draws how far it is on standard error if that is a terminal. The bar is gone afterwards.
pub(crate) fn during<T>(ui: &Ui, progress: &Progress, work: impl FnOnce() -> T) -> T {
    if !ui.draws() {
        return work();
    }
    during_on(ProgressDrawTarget::stderr(), progress, work)
}

fn during_on<T>(target: ProgressDrawTarget, progress: &Progress, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        // Dropped when the work is over, or panics: that wakes the artist.
        let (working, over) = mpsc::channel::<()>();
        scope.spawn(move || {
            if over.recv_timeout(QUICK) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::with_draw_target(None, target);
            loop {
                show(&bar, progress.now());
                if over.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            bar.finish_and_clear();
        });
        let value = work();
        drop(working);
        value
    })
}

fn show(bar: &ProgressBar, state: ProgressState) {
    let template = if state.total.is_some() {
        "[{bar:30}] {msg}"
    } else {
        "{spinner} {msg}"
    };
    // The text is ours; it is not one of the user's that could be wrong.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if let Some(total) = state.total {
        bar.set_length(total);
    }
    bar.set_message(human::progress(state));
    bar.set_position(state.done);
    bar.tick();
}

#[cfg(test)]
mod tests {
    use hm_vm::ProgressUnit;
    use indicatif::InMemoryTerm;

    use super::*;

    fn terminal() -> (InMemoryTerm, ProgressBar) {
        let terminal = InMemoryTerm::new(5, 60);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        (terminal, ProgressBar::with_draw_target(None, target))
    }

    #[test]
    fn a_known_total_gets_a_bar_and_an_unknown_one_a_count() {
        let (known, bar) = terminal();
        show(
            &bar,
            ProgressState {
                unit: ProgressUnit::Bytes,
                done: 1 << 20,
                total: Some(2 << 20),
            },
        );
        let line = known.contents();
        assert_eq!(line, "[===============>              ] 1 MiB/2 MiB");
        let (unknown, bar) = terminal();
        let state = ProgressState {
            done: 1200,
            ..ProgressState::default()
        };
        show(&bar, state);
        let line = unknown.contents();
        assert!(line.ends_with(" 1,200 files"), "{line}");
    }

    #[test]
    fn the_value_of_the_work_comes_back() {
        let target = ProgressDrawTarget::hidden();
        assert_eq!(during_on(target, &Progress::new(), || 7), 7);
    }
}
