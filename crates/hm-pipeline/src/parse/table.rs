//! A kind of value: how it is read, and its schema.

use serde_json::{Value as Json, json};

use super::reader::{Reader, nearest};
use super::tree::{Node, Table, Value};

/// A kind of value of the file.
pub(crate) trait FromNode: Sized {
    /// Reads a value. `None` when it is wrong, which has been noted then.
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;

    /// What stands for it where the key is missing; `None` when it must be there.
    fn absent() -> Option<Self> {
        None
    }

    /// What stands for it where it is wrong or missing, so that the rest is checked all the same. Nothing
    /// comes of a file with problems.
    fn fallback() -> Option<Self> {
        Self::absent()
    }

    /// Its JSON schema.
    fn schema() -> Json;
}

impl<T: FromNode> FromNode for Option<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if reader.null_is_absent && matches!(node.value, Value::Null) {
            return Some(None);
        }
        T::from_node(node, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema() -> Json {
        T::schema()
    }
}

/// Notes that a value is of another kind.
pub(crate) fn wrong_kind(node: &Node, wanted: &str, reader: &mut Reader<'_>) {
    let message = format!("expected {wanted}, found {}", node.value.kind());
    let source = reader.source.get(node.span.start..node.span.end);
    let hint = match &node.value {
        Value::Null => "leave the key out".to_owned(),
        Value::List(_) if wanted == "a string" => {
            "write one string; one of many lines stands in \"\"\" … \"\"\" in TOML".to_owned()
        }
        Value::Bool(_) | Value::Integer(_) | Value::Number(_) | Value::Date
            if wanted.starts_with("a string") =>
        {
            format!("put it in quotes: \"{}\"", source.unwrap_or_default())
        }
        _ if wanted.starts_with("a list") => "write a list, as [\"A\", \"B\"]".to_owned(),
        _ if wanted.starts_with("a table") => "write a table, as { KEY = VALUE }".to_owned(),
        _ => format!("write {wanted}"),
    };
    reader.report(node.span, message, hint);
}

/// Reads one key of a table.
pub(crate) fn field<T: FromNode>(table: &Table, key: &str, reader: &mut Reader<'_>) -> Option<T> {
    match table.get(key) {
        Some(entry) => T::from_node(&entry.value, reader).or_else(T::fallback),
        None => {
            let absent = T::absent();
            if absent.is_none() {
                reader.report(
                    table.anchor,
                    format!("`{key}` is missing"),
                    format!("add `{key}` to this table"),
                );
            }
            absent.or_else(T::fallback)
        }
    }
}

/// Notes keys that the table does not have.
pub(crate) fn check_keys(table: &Table, known: &[&str], reader: &mut Reader<'_>) {
    for entry in &table.entries {
        if known.contains(&entry.key.as_str()) {
            continue;
        }
        let hint = match meant(&entry.key, known) {
            Some(key) => format!("did you mean `{key}`?"),
            None => format!("keys here are {}", known.join(", ")),
        };
        reader.report(entry.key_span, format!("unknown key `{}`", entry.key), hint);
    }
}

/// The known key that another word for it, or a slip, stands for.
fn meant<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    const OTHER_WORDS: &[(&str, &str)] = &[
        ("cmd", "run"),
        ("command", "run"),
        ("commands", "run"),
        ("script", "run"),
        ("depends_on", "needs"),
        ("requires", "needs"),
        ("after", "needs"),
        ("parent", "from"),
        ("extends", "from"),
        ("working_dir", "workdir"),
        ("working_directory", "workdir"),
        ("cwd", "workdir"),
        ("environment", "env"),
        ("variables", "env"),
        ("when", "if"),
        ("only", "if"),
        ("artifacts", "outputs"),
        ("retry", "retries"),
        ("continue_on_error", "allow_failure"),
        ("jobs", "steps"),
        ("path", "target"),
        ("src", "source"),
        ("dest", "target"),
        ("destination", "target"),
        ("insecure", "plain_http"),
        ("http", "plain_http"),
        ("certificates", "ca"),
        ("roots", "ca"),
        ("url", "repository"),
        ("ref", "repository"),
        ("registry", "registries"),
    ];
    let other = key.replace('-', "_");
    nearest(key, known.iter().copied()).or_else(|| {
        let (_, word) = OTHER_WORDS.iter().find(|(word, _)| *word == other)?;
        known.iter().copied().find(|key| key == word)
    })
}

/// Table and its span, or a note that it is none.
pub(crate) fn as_table<'n>(
    node: &'n Node,
    wanted: &str,
    reader: &mut Reader<'_>,
) -> Option<&'n Table> {
    match &node.value {
        Value::Table(table) => Some(table),
        _ => {
            wrong_kind(node, wanted, reader);
            None
        }
    }
}

/// The schema of a table with these keys: name, description, schema, whether it must be there.
pub(crate) fn table_schema(description: &str, keys: Vec<(&str, String, Json, bool)>) -> Json {
    let required: Vec<&str> = keys
        .iter()
        .filter(|(_, _, _, required)| *required)
        .map(|(name, ..)| *name)
        .collect();
    let mut properties = serde_json::Map::new();
    for (name, text, mut schema, _) in keys {
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(text));
        }
        properties.insert(name.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "description": description.trim(),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Joins the lines of a documentation comment.
pub(crate) fn documentation(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim().to_owned()
}

/// Declares a table of the file: its keys with their kinds. The reader and the schema are made
/// from the same lines, and so cannot disagree.
macro_rules! table {
    ($(
        $(#[doc = $about:literal])*
        $name:ident { $( $(#[doc = $line:literal])* $key:ident: $kind:ty, )* }
    )*) => { $(
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $( $(#[doc = $line])* pub(crate) $key: $kind, )*
        }

        impl $crate::parse::FromNode for $name {
            fn from_node(
                node: &$crate::parse::Node,
                reader: &mut $crate::parse::Reader<'_>,
            ) -> Option<Self> {
                let table = $crate::parse::table::as_table(node, "a table", reader)?;
                let keys = [$( stringify!($key).trim_start_matches("r#") ),*];
                $crate::parse::table::check_keys(table, &keys, reader);
                // Every key is read before the first wrong one ends it.
                $( let $key = $crate::parse::table::field::<$kind>(
                    table, stringify!($key).trim_start_matches("r#"), reader,
                ); )*
                Some(Self { $( $key: $key?, )* })
            }

            fn schema() -> serde_json::Value {
                use $crate::parse::table::{documentation, table_schema};
                table_schema(&documentation(&[$($about),*]), vec![$( (
                    stringify!($key).trim_start_matches("r#"),
                    documentation(&[$($line),*]),
                    <$kind as $crate::parse::FromNode>::schema(),
                    <$kind as $crate::parse::FromNode>::absent().is_none(),
                ) ),*])
            }
        }
    )* };
}
pub(crate) use table;
