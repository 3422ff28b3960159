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

/// Duplicate keys whose first places are looked up.
const LOOKED_UP: usize = 100;

/// Reads TOML. `None` when it is so wrong that its content cannot be told; problems are noted.
pub(crate) fn parse(source: &str, reader: &mut Reader<'_>) -> Option<Node> {
    if let Some(at) = too_deep(source) {
        let message = format!("nested deeper than {DEPTH_LIMIT} levels");
        reader.report(Span::new(at, at + 1), message, "a pipeline needs five");
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(source);
    let span = Span::from(root.span());
    let table = table_of(root.get_ref(), Span::new(span.start, span.start));
    let mut readable = true;
    for (index, error) in errors.into_iter().enumerate() {
        let span = error.span().map_or_else(Span::default, Span::from);
        let text = source.get(span.start..span.end).unwrap_or_default().trim();
        if error.message() == "duplicate key" {
            // All that was read is right, so that the rest is worth a look. Looking a key up takes its time.
            let key = text.trim_matches(['"', '\'']);
            let other = (index < LOOKED_UP)
                .then(|| {
                    earlier(&table, key, span.start).or_else(|| earlier_header(source, span.start))
                })
                .flatten();
            let line = other.map(|other| reader.place(other).0);
            let which = line.map(|line| format!("; another one is on line {line}"));
            reader.report(
                span,
                format!("duplicate key `{text}`"),
                format!("keep one of them{}", which.unwrap_or_default()),
            );
        } else {
            readable = false;
            let hint = suggestion(error.message(), text);
            reader.note(span, error.message().to_owned(), hint);
        }
    }
    readable.then(|| Node::new(span, Value::Table(table)))
}

/// Where a key stands last before a place: between the keys of one table there are but tables of their own.
fn earlier(table: &Table, key: &str, before: usize) -> Option<usize> {
    let places = table.entries.iter().filter_map(|entry| {
        let own = entry.key == key && entry.key_span.start < before;
        let below = match &entry.value.value {
            Value::Table(table) => earlier(table, key, before),
            _ => None,
        };
        own.then_some(entry.key_span.start).max(below)
    });
    places.max()
}

/// Where the header of a table stands first. Of two tables with one header, the second one is in the tree.
fn earlier_header(source: &str, at: usize) -> Option<usize> {
    let start = source.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let header = source[start..].lines().next()?.trim();
    if !header.starts_with('[') {
        return None;
    }
    let mut place = 0;
    for line in source[..start].split_inclusive('\n') {
        if line.trim() == header {
            return Some(place);
        }
        place += line.len();
    }
    None
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
