//! Values that can be written in several ways.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::forms::{choice_schema, choose};
use super::model::SecretTable;
use super::names::{AxisName, Name, SecretName};
use super::reader::Reader;
use super::table::{FromNode, as_table, wrong_kind};
use super::tree::{Node, Span, Value};
use super::values::{As, Form, List, Map, Must, Text, Wrong};
use crate::pipeline::CacheMode;

/// A short form as text, or the long form as a table.
#[derive(Clone, Debug)]
pub(crate) enum TextOr<T, L> {
    Short(T),
    Long(L),
}

impl<T: FromNode, L: FromNode> FromNode for TextOr<T, L> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(_) => T::from_node(node, reader).map(Self::Short),
            Value::Table(_) => L::from_node(node, reader).map(Self::Long),
            _ => {
                wrong_kind(node, "a string or a table", reader);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), L::schema()] })
    }
}

/// `auto` or `off`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheWord;

impl Form for CacheWord {
    type Value = CacheMode;

    fn parse(text: &str) -> Result<CacheMode, Wrong> {
        let choices = [("auto", CacheMode::Auto), ("off", CacheMode::Off)];
        choose(text, &choices).map_err(|wrong| match wrong.suggestion {
            Some(hint) if hint.starts_with("did you mean") => Wrong::new(wrong.message, hint),
            _ => Wrong::new(
                format!("unknown value `{text}`"),
                format!("write \"auto\" or \"off\", or {{ key = \"{text}\" }} for a key"),
            ),
        })
    }

    fn schema() -> Json {
        choice_schema(&["auto", "off"])
    }
}

/// Value of an environment variable: numbers and booleans count as their text.
#[derive(Clone, Debug)]
pub(crate) struct EnvValue(pub(crate) String);

impl FromNode for EnvValue {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(Self(value.to_string())),
            Value::Integer(value) => Some(Self(value.to_string())),
            Value::Number(value) => Some(Self(value.clone())),
            _ => Text::from_node(node, reader).map(|text| Self(text.text)),
        }
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// Secrets, as a list of variables or as a table.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) entries: Vec<(Text, SecretTable)>,
}

impl FromNode for Secrets {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Table(_) => Map::<SecretName, SecretTable>::from_node(node, reader)
                .map(|Map { entries, .. }| Self { entries }),
            Value::List(_) => {
                let List(names) = List::<Text>::from_node(node, reader)?;
                let mut entries: Vec<(Text, SecretTable)> = Vec::new();
                let mut right = true;
                for name in names {
                    if let Err(wrong) = SecretName::check(&name.text) {
                        reader.note(name.span, wrong.message, wrong.suggestion);
                        right = false;
                    }
                    if entries.iter().any(|(other, _)| other.text == name.text) {
                        let message = format!("duplicate secret `{}`", name.text);
                        reader.report(name.span, message, "remove one of them");
                        right = false;
                    }
                    let table = SecretTable {
                        env: Some(Must(Some(As {
                            span: name.span,
                            value: name.text.clone(),
                        }))),
                        file: None,
                        target: None,
                        variable: None,
                    };
                    entries.push((name, table));
                }
                right.then_some(Self { entries })
            }
            _ => {
                wrong_kind(node, "a list of names or a table of secrets", reader);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "array", "items": { "type": "string", "pattern": SecretName::PATTERN } },
            Map::<SecretName, SecretTable>::schema(),
        ] })
    }
}

/// The axes of a matrix, and the combinations that are left out.
#[derive(Clone, Debug)]
pub(crate) struct MatrixTable {
    /// Each with its values as text, in the order of the file.
    pub(crate) axes: Vec<(Text, Vec<String>)>,
    pub(crate) exclude: Vec<Exclusion>,
}

/// Combinations with these values are left out.
#[derive(Clone, Debug)]
pub(crate) struct Exclusion {
    pub(crate) span: Span,
    pub(crate) values: BTreeMap<String, String>,
}

