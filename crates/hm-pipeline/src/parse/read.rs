//! The door of this module.

use std::path::Path;

use super::build::build;
use super::diagnostics::Diagnostics;
use super::expand::{check_common, expand};
use super::link::link;
use super::model::FileTable;
use super::reader::Reader;
use super::table::FromNode;
use super::tree::{Node, Span, Value};
use super::{json, toml};
use crate::pipeline::Pipeline;

/// Largest text, in bytes.
pub const SIZE_LIMIT: usize = 4 << 20;

/// Steps that a pipeline may have, those of matrices counted singly.
pub const STEP_LIMIT: usize = 10_000;

/// What a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The pipeline file, in TOML.
    Toml,
    /// The pipeline file, in JSON.
    Json,
    /// The graph of the `hm` program, version 0.
    HmIr,
}

/// Reads a pipeline. `directory` is that of the file: absolute, where relative host paths start from;
/// its last name is the pipeline's where the file gives none. Nothing on the host is looked at.
///
/// # Errors
///
/// All problems of the text, in its order.
pub fn read(text: &str, format: Format, directory: &Path) -> Result<Pipeline, Diagnostics> {
    if text.len() > SIZE_LIMIT {
        return Err(Diagnostics::whole(
            format!("the file is larger than {} MiB", SIZE_LIMIT >> 20),
            "put long commands into scripts of the project",
        ));
    }
    // Some editors begin a file with a mark of its byte order.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(text);
    let root = match format {
        Format::Toml => toml::parse(text, &mut reader),
        Format::Json | Format::HmIr => json::parse(text, &mut reader),
    };
    let pipeline = root.and_then(|root| match format {
        Format::Toml | Format::Json => read_file(&root, directory, &mut reader),
        Format::HmIr => crate::hm_ir::read(&root, directory, &mut reader),
    });
    match pipeline {
        Some(pipeline) if reader.is_clean() => Ok(pipeline),
        _ => Err(reader.into_diagnostics()),
    }
}

fn read_file(root: &Node, directory: &Path, reader: &mut Reader<'_>) -> Option<Pipeline> {
    if !is_pipeline(root, reader) {
        return None;
    }
    let root = without_schema(root);
    check_common(&root, reader);
    let file = FileTable::from_node(&root, reader)?;
    let steps = expand(&file, reader)?;
    let links = link(&steps, reader)?;
    build(file.pipeline, steps, &links, directory, reader)
}

/// Without `$schema`, by which a JSON file tells an editor what it is.
fn without_schema(root: &Node) -> Node {
    let mut root = root.clone();
    if let Value::Table(table) = &mut root.value {
        table.entries.retain(|entry| entry.key != "$schema");
    }
    root
}

/// Whether the file is meant to be a pipeline at all: what every key of another kind of file is
/// called wrong for helps nobody.
fn is_pipeline(root: &Node, reader: &mut Reader<'_>) -> bool {
    let hint = "a pipeline has steps, as [steps.build] with run = \"make\"";
    let Value::Table(table) = &root.value else {
        let kind = root.value.kind();
        reader.report(
            Span::new(root.span.start, root.span.start + 1),
            format!("this is {kind}, and no pipeline"),
            hint,
        );
        return false;
    };
    match table.get("steps") {
        Some(entry) => {
            if let Value::Table(steps) = &entry.value.value
                && steps.entries.is_empty()
            {
                reader.report(entry.key_span, "the pipeline has no steps", hint);
            }
            true
        }
        None if table.get("graph").is_some() && table.get("version").is_some() => {
            let hint = "read it with --format hm-ir";
            reader.report(
                table.anchor,
                "this is a graph of hm, and no pipeline file",
                hint,
            );
            false
        }
        None => {
            let near = table
                .entries
                .iter()
                .find_map(|entry| super::reader::nearest(&entry.key, ["steps"]).map(|_| entry));
            match near {
                Some(entry) => reader.report(
                    entry.key_span,
                    format!("unknown key `{}`", entry.key),
                    "did you mean `steps`?",
                ),
                None => reader.report(table.anchor, "no steps: this is no pipeline", hint),
            }
            false
        }
    }
}
