//! Root file systems from archives and directories.

mod archives;
mod directories;
mod hostile;
mod support;
