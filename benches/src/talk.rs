//! The one place where this program talks.

/// Tells the user what goes on.
#[expect(
    clippy::print_stderr,
    reason = "progress of a program is for standard error"
)]
pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}

/// Prints a result.
#[expect(clippy::print_stdout, reason = "the result of the program")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}
