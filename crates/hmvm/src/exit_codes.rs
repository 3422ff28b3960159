//! What the program's exit code means.
//!
//! `hmvm exec` and `hmvm shell` pass the command's own code through, 128 + N when signal N ended
//! it; `hmvm run` that of the step that failed first. The codes below are the program's own; a command that uses one of them itself is told apart
//! by the closing line, or by the last event of `--json`.

/// Everything that was asked for was done.
pub const SUCCESS: u8 = 0;

/// A command that reports a state found it wanting: `hmvm doctor` misses something that it needs,
/// `hmvm snapshot diff` or `hmvm explain` found a difference when asked by `--exit-code`.
pub const NEGATIVE: u8 = 1;

/// The command did not end within `--timeout`, or a step or a run within its time.
pub const TIMED_OUT: u8 = 124;

/// hmvm itself failed, or was asked for something that cannot be done: wrong options, unknown
/// names, a full disk, a machine that lacks something. One line on standard error says what.
pub const FAILED: u8 = 125;

/// Cancelled by Ctrl-C, SIGTERM or SIGHUP. All that the command started is gone.
pub const CANCELLED: u8 = 130;

/// Standard output was closed by whoever read it, as in `hmvm … | head -1`: 128 + SIGPIPE.
pub const OUTPUT_CLOSED: u8 = 141;
