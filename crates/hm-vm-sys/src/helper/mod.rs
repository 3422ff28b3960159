//! The helper: the first process of a container, and how to talk to it.
//!
//! It is a static program of ours ([`PROGRAM`]), needs nothing of the image, and runs one command at a time.
//! It begins with a [`Hello`] on standard output. Then it takes frames on standard input:
//!
//! | frame | payload | made by |
//! |---|---|---|
//! | `R` run a command | nonce, fields | [`Request::encode`] |
//! | `D` remove files | nonce, base, paths, each ended by a zero byte | [`remove_frame`] |
//! | `P` does something accept connections at a port? | nonce, port | [`probe_frame`] |
//! | `S` signal for everybody in the container | number | [`signal_frame`] |
//! | `K` kill everybody | | [`kill_frame`] |
//! | `I` typed bytes for the command's terminal | bytes | [`input_frames`] |
//! | `Z` size of that | columns, rows | [`size_frame`] |
//! | `H` it is gone | | [`hang_up_frame`] |
//!
//! A frame is a byte for its kind, the payload's length (32 bits, little-endian, 32 MiB at most) and the payload. The
//! last five are for the command that runs; without one they are ignored. While a job is under way, no other may be asked for.
//!
//! The command writes to standard output and error itself. When its first process has ended, the helper kills
//! and reaps all others; then it writes the job's [`Nonce`] to both, and after it, on standard output, a [`Report`]. [`MarkerScan`] finds
//! them: output is complete if, and only if, both streams had their mark.
//!
//! When standard input ends, everybody is killed and the helper exits with 0. What is not of this protocol
//! makes it exit with 124.
//!
//! Nothing of the guest is alive while the helper reads a request or writes a report, and it can neither be traced nor read.
//! What is between the marks is the guest's, who may write what it likes there: it does not know the nonce.

mod frames;
mod hello;
mod marker;
mod program;
mod report;
mod request;

pub use frames::{
    hang_up_frame, input_frames, kill_frame, probe_frame, remove_frame, signal_frame, size_frame,
};
pub use hello::{Hello, HelloError};
pub use marker::MarkerScan;
pub use program::{PROCESSOR, PROGRAM};
pub use report::{Report, ReportKind, UserProblem};
pub use request::{Nonce, Request, RequestError, SCRIPT_PATH};
