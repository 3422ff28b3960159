//! Tests of the scheduler, with steps that only compute, on a clock that stands still while anything can go on.

mod capacity;
mod case;
mod fake;
mod generate;
mod generated;
mod interrupts;
mod model;
mod remakes;
mod seen;
mod verdicts;
