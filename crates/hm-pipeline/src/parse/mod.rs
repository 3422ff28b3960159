//! From a pipeline's text to a [`Pipeline`](crate::Pipeline).
//!
//! ```text
//! TOML ─┐
//! JSON ─┴▶ tree with places ──read──▶ tables of the file ──expand, link──▶ Pipeline
//! hm-ir ─▶ tree with places ──read──▶ graph              ──────map───────▶ Pipeline
//! ```
//!
//! Every stage notes all the problems that it finds and goes on, so that a wrong file gets them in one go.
//!
//! | module | what it holds |
//! |---|---|
//! | `tree` | what TOML and JSON have in common: values with their places |
//! | `toml`, `json` | from text to the tree |
//! | `reader` | collects problems |
//! | `table`, `values`, `forms`, `quantities`, `names` | the kinds of values, each with its reader and its schema |
//! | `registries` | what the pipeline file and the configuration say of registries |
//! | `configuration` | the user's configuration file |
//! | `model`, `unions` | the tables of the file; its reader and its schema are made from the same lines |
//! | `matrix`, `expand` | from a step of the file to its steps |
//! | `link` | `from`, `needs`, cycles |
//! | `build`, `parts` | inheritance and defaults |
//! | `diagnostics` | what the user sees of problems |

mod build;
mod configuration;
mod diagnostics;
mod expand;
mod forms;
mod json;
mod link;
mod matrix;
mod model;
mod names;
mod parts;
mod quantities;
mod read;
mod reader;
mod registries;
pub(crate) mod table;
mod toml;
mod tree;
mod unions;
mod values;

pub use configuration::read_configuration;
pub use diagnostics::{Diagnostic, Diagnostics};
pub use read::{Format, SIZE_LIMIT, STEP_LIMIT, read};
pub use registries::read_remote_cache;

pub(crate) use build::{DEFAULT_IMAGE, directory_name};
pub(crate) use forms::{Filled, Line};
pub(crate) use link::{Arrow, find_cycles};
pub(crate) use model::FileTable;
pub(crate) use names::{VariableName, step_name};
pub(crate) use reader::{Reader, nearest};
pub(crate) use table::{FromNode, table};
pub(crate) use tree::{Node, Span, Value};
pub(crate) use unions::EnvValue;
pub(crate) use values::{As, Count, List, Map, Must, Text};
