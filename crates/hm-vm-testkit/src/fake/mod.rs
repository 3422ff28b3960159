//! A backend in memory that is stricter than any real one.
//!
//! For tests of what stands above the backends. It implements the whole contract without starting
//! a process: files live in a map, commands in a tiny part of the shell's language (see below), or
//! in callbacks given to [`FakeBackend::on_exec`].
//!
//! # Strictness
//!
//! * Snapshot ids are odd strings, so that nobody relies on their form.
//! * Every method yields before and after its work, so that futures can be dropped there.
//! * A VM that is used after `destroy`, or by two methods at once, is a *violation*, and so is a VM
//!   that is still alive when the last handle of the backend goes. Dropping that last handle panics
//!   when there are violations, unless [`FakeBackend::take_violations`] took them.
//! * A limit or network that is not declared is refused.
//!
//! # Failpoints
//!
//! Each method reaches the point of its own name (`create`, `restore`, `snapshot_exists`,
//! `remove_snapshot`, `inject`, `exec`, `snapshot`, `destroy`) before its work, and `NAME.done` after
//! it, before it returns.
//!
//! # Commands
//!
//! Simple commands joined by `;`, newlines, `&&` and `||`, with `'…'`, `"…"`, `$NAME`, `$?`, `$$`,
//! and `>`, `>>`, `>&2`. A real shell understands all of it the same way. Commands: `:` `true`
//! `false` `exit` `echo` `printenv` `pwd` `cat` `test` `touch` `rm` `mkdir` `mv` `ln -s` `readlink`
//! `chmod` `stat -c %a` `ls` `sleep` `kill -N $$` `trap '…' TERM`.

mod backend;
mod inject;
mod journal;
mod script;
mod shell;
mod tree;
mod vm;

pub use backend::FakeBackend;
pub use journal::{Call, Counts};
pub use shell::FakeExec;
