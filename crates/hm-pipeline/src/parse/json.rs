//! From JSON to the tree.

use std::collections::HashMap;

use jsonc_parser::ast;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::reader::Reader;
use super::tree::{Entry, Node, Span, Table, Value};

/// Deepest nesting: far more than a pipeline has, and little enough for the stack of any thread.
const DEPTH_LIMIT: usize = 64;

/// Reads JSON. `None` when it is wrong; problems are noted.
pub(crate) fn parse(source: &str, reader: &mut Reader<'_>) -> Option<Node> {
    if let Some(at) = too_deep(source) {
        let message = format!("nested deeper than {DEPTH_LIMIT} levels");
        reader.report(Span::new(at, at + 1), message, "a pipeline needs five");
        return None;
    }
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    match parse_to_ast(source, &CollectOptions::default(), &strict) {
        Ok(parsed) => match parsed.value {
            Some(value) => {
                let start = value.start();
                Some(node_of(&value, Span::new(start, start), reader))
            }
            None => {
                let hint =
                    "a pipeline has steps, as { \"steps\": { \"build\": { \"run\": \"make\" } } }";
                reader.report(Span::default(), "the file is empty", hint);
                None
            }
        },
        Err(error) => {
            let mut message = error.kind().to_string();
            if let Some(first) = message.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            let hint = suggestion(error.kind()).map(str::to_owned);
            reader.note(span_of(error.range()), message, hint);
            None
        }
    }
}

/// What to do about the usual slips.
fn suggestion(kind: &ParseErrorKind) -> Option<&'static str> {
    match kind {
        ParseErrorKind::TrailingCommasNotAllowed => Some("remove the comma"),
        ParseErrorKind::ExpectedComma => Some("put a comma between them"),
        ParseErrorKind::CommentsNotAllowed => Some("remove the comment; a TOML file may have some"),
        ParseErrorKind::SingleQuotedStringsNotAllowed => Some("write it in double quotes"),
        ParseErrorKind::UnexpectedWord | ParseErrorKind::ExpectedStringObjectProperty => {
            Some("put it in double quotes")
        }
        ParseErrorKind::UnterminatedObject => Some("close it with `}`"),
        ParseErrorKind::UnterminatedArray => Some("close it with `]`"),
        _ => None,
    }
}

/// Where the nesting goes too deep. Strings are told apart as far as that is needed; what is no JSON is
/// left to the parser.
fn too_deep(source: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in source.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > DEPTH_LIMIT {
                    return Some(at);
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn span_of(range: Range) -> Span {
    Span::new(range.start, range.end)
}

fn node_of(value: &ast::Value<'_>, anchor: Span, reader: &mut Reader<'_>) -> Node {
    let span = span_of(value.range());
    let value = match value {
        ast::Value::StringLit(text) => Value::Text(text.value.to_string()),
        ast::Value::NumberLit(number) => number
            .value
            .parse()
            .map_or_else(|_| Value::Number(number.value.to_owned()), Value::Integer),
        ast::Value::BooleanLit(boolean) => Value::Bool(boolean.value),
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::Array(array) => {
            let mut items = Vec::with_capacity(array.elements.len());
            for item in &array.elements {
                let start = item.start();
                items.push(node_of(item, Span::new(start, start + 1), reader));
            }
            Value::List(items)
        }
        ast::Value::Object(object) => Value::Table(table_of(object, anchor, reader)),
    };
    Node::new(span, value)
}

fn table_of(object: &ast::Object<'_>, anchor: Span, reader: &mut Reader<'_>) -> Table {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut entries = Vec::with_capacity(object.properties.len());
    for property in &object.properties {
        let key = property.name.as_str();
        let key_span = span_of(property.name.range());
        if let Some(first) = seen.get(key) {
            let (line, _) = reader.place(*first);
            reader.report(
                key_span,
                format!("duplicate key `{key}`"),
                format!("keep one of them; the first one is on line {line}"),
            );
            continue;
        }
        seen.insert(key, key_span.start);
        entries.push(Entry {
            key: key.to_owned(),
            key_span,
            value: node_of(&property.value, key_span, reader),
        });
    }
    Table { anchor, entries }
}
