//! From the steps of the file to those of the pipeline: each combination of a matrix is one.

use super::matrix::{Combination, Substitution, combinations, count, suffix};
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
    let mut budget = TEXT_LIMIT;
    let mut steps = Vec::new();
    for (name, raw) in &file.steps.entries {
        let Value::Table(table) = &raw.node.value else {
            continue;
        };
        let (matrix, wrong) = match table.get("matrix") {
            Some(entry) => {
                let matrix = MatrixTable::from_node(&entry.value, reader);
                let wrong = matrix.is_none();
                (matrix, wrong)
            }
            None => (None, false),
        };
        let all = match &matrix {
            Some(matrix) => {
                let total = count(matrix).and_then(|count| count.checked_add(steps.len()));
                if total.is_none_or(|total| total > STEP_LIMIT) {
                    too_many(name, reader);
                    return None;
                }
                combinations(matrix, reader)
            }
            None => vec![Combination::new()],
        };
        if all.is_empty() {
            let hint = "leave fewer combinations out, or remove the step";
            reader.report(
                name.span,
                format!("the matrix of `{}` leaves no step", name.text),
                hint,
            );
        }
        if steps.len() + all.len() > STEP_LIMIT {
            too_many(name, reader);
            return None;
        }
        let node = without_matrix(&raw.node, table);
        for values in all {
            let table = if wrong {
                // Its axes are not known: the texts are read as they are, so that the rest is checked.
                StepTable::from_node(&node, reader);
                None
            } else {
                let mut substitution = Substitution {
                    values: &values,
                    budget: &mut budget,
                };
                let Some(node) = substitution.apply(&node, reader) else {
                    reader.report(
                        name.span,
                        format!("the steps have more than {} MiB of text", TEXT_LIMIT >> 20),
                        "put long commands into a script of the project",
                    );
                    return None;
                };
                StepTable::from_node(&node, reader)
            };
            steps.push(Expanded {
                name: if values.is_empty() {
                    name.text.clone()
                } else {
                    name.text.clone() + &suffix(&values)
                },
                group: name.text.clone(),
                span: name.span,
                values,
                table,
            });
        }
    }
    Some(steps)
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
