//! The last lines of a step, for when it fails.

use std::collections::VecDeque;

/// How many lines are kept.
pub(super) const LINES: usize = 20;

/// Longest part of a line that is kept, in bytes.
const LINE_BYTES: usize = 4096;

/// The last lines of one step. Memory is bounded, and used again.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    /// Adds a line.
    pub(super) fn push(&mut self, line: &str) {
        let mut kept = if self.lines.len() < LINES {
            String::new()
        } else {
            self.lines.pop_front().unwrap_or_default()
        };
        kept.clear();
        let mut end = line.len().min(LINE_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        kept.push_str(&line[..end]);
        self.lines.push_back(kept);
    }

    /// The last line.
    pub(super) fn last(&self) -> Option<&str> {
        self.lines.back().map(String::as_str)
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Forgets the lines: another try begins.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for number in 0..50 {
            tail.push(&format!("line {number}"));
        }
        tail.push(&"ü".repeat(LINE_BYTES));
        assert_eq!(tail.lines().count(), LINES);
        assert_eq!(tail.lines().next(), Some("line 31"));
        assert_eq!(tail.last().map(str::len), Some(LINE_BYTES));
    }
}