impl FromNode for MatrixTable {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let table = as_table(node, "a table of axes", reader)?;
        let mut axes = Vec::new();
        let mut right = true;
        for entry in table.entries.iter().filter(|entry| entry.key != "exclude") {
            if let Err(wrong) = AxisName::check(&entry.key) {
                reader.note(entry.key_span, wrong.message, wrong.suggestion);
                right = false;
            }
            match axis_values(&entry.value, reader) {
                Some(values) => {
                    let name = Text {
                        span: entry.key_span,
                        text: entry.key.clone(),
                    };
                    axes.push((name, values));
                }
                None => right = false,
            }
        }
        if axes.is_empty() && right {
            let hint = "write for example: matrix = { version = [\"1\", \"2\"] }";
            reader.report(table.anchor, "the matrix has no axis", hint);
            return None;
        }
        let mut exclude = Vec::new();
        if let Some(entry) = table.get("exclude") {
            match read_exclusions(&entry.value, &axes, reader) {
                Some(read) => exclude = read,
                None => right = false,
            }
        }
        right.then_some(Self { axes, exclude })
    }

    fn schema() -> Json {
        let value = json!({ "type": ["string", "number", "boolean"] });
        json!({
            "type": "object",
            "properties": { "exclude": {
                "type": "array",
                "description": "Combinations that are left out: those that have all of these values.",
                "items": { "type": "object", "additionalProperties": value },
            } },
            "propertyNames": { "pattern": AxisName::PATTERN },
            "additionalProperties": { "type": "array", "minItems": 1, "items": value },
        })
    }
}

fn axis_values(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let Value::List(items) = &node.value else {
        wrong_kind(node, "a list of strings, numbers or booleans", reader);
        return None;
    };
    if items.is_empty() {
        reader.report(
            node.span,
            "the axis has no value",
            "give it one, or remove it",
        );
        return None;
    }
    let mut values: Vec<String> = Vec::new();
    let mut right = true;
    let mut seen = std::collections::HashSet::new();
    for item in items {
        let Some(value) = axis_value(item, reader) else {
            right = false;
            continue;
        };
        if !seen.insert(value.clone()) {
            let message = format!("duplicate value `{value}`");
            reader.report(item.span, message, "remove one of them");
            right = false;
        }
        values.push(value);
    }
    right.then_some(values)
}

fn axis_value(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    match &node.value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Integer(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.clone()),
        Value::Text(text) => {
            // The value becomes a part of the step's name, which has to stay readable and unique.
            let strange = |letter: char| letter.is_control() || "[],".contains(letter);
            if let Some(letter) = text.chars().find(|letter| strange(*letter)) {
                reader.report(
                    node.span,
                    format!("a value of a matrix cannot have {letter:?}"),
                    "give the value a name, and look it up in `run`",
                );
                return None;
            }
            Some(text.clone())
        }
        _ => {
            wrong_kind(node, "a string, a number or a boolean", reader);
            None
        }
    }
}

fn read_exclusions(
    node: &Node,
    axes: &[(Text, Vec<String>)],
    reader: &mut Reader<'_>,
) -> Option<Vec<Exclusion>> {
    let Value::List(items) = &node.value else {
        wrong_kind(node, "a list of tables", reader);
        return None;
    };
    let read: Vec<Option<Exclusion>> = items
        .iter()
        .map(|item| read_exclusion(item, axes, reader))
        .collect();
    read.into_iter().collect()
}

fn read_exclusion(
    node: &Node,
    axes: &[(Text, Vec<String>)],
    reader: &mut Reader<'_>,
) -> Option<Exclusion> {
    let table = as_table(node, "a table", reader)?;
    let names: Vec<&str> = axes.iter().map(|(name, _)| name.text.as_str()).collect();
    let mut values = BTreeMap::new();
    let mut right = true;
    if table.entries.is_empty() {
        let hint = "name an axis and a value, or remove it";
        reader.report(node.span, "leaves out everything", hint);
        right = false;
    }
    for entry in &table.entries {
        let value = axis_value(&entry.value, reader);
        let axis = axes.iter().find(|(name, _)| name.text == entry.key);
        let (Some((_, known)), Some(value)) = (axis, &value) else {
            right = false;
            if axis.is_none() {
                let hint = super::reader::nearest(&entry.key, names.iter().copied()).map_or_else(
                    || format!("axes are {}", names.join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                reader.report(
                    entry.key_span,
                    format!("unknown axis `{}`", entry.key),
                    hint,
                );
            }
            continue;
        };
        if !known.contains(value) {
            reader.report(
                entry.value.span,
                format!("`{}` has no value `{value}`", entry.key),
                format!("its values are {}", known.join(", ")),
            );
            right = false;
        }
        values.insert(entry.key.clone(), value.clone());
    }
    right.then_some(Exclusion {
        span: node.span,
        values,
    })
}
