//! Collects the problems of a file.

use std::collections::HashSet;

use super::diagnostics::{Diagnostic, Diagnostics, excerpt};
use super::tree::Span;

/// Problems that are shown; a file with more of them is of another kind.
const SHOWN: usize = 100;

/// Collects the problems of a file.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a str,
    /// `null` stands for an absent value, as serde writes it.
    pub(crate) null_is_absent: bool,
    /// Where each line begins.
    lines: Vec<usize>,
    problems: Vec<Problem>,
    /// A step of a matrix is read many times: its problems are told once.
    known: HashSet<(Span, String)>,
}

#[derive(Debug)]
struct Problem {
    span: Span,
    message: String,
    suggestion: Option<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let breaks = source.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            source,
            null_is_absent: false,
            lines: std::iter::once(0).chain(breaks).collect(),
            problems: Vec::new(),
            known: HashSet::new(),
        }
    }

    pub(crate) fn report(
        &mut self,
        span: Span,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.note(span, message.into(), Some(suggestion.into()));
    }

    pub(crate) fn note(&mut self, span: Span, message: String, suggestion: Option<String>) {
        if self.known.insert((span, message.clone())) {
            self.problems.push(Problem {
                span,
                message,
                suggestion,
            });
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Line and column of a byte, from 1; columns in characters.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        let at = floor_boundary(self.source, at);
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        (line, self.source[start..at].chars().count() + 1)
    }

    /// The problems, in the order of the text.
    pub(crate) fn into_diagnostics(mut self) -> Diagnostics {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|problem| problem.span.start);
        let omitted = problems.len().saturating_sub(SHOWN);
        problems.truncate(SHOWN);
        let problems = problems
            .into_iter()
            .map(|problem| {
                let (line, column) = self.place(problem.span.start);
                Diagnostic {
                    line,
                    column,
                    text: excerpt(self.source, problem.span),
                    message: problem.message,
                    suggestion: problem.suggestion,
                }
            })
            .collect();
        Diagnostics { problems, omitted }
    }
}

fn floor_boundary(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The candidate that `word` was probably meant to be.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // What is much longer than any name is none, and comparing it takes the square of its length.
    if word.len() > 200 {
        return None;
    }
    let lower = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 200)
        .map(|candidate| {
            let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
