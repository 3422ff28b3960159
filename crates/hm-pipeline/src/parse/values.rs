//! Kinds of values that many tables use.

use std::marker::PhantomData;

use serde_json::{Value as Json, json};

use super::names::Name;
use super::reader::Reader;
use super::table::{FromNode, as_table, wrong_kind};
use super::tree::{Node, Span, Value};

/// Text and its place.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) span: Span,
    pub(crate) text: String,
}

impl FromNode for Text {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            wrong_kind(node, "a string", reader);
            return None;
        };
        if text.contains('\0') {
            // Neither a command line nor a path nor a variable can hold one.
            reader.report(node.span, "contains a NUL character", "remove it");
            return None;
        }
        Some(Self {
            span: node.span,
            text: text.clone(),
        })
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Text of a form that means more than its characters.
pub(crate) trait Form {
    type Value;

    fn parse(text: &str) -> Result<Self::Value, Wrong>;

    /// What to say of it beside `"type": "string"`.
    fn schema() -> Json;
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
    /// The offending byte of the text, if it is not the whole.
    pub(crate) at: Option<usize>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            suggestion: Some(suggestion.into()),
            at: None,
        }
    }
}

/// A text of a form, and its place.
#[derive(Clone, Debug)]
pub(crate) struct As<F: Form> {
    pub(crate) span: Span,
    pub(crate) value: F::Value,
}

impl<F: Form> FromNode for As<F> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Integer(number) = node.value {
            // The usual slip: `timeout = 90`.
            if let Err(wrong) = F::parse(&number.to_string()) {
                reader.note(node.span, wrong.message, wrong.suggestion);
                return None;
            }
        }
        let Text { span, text } = Text::from_node(node, reader)?;
        match F::parse(&text) {
            Ok(value) => Some(Self { span, value }),
            Err(wrong) => {
                let span = wrong.at.map_or(span, |at| inside(span, &text, at, reader));
                reader.note(span, wrong.message, wrong.suggestion);
                None
            }
        }
    }

    fn schema() -> Json {
        let mut schema = F::schema();
        if schema.get("anyOf").is_none() {
            schema["type"] = json!("string");
        }
        schema
    }
}

/// The place of a byte of a string, where the string stands in the source as it is.
fn inside(span: Span, text: &str, at: usize, reader: &Reader<'_>) -> Span {
    let inner = Span::new(span.start + 1, span.end.saturating_sub(1));
    match reader.source.get(inner.start..inner.end) {
        Some(source) if source == text => {
            let letter = |letter: char| letter.is_alphanumeric() || "_.".contains(letter);
            let rest = &text[at..];
            let word = rest.find(|next| !letter(next)).unwrap_or(rest.len());
            Span::new(inner.start + at, inner.start + at + word.max(1))
        }
        _ => span,
    }
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bool(pub(crate) bool);

impl FromNode for Bool {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(Self(*value)),
            Value::Text(text) if node.substituted && text == "true" => Some(Self(true)),
            Value::Text(text) if node.substituted && text == "false" => Some(Self(false)),
            Value::Text(text) if text == "true" || text == "false" => {
                let hint = format!("write {text} without quotes");
                reader.report(node.span, "expected a boolean, found a string", hint);
                None
            }
            _ => {
                wrong_kind(node, "true or false", reader);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": MATRIX }] })
    }
}

/// What a text holds that gets its value from the matrix.
pub(crate) const MATRIX: &str = r"\$\{matrix\.";

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count<const MIN: i64, const MAX: i64>(pub(crate) u64);

impl<const MIN: i64, const MAX: i64> FromNode for Count<MIN, MAX> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let number = match &node.value {
            Value::Integer(number) => *number,
            Value::Text(text) if node.substituted && text.parse::<i64>().is_ok() => {
                text.parse().unwrap_or_default()
            }
            Value::Text(text) if text.parse::<i64>().is_ok() => {
                let hint = format!("write {text} without quotes");
                reader.report(node.span, "expected an integer, found a string", hint);
                return None;
            }
            Value::Number(number) => {
                reader.report(
                    node.span,
                    format!("`{number}` is no whole number"),
                    format!("write a whole number from {MIN} to {MAX}"),
                );
                return None;
            }
            _ => {
                wrong_kind(node, "an integer", reader);
                return None;
            }
        };
        match u64::try_from(number) {
            Ok(value) if (MIN..=MAX).contains(&number) => Some(Self(value)),
            _ => {
                reader.report(
                    node.span,
                    format!("{number} is out of range"),
                    format!("write a whole number from {MIN} to {MAX}"),
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": MIN, "maximum": MAX },
            { "type": "string", "pattern": MATRIX },
        ] })
    }
}

/// A list.
#[derive(Clone, Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: FromNode> FromNode for List<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            wrong_kind(node, "a list", reader);
            return None;
        };
        let read = items.iter().filter_map(|item| T::from_node(item, reader));
        Some(Self(read.collect()))
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<T: FromNode> FromNode for OneOrMany<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::List(_) => List::from_node(node, reader).map(|List(items)| Self(items)),
            _ => T::from_node(node, reader).map(|item| Self(vec![item])),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// A table whose keys are names that the user gives, in the order of the text.
#[derive(Clone, Debug)]
pub(crate) struct Map<N, T> {
    pub(crate) entries: Vec<(Text, T)>,
    names: PhantomData<N>,
}

impl<N: Name, T: FromNode> FromNode for Map<N, T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let table = as_table(node, &format!("a table of {}s", N::WHAT), reader)?;
        let mut entries = Vec::with_capacity(table.entries.len());
        for entry in &table.entries {
            if let Err(wrong) = N::check(&entry.key) {
                reader.note(entry.key_span, wrong.message, wrong.suggestion);
            }
            let value = T::from_node(&entry.value, reader);
            if let Some(value) = value {
                let name = Text {
                    span: entry.key_span,
                    text: entry.key.clone(),
                };
                entries.push((name, value));
            }
        }
        Some(Self {
            entries,
            names: PhantomData,
        })
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": N::PATTERN },
            "additionalProperties": T::schema(),
        })
    }
}

/// A value that must be there, in a table that is checked all the same without it.
#[derive(Clone, Debug)]
pub(crate) struct Must<T>(pub(crate) Option<T>);

impl<T: FromNode> FromNode for Must<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self(T::from_node(node, reader)))
    }

    fn fallback() -> Option<Self> {
        Some(Self(None))
    }

    fn schema() -> Json {
        T::schema()
    }
}

/// A value that is read later.
#[derive(Clone, Debug)]
pub(crate) struct Raw<T> {
    pub(crate) node: Node,
    kind: PhantomData<T>,
}

impl<T: FromNode> FromNode for Raw<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        as_table(node, "a table", reader)?;
        Some(Self {
            node: node.clone(),
            kind: PhantomData,
        })
    }

    fn schema() -> Json {
        T::schema()
    }
}
