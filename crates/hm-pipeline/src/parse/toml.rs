//! From TOML to the tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::reader::Reader;
use super::tree::{Entry, Node, Span, Table, Value};

/// Deepest nesting of values, and of keys: far more than a pipeline has. The parser bounds brackets and dots
/// each for themselves, but not their product, and neither it nor a tree that deep fits every stack.
const DEPTH_LIMIT: usize = 64;

/// Reads TOML. `None` when it is so wrong that its content cannot be told; problems are noted.
pub(crate) fn parse(source: &str, reader: &mut Reader<'_>) -> Option<Node> {
    if let Some(at) = too_deep(source) {
        let message = format!("nested deeper than {DEPTH_LIMIT} levels");
        reader.report(Span::new(at, at + 1), message, "a pipeline needs five");
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(source);
    let mut readable = true;
    for error in errors {
        let span = error.span().map_or_else(Span::default, Span::from);
        if error.message() == "duplicate key" {
            // All that was read is right, so that the rest is worth a look.
            let key = source.get(span.start..span.end).unwrap_or_default();
            reader.report(
                span,
                format!("duplicate key `{}`", key.trim()),
                "keep one of them",
            );
        } else {
            readable = false;
            let text = source.get(span.start..span.end).unwrap_or_default();
            let hint = suggestion(error.message(), text);
            reader.note(span, error.message().to_owned(), hint);
        }
    }
    let span = Span::from(root.span());
    let table = table_of(root.get_ref(), Span::new(span.start, span.start));
    readable.then(|| Node::new(span, Value::Table(table)))
}

/// Where the nesting goes too deep. What is no TOML is left to the parser.
fn too_deep(source: &str) -> Option<usize> {
    // The depth around each open bracket.
    let mut around: Vec<usize> = Vec::new();
    let mut depth = 0_usize;
    let mut dots = 0_usize;
    for token in Source::new(source).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                around.push(depth);
                depth += 1 + dots;
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = around.pop().unwrap_or_default();
                dots = 0;
            }
            TokenKind::Comma | TokenKind::Newline => dots = 0,
            _ => {}
        }
        if depth + dots > DEPTH_LIMIT {
            return Some(token.span().start());
        }
    }
    None
}

/// What to do about the usual slips.
fn suggestion(message: &str, text: &str) -> Option<String> {
    const QUOTE: &str = "close the string; one of many lines stands in \"\"\" … \"\"\"";
    let hint = if message.contains("must be quoted") {
        format!("put it in quotes: \"{}\"", text.trim())
    } else if message.contains("string") {
        QUOTE.to_owned()
    } else if message.starts_with("unclosed") {
        "close it".to_owned()
    } else {
        return None;
    };
    Some(hint)
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
