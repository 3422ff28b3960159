//! The scheduler: carries a [`Plan`](crate::Plan) out, step by step, through a [`StepRunner`](crate::StepRunner).
//!
//! One task owns the state of the run, and is the only one that sends the events below. Every try of a step is a
//! task of its own that ends with a report; reports queue without a bound, so a try never waits for the scheduler.
//!
//! # A step's states
//!
//! ```text
//!            needs are over           a place is free            it ended
//!  Waiting ──────────────────▶ Ready ─────────────────▶ Running ──────────▶ Over
//!   │ ▲ ▲                       ▲  │                     │  │                │
//!   │ │ └──── a snapshot that it forks from is gone ─────┘  │                │
//!   │ │                         │  │                        │                │
//!   │ │                         └──┼──── it is tried again ─┘                │
//!   │ └── a snapshot that others fork from is gone: it is made again ────────┤
//!   └─────────────────────────────▶┴──── skipped, cancelled ────────────────▶┘
//! ```
//!
//! - *Waiting*: something that it forks from or needs is not over, or is being made again. A step that the plan
//!   skips leaves this state at the start of the run.
//! - *Ready*: it waits for a place, for cpus and memory, or for a cache directory.
//! - *Running*: a task carries a try out. Only this state takes up capacity.
//! - *Over*: its result is known and its [`StepEnded`](crate::RunEvent::StepEnded) sent, once. It leaves this
//!   state only to be made again, with its result kept, and comes back to it without an event.
//!
//! # Order
//!
//! Ready steps start in the plan's order. One that there is not enough capacity for holds back those after it,
//! so that it cannot starve; one that waits for a cache directory lets them pass, but keeps its turn for that
//! directory. The only step that forks from one that just succeeded goes before all others, in the place
//! that became free: a chain goes on without waiting. A step that declares more cpus or memory than there are
//! runs alone. Steps whose results are known only replay: they take neither cpus nor memory nor cache
//! directories, and have places of their own, four times as many.
//!
//! # How things end
//!
//! | what happens | what becomes of the others | verdict |
//! |---|---|---|
//! | a step fails, is out of time or broken, after its retries | what forks from it or needs it is skipped, down to the last; without `keep_going` nothing else starts, and what runs is cancelled | failed (125 when broken), timed out |
//! | the same with `allow_failure` | what forks from it is skipped | – |
//! | a step's `if` does not hold | what forks from it is skipped, down to the last; what only needs one of these runs | – |
//! | the user cancels | what runs is cancelled, the rest ends as cancelled without having run | cancelled |
//! | the run is out of time | the same | timed out, without a step |
//!
//! The first of these in time decides the verdict. Where everything ended well although the user cancelled or
//! time ran out at the last moment, the run has succeeded.
//!
//! # Snapshots that are gone
//!
//! A try that ends with [`ParentMissing`](crate::StepEnd::ParentMissing) makes the step that it forks from run
//! again, then it is tried again. Those that fork from them too and have not started wait as well; a notice
//! says so. No step is made again more than [`MAX_REMAKES`] times: after that the one that asks is broken. Where
//! making it again fails, all that wait for it are broken: their parent has ended well as far as anybody was
//! told, so their failure is the one to report.
//!
//! # Dropping
//!
//! The future of [`run`] may be dropped: its tries are dropped at their next await. To end a run in
//! good order, cancel it and wait.

mod capacity;
mod drive;
mod links;
mod options;
mod progress;
mod remake;
mod settle;
mod turn;

#[cfg(test)]
mod tests;

pub use drive::run;
pub use options::{RunOutcome, ScheduleOptions};
pub use remake::MAX_REMAKES;
