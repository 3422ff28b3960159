//! What the person, or a program, sees of a run.
//!
//! ```text
//! scheduler's task ──┐                 ┌─▶ Plain, Json, Quiet ─▶ Queue ─▶ its thread ─▶ stdout, stderr
//!                    ├─▶ Report (Tally)┤
//! output of steps  ──┘                 └─▶ Live ─▶ its thread, 10 times a second ─▶ the terminal
//! ```
//!
//! Nothing here holds the scheduler up: what it says is put in line, and threads of the report write it. Output of
//! steps waits where the line is long, which holds the step back, so that memory is bounded and no line is lost.
//!
//! | module | what it holds |
//! |---|---|
//! | [`start`] | [`start`](start::start), [`Report`], [`Mode`] |
//! | [`tally`] | what is known of every step so far |
//! | [`tail`] | the last lines of a step |
//! | [`queue`] | the line in front of standard output and standard error |
//! | [`plain`], [`json`], [`live`] | the views; quiet is a plain one that says little |
//! | [`failure`], [`summary`], [`words`] | the texts that they share |

mod failure;
mod json;
mod live;
mod plain;
mod queue;
mod start;
mod summary;
mod tail;
mod tally;
mod words;

pub(crate) use start::{Mode, Report, ReportContext, start};
pub(crate) use words::{outcome_name, run_reason, skip_reason};

#[cfg(test)]
mod tests;
