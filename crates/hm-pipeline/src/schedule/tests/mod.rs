//! Tests of the scheduler, with steps that only compute, on a clock that stands still while anything can go on.

mod fake;
mod verdicts;
