//! From values to text that a person or a program reads.

pub(crate) mod bar;
pub(crate) mod gate;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod sanitize;
pub(crate) mod table;
pub(crate) mod transfers;
pub(crate) mod ui;

pub(crate) use table::Table;
pub(crate) use ui::{Style, Ui};
