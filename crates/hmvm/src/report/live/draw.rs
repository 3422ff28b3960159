//! From what is known to lines of text.

use std::time::{Duration, Instant};

use console::truncate_str;
use hm_pipeline::{StepId, StepOutcome, StepResult};
use hm_vm::Phase;

use super::screen::{Screen, Size};
use super::{News, Running, Shared, State};
use crate::output::human::{self, plural};
use crate::output::sanitize::{bare_line, sanitize};
use crate::report::{failure, summary, words};

/// Cached steps in a row that are told one by one. Of more, only how many.
const CACHED_IN_A_ROW: usize = 10;

/// Names longer than this do not widen the column of names.
const WIDEST_NAME: usize = 32;

/// Signs before lines.
struct Signs {
    ran: &'static str,
    cached: &'static str,
    failed: &'static str,
    skipped: &'static str,
    more: &'static str,
    spinner: &'static [&'static str],
}

const SIGNS: Signs = Signs {
    ran: "✓",
    cached: "●",
    failed: "✗",
    skipped: "○",
    more: "…",
    spinner: &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
};

const ASCII_SIGNS: Signs = Signs {
    ran: "+",
    cached: "=",
    failed: "x",
    skipped: "-",
    more: "...",
    spinner: &["|", "/", "-", "\\"],
};

impl Shared {
    /// Draws what is new and what is going on.
    pub(super) fn draw(&self, screen: &mut Screen) {
        let size = screen.size();
        let mut state = self.state();
        let news = std::mem::take(&mut state.news);
        let kept = self.kept(&state, &news);
        let lines = self.lines(&state, size, Instant::now());
        // The terminal may be slow: events must not wait for it.
        drop(state);
        if !kept.is_empty() {
            screen.keep(&kept);
        }
        screen.show(&lines);
    }

