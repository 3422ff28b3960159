//! The JSON schema of the pipeline file, for editors.

use serde_json::{Value, json};

use crate::parse::{FileTable, FromNode};

/// The JSON schema (draft 2020-12) of the file, for TOML and JSON alike. Made from the same declarations as
/// the reader: a key is in both, or in neither.
pub fn json_schema() -> Value {
    let mut schema = FileTable::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["properties"]["$schema"] = json!({ "type": "string" });
    schema["title"] = "hmvm pipeline".into();
    schema
}
