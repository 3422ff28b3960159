//! A bar for each part of the images that come or go; lines where nothing can be drawn.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use hm_vm::Progress;
use hm_vm::store::{TransferPart, TransferWatch};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::sanitize::sanitize;
use crate::output::{Ui, human};

/// What is quicker than this gets no bars.
const QUICK: Duration = Duration::from_millis(300);

/// Time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);

/// Bars that are shown at once: a terminal has no more lines to spare.
const MOST: usize = 16;

/// Widest text before a bar.
const WIDEST: usize = 48;

/// All that comes and goes during one piece of work. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Transfers {
    ui: Ui,
    parts: Arc<Mutex<Vec<Part>>>,
}

/// One part of one image.
#[derive(Clone, Debug)]
struct Part {
    /// For people, without control characters.
    text: String,
    progress: Progress,
    bytes: Option<u64>,
}

impl Part {
    fn is_done(&self) -> bool {
        let state = self.progress.now();
        let total = state.total.or(self.bytes);
        total.is_some_and(|total| state.done >= total)
    }
}

/// Does `work`, and shows how far each part is that it tells of: as bars on a terminal, which are gone afterwards; as a
/// line for each part elsewhere; not at all when quiet.
pub(crate) fn during<T>(ui: &Ui, work: impl FnOnce(&Transfers) -> T) -> T {
    let transfers = Transfers {
        ui: ui.clone(),
        parts: Arc::default(),
    };
    if !ui.draws() {
        return work(&transfers);
    }
    let bars = Bars::new(ProgressDrawTarget::stderr());
    thread::scope(|scope| {
        // Dropped when the work is over, or panics: that wakes the artist.
        let (working, over) = mpsc::channel::<()>();
        let watched = &transfers;
        scope.spawn(move || {
            if over.recv_timeout(QUICK) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            watched.draw_until(bars, &over);
        });
        let value = work(&transfers);
        drop(working);
        value
    })
}

impl Transfers {
    /// Watches one image, which is called `name`.
    pub(crate) fn watch(&self, name: &str) -> Arc<dyn TransferWatch> {
        Arc::new(Watch {
            transfers: self.clone(),
            name: sanitize(name).into_owned(),
        })
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until(&self, mut bars: Bars, over: &mpsc::Receiver<()>) {
        let screen = bars.screen.clone();
        self.ui.lend(move |lines| {
            // What cannot be shown is no failure.
            let _unseen = screen.println(lines.trim_end_matches('\n'));
        });
        loop {
            let parts = self.parts().clone();
            bars.show(&parts);
            if over.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        self.ui.take_back();
        bars.clear();
    }
}

/// What watches one image.
#[derive(Debug)]
struct Watch {
    transfers: Transfers,
    name: String,
}

impl TransferWatch for Watch {
    fn part(&self, part: &TransferPart) -> Progress {
        let progress = Progress::new();
        let text = format!("{} {}", self.name, sanitize(&part.label));
        if !self.transfers.ui.draws() {
            // A log has one line for what takes time.
            if !part.present {
                let size = part
                    .bytes
                    .map_or_else(String::new, |bytes| format!(", {}", human::size(bytes)));
                self.transfers.ui.say(format_args!("hmvm: {text}{size}"));
            }
            return progress;
        }
        if !part.present {
            self.transfers.parts().push(Part {
                text,
                progress: progress.clone(),
                bytes: part.bytes,
            });
        }
        progress
    }
}

/// The bars on the terminal, by the place of their part.
struct Bars {
    screen: MultiProgress,
    shown: BTreeMap<usize, ProgressBar>,
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> Self {
        Self {
            screen: MultiProgress::with_draw_target(target),
            shown: BTreeMap::new(),
        }
    }

    fn show(&mut self, parts: &[Part]) {
        let screen = &self.screen;
        self.shown.retain(|place, bar| {
            let stays = !parts[*place].is_done();
            if !stays {
                bar.finish_and_clear();
                screen.remove(bar);
            }
            stays
        });
        for (place, part) in parts.iter().enumerate() {
            if part.is_done() {
                continue;
            }
            if !self.shown.contains_key(&place) {
                if self.shown.len() >= MOST {
                    continue;
                }
                let bar = self.screen.add(ProgressBar::new(part.bytes.unwrap_or(0)));
                self.shown.insert(place, bar);
            }
            draw(&self.shown[&place], part);
        }
    }

    fn clear(&mut self) {
        for bar in self.shown.values() {
            bar.finish_and_clear();
        }
        self.shown.clear();
        let _unseen = self.screen.clear();
    }
}

fn draw(bar: &ProgressBar, part: &Part) {
    let mut state = part.progress.now();
    state.total = state.total.or(part.bytes);
    let template = if state.total.is_some() {
        "{prefix} [{bar:20}] {msg}"
    } else {
        "{prefix} {spinner} {msg}"
    };
    // The text is ours; it is not one of the user's that could be wrong.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if let Some(total) = state.total {
        bar.set_length(total);
    }
    bar.set_prefix(fitted(&part.text));
    bar.set_message(human::progress(state));
    bar.set_position(state.done);
    bar.tick();
}

/// The end of a text that is too long says more than its beginning.
fn fitted(text: &str) -> String {
    let count = text.chars().count();
    if count <= WIDEST {
        return text.to_owned();
    }
    let end: String = text.chars().skip(count - WIDEST + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use hm_vm::ProgressUnit;
    use indicatif::InMemoryTerm;

    use super::*;

    fn part(text: &str, done: u64, total: u64) -> Part {
        let progress = Progress::new();
        progress.begin(ProgressUnit::Bytes, Some(total));
        progress.add(done);
        Part {
            text: text.into(),
            progress,
            bytes: Some(total),
        }
    }

    #[test]
    fn every_part_on_its_way_has_a_bar_and_no_other() {
        let terminal = InMemoryTerm::new(20, 80);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let mut bars = Bars::new(target);
        let parts = [
            part("a layer 1/2", 1 << 20, 2 << 20),
            part("a layer 2/2", 0, 4 << 20),
            part("b layer 1/1", 5, 5),
        ];
        bars.show(&parts);
        assert_eq!(
            terminal.contents(),
            "a layer 1/2 [==========>         ] 1 MiB/2 MiB\n\
             a layer 2/2 [                    ] 0 B/4 MiB"
        );
        parts[0].progress.complete();
        bars.show(&parts);
        let shown = terminal.contents();
        assert!(shown.starts_with("a layer 2/2 ["), "{shown}");
        bars.clear();
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn more_parts_than_a_terminal_has_lines_wait_for_their_bar() {
        let terminal = InMemoryTerm::new(40, 80);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let mut bars = Bars::new(target);
        let parts: Vec<Part> = (0..MOST + 5).map(|n| part(&n.to_string(), 0, 9)).collect();
        bars.show(&parts);
        assert_eq!(bars.shown.len(), MOST);
        parts[0].progress.complete();
        bars.show(&parts);
        let last = bars.shown.keys().next_back();
        assert_eq!((bars.shown.len(), last), (MOST, Some(&MOST)));
    }

    #[test]
    fn the_end_of_a_long_text_is_kept() {
        assert_eq!(fitted("short"), "short");
        let long = fitted(&format!("{} layer 1/2", "x".repeat(60)));
        assert_eq!(long.chars().count(), WIDEST);
        assert!(long.ends_with("x layer 1/2") && long.starts_with('…'));
    }
}