    fn signs(&self) -> &'static Signs {
        if self.utf8 { &SIGNS } else { &ASCII_SIGNS }
    }

    /// The text that stays on the terminal.
    fn kept(&self, state: &State, news: &[News]) -> String {
        let mut text = String::new();
        let mut rest = news;
        while let Some(first) = rest.first() {
            let cached = rest.iter().take_while(|news| is_cached(news)).count();
            if cached > CACHED_IN_A_ROW {
                text.push_str(&self.burst(&rest[..cached]));
                rest = &rest[cached..];
                continue;
            }
            let told = &rest[..cached.max(1)];
            for news in told {
                self.tell(&mut text, state, news);
            }
            debug_assert!(told.len() == 1 || is_cached(first));
            rest = &rest[told.len()..];
        }
        text
    }

    /// Many cached steps in one line.
    fn burst(&self, news: &[News]) -> String {
        let saved: Duration = news
            .iter()
            .filter_map(|news| match news {
                News::Ended { result, .. } => result.detail.saved,
                _ => None,
            })
            .sum();
        let count = plural(u64::try_from(news.len()).unwrap_or(u64::MAX), "step");
        let saved = if saved.is_zero() {
            String::new()
        } else {
            format!(", saved {}", human::duration(saved))
        };
        let sign = self.style.green(self.signs().cached);
        format!("{sign} {count} cached{saved}\n")
    }

    fn tell(&self, text: &mut String, state: &State, news: &News) {
        let style = self.style;
        match news {
            News::Said(said) => text.push_str(said),
            News::Notice { step, text: notice } => {
                let of =
                    step.map_or_else(String::new, |step| format!("{}: ", self.facts.name(step)));
                text.push_str(&format!(
                    "{} {of}{}\n",
                    style.yellow("note:"),
                    sanitize(notice)
                ));
            }
            News::Retried { step, result } => {
                let ending = words::ending(result, self.facts.names());
                let sign = style.yellow(self.signs().failed);
                let name = self.facts.name(*step);
                text.push_str(&format!("{sign} {name} {ending}, will be tried again\n"));
            }
            News::Ended { step, result } => self.tell_end(text, *step, result),
            News::RunEnded { verdict, took } => {
                let summary = summary::text(&self.facts, &state.tally, *verdict, *took, style);
                text.push_str(&summary);
            }
        }
    }

    fn tell_end(&self, text: &mut String, step: StepId, result: &StepResult) {
        let (style, signs) = (self.style, self.signs());
        let failed = matches!(
            result.outcome,
            StepOutcome::Failed { .. } | StepOutcome::TimedOut { .. } | StepOutcome::Broken { .. }
        );
        let sign = match &result.outcome {
            StepOutcome::Cached => style.green(signs.cached),
            StepOutcome::Succeeded => style.green(signs.ran),
            _ if failed && result.allowed => style.yellow(signs.failed),
            _ if failed => style.red(signs.failed),
            _ => style.dim(signs.skipped),
        };
        let ending = words::ending(result, self.facts.names());
        let name = style.bold(self.facts.name(step));
        text.push_str(&format!("{sign} {name} {ending}\n"));
        if failed {
            let tail = self.tail(step);
            let details = failure::details(&self.facts, step, result, tail.lines(), style);
            text.push_str(&details);
        }
    }

    /// The lines that are redrawn, cut to the terminal.
    fn lines(&self, state: &State, size: Size, now: Instant) -> Vec<String> {
        // The line with the cursor stays free, and wide characters at the edge do no harm.
        let columns = size.columns.saturating_sub(1);
        let room = size.rows.saturating_sub(3).max(1);
        let shown = if state.running.len() > room {
            room - 1
        } else {
            state.running.len()
        };
        let names = state.running.keys().take(shown);
        let width = names.map(|step| self.facts.name(*step).chars().count());
        let width = width.max().unwrap_or(0).min(WIDEST_NAME);
        let mut lines: Vec<String> = state
            .running
            .iter()
            .take(shown)
            .map(|(step, running)| self.row(*step, *running, width, now))
            .collect();
        let hidden = state.running.len() - shown;
        if hidden > 0 {
            lines.push(format!("{} {hidden} more", self.signs().more));
        }
        lines.push(self.totals(state, now));
        lines
            .iter()
            .map(|line| truncate_str(line, columns, self.signs().more).into_owned())
            .collect()
    }

    fn row(&self, step: StepId, running: Running, width: usize, now: Instant) -> String {
        let since = now.saturating_duration_since(running.since);
        let frames = self.signs().spinner;
        let frame = usize::try_from(since.as_millis() / 100).unwrap_or(0) % frames.len();
        let name = self.facts.name(step);
        let padding = width.saturating_sub(name.chars().count());
        let doing = self.doing(step, running);
        let attempt = if running.attempt > 1 {
            format!(" (attempt {})", running.attempt)
        } else {
            String::new()
        };
        format!(
            "{} {}{:padding$}{attempt} {:>7}  {}",
            self.style.hue(step.0, frames[frame]),
            self.style.bold(name),
            "",
            clock(since),
            self.style.dim(&doing),
        )
    }

    /// The part that a step is in; while it writes, or is replayed, the last line.
    pub(super) fn doing(&self, step: StepId, running: Running) -> String {
        let phase = running.phase.map_or("", Phase::name);
        if !matches!(running.phase, None | Some(Phase::Lookup | Phase::Exec)) {
            let progress = running.progress.filter(|state| state.done > 0);
            return match progress {
                Some(state) => format!("{phase} {}", human::progress(state)),
                None => phase.to_owned(),
            };
        }
        let tail = self.tail(step);
        let line = tail.last().map(bare_line);
        line.filter(|line| !line.trim().is_empty())
            .unwrap_or_else(|| phase.to_owned())
    }

    /// `12/40 done, 8 cached, 2 running, 1 failed`.
    fn totals(&self, state: &State, now: Instant) -> String {
        let counts = &state.tally.counts;
        let mut line = format!("{}/{} done", counts.done(), state.tally.steps);
        let parts = [
            (counts.cached, "cached"),
            (state.running.len(), "running"),
            (counts.all_failed(), "failed"),
        ];
        for (count, word) in parts {
            if count > 0 {
                line.push_str(&format!(", {count} {word}"));
            }
        }
        let since = clock(now.saturating_duration_since(state.since));
        let end = if self.cancel.cause().is_some() {
            self.style.yellow(", stopping")
        } else {
            String::new()
        };
        format!("{}, {since}{end}", self.style.bold(&line))
    }
}

fn is_cached(news: &News) -> bool {
    matches!(news, News::Ended { result, .. } if result.outcome == StepOutcome::Cached)
}

/// `3.4 s`, `12:05`, `1:02:03`: changes in place.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!(
            "{}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
    }
}
