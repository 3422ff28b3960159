//! The values of a matrix: combinations, and `${matrix.AXIS}` in texts.

use super::reader::{Reader, nearest};
use super::tree::{Entry, Node, Span, Table, Value};
use super::unions::MatrixTable;

/// What opens a place for a value.
pub(crate) const OPEN: &str = "${matrix.";

/// A combination: axes with their values, in the order of the file.
pub(crate) type Combination = Vec<(String, String)>;

/// Name of a combination: `[os=a,v=1]`.
pub(crate) fn suffix(values: &Combination) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|(axis, value)| format!("{axis}={value}"))
        .collect();
    format!("[{}]", parts.join(","))
}

/// How many combinations there are before any is left out; `None` beyond all bounds.
pub(crate) fn count(matrix: &MatrixTable) -> Option<usize> {
    matrix
        .axes
        .iter()
        .try_fold(1_usize, |product, (_, values)| {
            product.checked_mul(values.len())
        })
}

/// All combinations, the last axis running fastest, without those that are left out. `count` bounds them.
pub(crate) fn combinations(matrix: &MatrixTable, reader: &mut Reader<'_>) -> Vec<Combination> {
    let mut all: Vec<Combination> = vec![Vec::new()];
    for (axis, values) in &matrix.axes {
        let longer = |combination: Combination| {
            values.iter().map(move |value| {
                let mut longer = combination.clone();
                longer.push((axis.text.clone(), value.clone()));
                longer
            })
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    for exclusion in &matrix.exclude {
        let before = all.len();
        all.retain(|combination| {
            !combination
                .iter()
                .filter(|(axis, _)| exclusion.values.contains_key(axis))
                .all(|(axis, value)| exclusion.values[axis] == *value)
        });
        if all.len() == before {
            let hint = "remove it: an earlier one leaves the same combinations out";
            reader.report(exclusion.span, "leaves nothing out", hint);
        }
    }
    all
}

/// Puts values into texts.
#[derive(Debug)]
pub(crate) struct Substitution<'v> {
    pub(crate) values: &'v Combination,
    /// Bytes of text that may still be made; a file of a few MiB could ask for any amount else.
    pub(crate) budget: &'v mut usize,
}

impl Substitution<'_> {
    /// The node with the values of a combination in all of its texts. `None` when the budget is used up.
    pub(crate) fn apply(&mut self, node: &Node, reader: &mut Reader<'_>) -> Option<Node> {
        let mut substituted = false;
        let value = match &node.value {
            Value::Text(text) => {
                let (text, changed) = self.text(text, node.span, reader)?;
                substituted = changed;
                Value::Text(text)
            }
            Value::List(items) => {
                let items = items.iter().map(|item| self.apply(item, reader));
                Value::List(items.collect::<Option<_>>()?)
            }
            Value::Table(table) => {
                let entries = table.entries.iter().map(|entry| {
                    Some(Entry {
                        key: entry.key.clone(),
                        key_span: entry.key_span,
                        value: self.apply(&entry.value, reader)?,
                    })
                });
                Value::Table(Table {
                    anchor: table.anchor,
                    entries: entries.collect::<Option<_>>()?,
                })
            }
            other => other.clone(),
        };
        Some(Node {
            span: node.span,
            value,
            substituted,
        })
    }

    fn text(&mut self, text: &str, span: Span, reader: &mut Reader<'_>) -> Option<(String, bool)> {
        let mut out = String::new();
        let mut rest = text;
        let mut changed = false;
        while let Some(at) = rest.find(OPEN) {
            self.push(&mut out, &rest[..at])?;
            let after = &rest[at + OPEN.len()..];
            let Some(end) = after.find('}') else {
                let hint = "close it: ${matrix.AXIS}";
                reader.report(span, "`${matrix.` without `}`", hint);
                break;
            };
            let axis = &after[..end];
            match self.values.iter().find(|(name, _)| name == axis) {
                Some((_, value)) => self.push(&mut out, value)?,
                None => self.unknown(axis, span, reader),
            }
            changed = true;
            rest = &after[end + 1..];
        }
        self.push(&mut out, rest)?;
        Some((out, changed))
    }

    fn push(&mut self, out: &mut String, text: &str) -> Option<()> {
        *self.budget = self.budget.checked_sub(text.len())?;
        out.push_str(text);
        Some(())
    }

    fn unknown(&self, axis: &str, span: Span, reader: &mut Reader<'_>) {
        let names: Vec<&str> = self.values.iter().map(|(name, _)| name.as_str()).collect();
        let hint = match nearest(axis, names.iter().copied()) {
            Some(name) => format!("did you mean ${{matrix.{name}}}?"),
            None if names.is_empty() => {
                "the step has no matrix: add one, as matrix = { version = [\"1\", \"2\"] }"
                    .to_owned()
            }
            None => format!("axes are {}", names.join(", ")),
        };
        let span = place(axis, span, reader.source);
        reader.report(span, format!("unknown axis `{axis}`"), hint);
    }
}

/// Where the axis stands in the source of a text.
fn place(axis: &str, span: Span, source: &str) -> Span {
    let wanted = format!("{OPEN}{axis}}}");
    let found = source
        .get(span.start..span.end)
        .and_then(|text| text.find(&wanted));
    found.map_or(span, |at| {
        let start = span.start + at;
        Span::new(start, start + wanted.len())
    })
}
