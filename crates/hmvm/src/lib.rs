//! The program `hmvm`.
//!
//! The only crate of the project that prints, reads the environment, or exits; each through one
//! door ([`output::ui`], [`input::environment`], [`main`]). A command is one file under
//! `commands`: its options, and a function that carries it out on an [`app::App`]. Errors become
//! a line, a hint and an exit code in `failure`, and nowhere else.
#![forbid(unsafe_code)]
#![expect(
    rustdoc::private_intra_doc_links,
    reason = "the library exists for the program beside it: its rooms are private"
)]

mod app;
mod backend;
mod cli;
mod commands;
pub mod exit_codes;
mod failed_step;
mod failure;
mod history;
mod images;
mod input;
mod machine;
mod names;
mod output;
mod raw_terminal;
mod remote_cache;
mod report;
mod run;
mod signals;
mod usage;

pub use app::main;
pub use cli::command;
