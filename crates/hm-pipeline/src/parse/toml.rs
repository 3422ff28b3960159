//! From TOML to the tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use super::tree::{Entry, Node, Span, Table, Value};

/// Reads TOML. `None` when it is so wrong that its content cannot be told; problems are noted.
pub(crate) fn parse(source: &str, reader: &mut Reader<'_>) -> Option<Node> {
    let (root, errors) = DeTable::parse_recoverable(source);
    let mut readable = true;
    for error in errors {
        let span = error.span().map_or_else(Span::default, Span::from);
        if error.message() == "duplicate key" {
            // All that was read is right, so that the rest is worth a look.
            let key = source.get(span.start..span.end).unwrap_or_default();
            reader.report_with(
                span,
                format!("duplicate key `{}`", key.trim()),
                "keep one of them",
            );
        } else {
            readable = false;
            reader.report(span, error.message().to_owned());
        }
    }
    let span = Span::from(root.span());
    let table = table_of(root.get_ref(), Span::new(span.start, span.start));
    readable.then(|| Node::new(span, Value::Table(table)))
}

fn table_of(table: &DeTable<'_>, anchor: Span) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| {
            let key_span = Span::from(key.span());
            Entry {
                key: key.get_ref().to_string(),
                key_span,
                value: node_of(value, key_span),
            }
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span);
    Table { anchor, entries }
}

fn node_of(value: &Spanned<DeValue<'_>>, anchor: Span) -> Node {
    let span = Span::from(value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Number(number.to_string()), Value::Integer),
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| node_of(item, item.span().into()))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(table_of(table, anchor)),
    };
    Node::new(span, value)
}
