//! From the steps of the file to those of the pipeline: each combination of a matrix is one.

use super::matrix::{Combination, OPEN, Substitution, combinations, count, suffix};
use super::model::{FileTable, StepTable};
use super::read::STEP_LIMIT;
use super::reader::Reader;
use super::table::FromNode;
use super::tree::{Entry, Node, Span, Table, Value};
use super::unions::MatrixTable;
use super::values::Text;

/// Bytes of text that the steps of all matrices may have together.
const TEXT_LIMIT: usize = 64 << 20;

/// A step with its values put in.
#[derive(Debug)]
pub(crate) struct Expanded {
    pub(crate) name: String,
    pub(crate) group: String,
    /// Its name in the file.
    pub(crate) span: Span,
    pub(crate) values: Combination,
    /// `None` when something of it is wrong.
    pub(crate) table: Option<StepTable>,
}

/// All steps. `None` when there are too many.
pub(crate) fn expand(file: &FileTable, reader: &mut Reader<'_>) -> Option<Vec<Expanded>> {
    let mut expansion = Expansion {
        budget: TEXT_LIMIT,
        steps: Vec::new(),
    };
    for (name, raw) in &file.steps.entries {
        let Value::Table(table) = &raw.node.value else {
            continue;
        };
        let node = without_matrix(&raw.node, table);
        match table.get("matrix") {
            None => expansion.add(name, &node, Combination::new(), reader)?,
            Some(entry) => match MatrixTable::from_node(&entry.value, reader) {
                Some(matrix) => expansion.add_all(name, &node, &matrix, reader)?,
                None => {
                    // The rest is checked all the same, but for what waits for a value.
                    StepTable::from_node(&without_places(node), reader);
                    expansion.push(name, Combination::new(), None);
                }
            },
        }
        if expansion.steps.len() > STEP_LIMIT {
            too_many(name, reader);
            return None;
        }
    }
    Some(expansion.steps)
}

/// Notes places for values where no step is that could have them.
pub(crate) fn check_common(root: &Node, reader: &mut Reader<'_>) {
    let mut left: Vec<&Node> = match &root.value {
        Value::Table(table) => table.get("pipeline").map(|entry| &entry.value),
        _ => None,
    }
    .into_iter()
    .collect();
    while let Some(node) = left.pop() {
        match &node.value {
            Value::Text(text) if text.contains(OPEN) => reader.report(
                node.span,
                "values of a matrix are known to its step alone",
                "move it into the step",
            ),
            Value::List(items) => left.extend(items),
            Value::Table(table) => left.extend(table.entries.iter().map(|entry| &entry.value)),
            _ => {}
        }
    }
}

struct Expansion {
    /// Bytes of text that may still be made.
    budget: usize,
    steps: Vec<Expanded>,
}

impl Expansion {
    fn add_all(
        &mut self,
        name: &Text,
        node: &Node,
        matrix: &MatrixTable,
        reader: &mut Reader<'_>,
    ) -> Option<()> {
        // Before anything is made of them: there may be more than there is memory.
        if count(matrix).is_none_or(|count| count > STEP_LIMIT) {
            too_many(name, reader);
            return None;
        }
        let all = combinations(matrix, reader);
        if all.is_empty() {
            reader.report(
                name.span,
                format!("the matrix of `{}` leaves no step", name.text),
                "leave fewer combinations out, or remove the step",
            );
        }
        for values in all {
            self.add(name, node, values, reader)?;
        }
        Some(())
    }

    fn add(
        &mut self,
        name: &Text,
        node: &Node,
        values: Combination,
        reader: &mut Reader<'_>,
    ) -> Option<()> {
        let mut substitution = Substitution {
            values: &values,
            budget: &mut self.budget,
        };
        let Some(node) = substitution.apply(node, reader) else {
            reader.report(
                name.span,
                format!("the steps have more than {} MiB of text", TEXT_LIMIT >> 20),
                "put long commands into a script of the project",
            );
            return None;
        };
        let table = StepTable::from_node(&node, reader);
        self.push(name, values, table);
        Some(())
    }

    fn push(&mut self, name: &Text, values: Combination, table: Option<StepTable>) {
        let mut full = name.text.clone();
        if !values.is_empty() {
            full += &suffix(&values);
        }
        self.steps.push(Expanded {
            name: full,
            group: name.text.clone(),
            span: name.span,
            values,
            table,
        });
    }
}

fn too_many(name: &Text, reader: &mut Reader<'_>) {
    reader.report(
        name.span,
        format!(
            "with `{}` the pipeline has more than {STEP_LIMIT} steps",
            name.text
        ),
        "leave values of the matrix out",
    );
}

fn without_matrix(node: &Node, table: &Table) -> Node {
    let entries: Vec<Entry> = table
        .entries
        .iter()
        .filter(|entry| entry.key != "matrix")
        .cloned()
        .collect();
    Node {
        span: node.span,
        value: Value::Table(Table {
            anchor: table.anchor,
            entries,
        }),
        substituted: false,
    }
}

/// Without the keys that wait for a value of the matrix; but for `run`, which may be any text.
fn without_places(mut node: Node) -> Node {
    if let Value::Table(table) = &mut node.value {
        table
            .entries
            .retain(|entry| entry.key == "run" || !waits(&entry.value));
    }
    node
}

fn waits(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => text.contains(OPEN),
        Value::List(items) => items.iter().any(waits),
        Value::Table(table) => table.entries.iter().any(|entry| waits(&entry.value)),
        _ => false,
    }
}
