//! What the user sees of a file's problems.

use std::fmt::{self, Write as _};

use super::tree::Span;

/// Widest part of a source line that is shown, in characters.
const WIDTH: usize = 100;

/// All the problems of a file, in the order of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// The problems; at least one.
    pub problems: Vec<Diagnostic>,
    /// How many more there are.
    pub omitted: usize,
}

/// A problem of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its line, from 1.
    pub line: usize,
    /// Its first character in the line, from 1.
    pub column: usize,
    /// The offending text, as far as it stands in one line. May be empty.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

impl Diagnostics {
    /// One problem without a place.
    pub(crate) fn whole(message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self {
            problems: vec![Diagnostic {
                line: 1,
                column: 1,
                text: String::new(),
                message: message.into(),
                suggestion: Some(suggestion.into()),
            }],
            omitted: 0,
        }
    }

    /// All problems as text for people: `FILE:LINE:COLUMN: message`, the line with the offending part
    /// underlined, and a hint. `source` is the text that was read. Control characters are shown as `�`.
    pub fn render(&self, file_name: &str, source: &str) -> String {
        // Lines are looked up once for all problems, which are in their order.
        let mut lines = source.split('\n').enumerate();
        let mut current = lines.next();
        let mut rendered = String::new();
        for problem in &self.problems {
            while current.is_some_and(|(index, _)| index + 1 < problem.line) {
                current = lines.next();
            }
            let line = current.map_or("", |(_, line)| line);
            if !rendered.is_empty() {
                rendered.push('\n');
            }
            let _ = problem.render_into(&mut rendered, file_name, line);
        }
        if self.omitted > 0 {
            let _ = writeln!(rendered, "\n… and {} more problems", self.omitted);
        }
        rendered
    }
}

impl Diagnostic {
    fn render_into(&self, out: &mut String, file_name: &str, line: &str) -> fmt::Result {
        let message = printable(&self.message);
        writeln!(out, "{file_name}:{}:{}: {message}", self.line, self.column)?;
        let characters: Vec<char> = line.trim_end().chars().collect();
        if !characters.is_empty() {
            let at = (self.column - 1).min(characters.len());
            // Of a very long line, what is around the place.
            let beyond = characters.len().saturating_sub(WIDTH);
            let first = at.saturating_sub(WIDTH / 4).min(beyond);
            let last = characters.len().min(first + WIDTH);
            let shown = printable(&characters[first..last].iter().collect::<String>());
            let margin = " ".repeat(self.line.to_string().len());
            let indent: String = characters[first..at]
                .iter()
                .map(|character| if *character == '\t' { '\t' } else { ' ' })
                .collect();
            let length = self.text.chars().count().clamp(1, (last - at).max(1));
            writeln!(out, "{margin} |")?;
            writeln!(out, "{} | {}", self.line, shown.trim_end())?;
            writeln!(out, "{margin} | {indent}{}", "^".repeat(length))?;
        }
        if let Some(suggestion) = &self.suggestion {
            writeln!(out, "hint: {}", printable(suggestion))?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.line,
            self.column,
            printable(&self.message)
        )
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.omitted > 0 {
            write!(f, "\n… and {} more problems", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A file may come from anybody: it does not get to write to the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\t' => '\t',
            character if character.is_control() => '\u{fffd}',
            character => character,
        })
        .collect()
}

/// The part of the source in `span`, as far as it stands in one line.
pub(super) fn excerpt(source: &str, span: Span) -> String {
    let start = floor(source, span.start);
    let end = floor(source, span.end.max(span.start));
    let text = source[start..end].lines().next().unwrap_or_default();
    text.chars().take(WIDTH).collect()
}

fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}
