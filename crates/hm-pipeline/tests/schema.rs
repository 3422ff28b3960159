//! The schema of the file: shipped as it is, of one mind with the reader, and right for right files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hm_pipeline::parse::{Format, read};
use hm_pipeline::schema::json_schema;
use serde_json::{Value, json};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_shipped_schema_is_this_one() {
    let path = project().join("docs/hmvm.schema.json");
    let mut current = serde_json::to_string_pretty(&json_schema()).expect("JSON");
    current.push('\n');
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).expect("write the schema");
    }
    let shipped = std::fs::read_to_string(&path).expect("the shipped schema");
    assert!(
        shipped == current,
        "docs/hmvm.schema.json is out of date: run UPDATE_DOCS=1 cargo test -p hm-pipeline schema"
    );
}

/// The table at a path of keys in the schema; `*` stands for any name, and `[]` for an item.
fn table<'s>(schema: &'s Value, path: &str) -> &'s Value {
    let mut at = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        at = match part {
            "*" => &at["additionalProperties"],
            _ => &at["properties"][part],
        };
        at = choices(at)
            .into_iter()
            .flat_map(|choice| match choice.get("items") {
                Some(items) => choices(items),
                None => vec![choice],
            })
            .find(|choice| choice["type"] == "object")
            .unwrap_or_else(|| panic!("no table at {part} of {path}"));
    }
    at
}

fn choices(schema: &Value) -> Vec<&Value> {
    match schema["anyOf"].as_array() {
        Some(all) => all.iter().flat_map(choices).collect(),
        None => vec![schema],
    }
}

#[test]
fn reader_and_schema_have_the_same_keys() {
    let schema = json_schema();
    // A key that nobody knows, in each table: the reader tells those that it knows.
    let wrong = json!({ "qqqqqqqq": 1 });
    for (path, file) in [
        ("", json!({ "steps": {}, "qqqqqqqq": 1 })),
        ("pipeline", json!({ "pipeline": wrong, "steps": {} })),
        ("steps.*", json!({ "steps": { "a": wrong } })),
        (
            "steps.*.inject",
            json!({ "steps": { "a": { "inject": wrong } } }),
        ),
        (
            "steps.*.cache",
            json!({ "steps": { "a": { "cache": wrong } } }),
        ),
        (
            "steps.*.outputs",
            json!({ "steps": { "a": { "outputs": [wrong] } } }),
        ),
        (
            "steps.*.caches.*",
            json!({ "steps": { "a": { "caches": { "c": wrong } } } }),
        ),
        (
            "steps.*.secrets.*",
            json!({ "steps": { "a": { "secrets": { "s": wrong } } } }),
        ),
        (
            "steps.*.services.*",
            json!({ "steps": { "a": { "services": { "s": wrong } } } }),
        ),
        (
            "steps.*.services.*.ready",
            json!({ "steps": { "a": { "services": { "s": { "ready": wrong } } } } }),
        ),
    ] {
        let problems = read(&file.to_string(), Format::Json, Path::new("/p")).expect_err(path);
        let told = problems
            .problems
            .iter()
            .find(|problem| problem.message == "unknown key `qqqqqqqq`")
            .unwrap_or_else(|| panic!("{path}: {problems}"));
        let hint = told.suggestion.as_deref().expect("a suggestion");
        let keys = hint.strip_prefix("keys here are ").expect("the keys");
        let read: BTreeSet<&str> = keys.split(", ").collect();
        let table = table(&schema, path);
        let properties = table["properties"].as_object().expect("properties");
        let known: BTreeSet<&str> = properties
            .keys()
            .map(String::as_str)
            .filter(|key| *key != "$schema")
            .collect();
        assert_eq!(read, known, "{path}");
        assert_eq!(table["additionalProperties"], false, "{path}");
        for (key, property) in properties.iter().filter(|(key, _)| *key != "$schema") {
            let text = property["description"].as_str().unwrap_or_default();
            assert!(
                text.ends_with('.'),
                "{path}.{key} is not described: {text:?}"
            );
        }
    }
}

/// Whether a value fits a schema, as far as the words go that the schema uses.
fn fits(value: &Value, schema: &Value) -> bool {
    let Some(words) = schema.as_object() else {
        return schema == &Value::Bool(true);
    };
    words.iter().all(|(word, rule)| match word.as_str() {
        "$schema" | "title" | "description" | "examples" => true,
        "type" => match rule {
            Value::Array(kinds) => kinds.iter().any(|kind| is(value, kind)),
            kind => is(value, kind),
        },
        "anyOf" => rule
            .as_array()
            .expect("a list")
            .iter()
            .any(|choice| fits(value, choice)),
        "enum" => rule.as_array().expect("a list").contains(value),
        "minLength" => value
            .as_str()
            .is_some_and(|text| text.len() as u64 >= number(rule)),
        "minItems" => value
            .as_array()
            .is_some_and(|items| items.len() as u64 >= number(rule)),
        "minimum" => value.as_i64() >= rule.as_i64(),
        "maximum" => value.as_i64() <= rule.as_i64(),
        "pattern" if rule == r"\$\{matrix\." => value
            .as_str()
            .is_some_and(|text| text.contains("${matrix.")),
        "pattern" => value
            .as_str()
            .is_some_and(|text| !text.contains(['/', ' ', '='])),
        "required" => rule
            .as_array()
            .expect("a list")
            .iter()
            .all(|key| value.get(key.as_str().expect("a key")).is_some()),
        "items" => value
            .as_array()
            .is_none_or(|all| all.iter().all(|item| fits(item, rule))),
        "propertyNames" => value
            .as_object()
            .is_none_or(|table| table.keys().all(|key| fits(&key.as_str().into(), rule))),
        "properties" => value.as_object().is_none_or(|table| {
            table
                .iter()
                .all(|(key, value)| rule.get(key).is_none_or(|rule| fits(value, rule)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|table| {
            let named = &words.get("properties").unwrap_or(&Value::Null);
            table
                .iter()
                .filter(|(key, _)| named.get(key).is_none())
                .all(|(_, value)| fits(value, rule))
        }),
        other => panic!("the test does not know the word {other}"),
    })
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a kind") {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the test does not know the kind {other}"),
    }
}

fn number(rule: &Value) -> u64 {
    rule.as_u64().expect("a number")
}

/// What TOML says, in JSON.
fn json_of(item: &toml::de::DeValue<'_>) -> Value {
    use toml::de::DeValue;
    match item {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => number.as_str().parse::<i64>().expect("decimal").into(),
        DeValue::Boolean(boolean) => (*boolean).into(),
        DeValue::Array(items) => items.iter().map(|item| json_of(item.get_ref())).collect(),
        DeValue::Table(items) => items
            .iter()
            .map(|(key, item)| (key.get_ref().to_string(), json_of(item.get_ref())))
            .collect(),
        other => panic!("not in a pipeline: {other:?}"),
    }
}

fn value_of(text: &str) -> Value {
    let root = toml::de::DeTable::parse(text).expect("right TOML");
    json_of(&toml::de::DeValue::Table(root.into_inner()))
}

#[test]
fn right_files_fit() {
    let schema = json_schema();
    let mut files = vec![
        include_str!("pipeline_file/everything.toml").to_owned(),
        "[steps.a]\nrun = \"x\"\ncpus = \"${matrix.n}\"\nnetwork = \"${matrix.w}\"\nretries = \"${matrix.n}\"\n\
         matrix = { n = [1], w = [\"none\"], b = [true], exclude = [{ n = 1, w = \"none\" }] }\n"
            .to_owned(),
    ];
    let examples = std::fs::read_dir(project().join("examples")).expect("the examples");
    for example in examples {
        let path = example.expect("an entry").path().join("hmvm.toml");
        if let Ok(text) = std::fs::read_to_string(&path) {
            read(&text, Format::Toml, Path::new("/p")).unwrap_or_else(|problems| {
                panic!("{}", problems.render(&path.to_string_lossy(), &text))
            });
            files.push(text);
        }
    }
    for text in files {
        assert!(fits(&value_of(&text), &schema), "{text}");
    }
}

#[test]
fn wrong_files_do_not_fit() {
    let schema = json_schema();
    for text in [
        "",
        "steps = 1",
        "[steps.a]\nfrom = \"b\"",
        "[steps.a]\nrun = 1",
        "[steps.a]\nrun = \"\"",
        "[steps.a]\nrun = \"x\"\nnetwork = \"outbond\"",
        "[steps.a]\nrun = \"x\"\ncache = \"v1\"",
        "[steps.a]\nrun = \"x\"\nretries = 101",
        "[steps.a]\nrun = \"x\"\ncpus = \"2\"",
        "[steps.a]\nrun = \"x\"\nenv = { \"A=B\" = \"x\" }",
        "[steps.\"a b\"]\nrun = \"x\"",
        "[steps.a]\nrun = \"x\"\nmatrix = { a = [] }",
        "[steps.a]\nrun = \"x\"\nservices = { db = { image = \"i\" } }",
        "[pipeline]\nimgae = \"x\"\n[steps.a]\nrun = \"x\"",
    ] {
        assert!(!fits(&value_of(text), &schema), "{text}");
    }
}

#[test]
fn the_guide_is_right_and_names_every_key() {
    let guide = std::fs::read_to_string(project().join("docs/pipelines.md")).expect("the guide");
    let mut files = 0;
    for (opening, format) in [("```toml\n", Format::Toml), ("```json\n", Format::HmIr)] {
        for block in guide.split(opening).skip(1) {
            let text = block.split("```").next().unwrap_or_default();
            read(text, format, Path::new("/p"))
                .unwrap_or_else(|problems| panic!("{}", problems.render("pipelines.md", text)));
            files += 1;
        }
    }
    assert!(files > 8, "{files} examples");
    let schema = json_schema();
    for path in [
        "pipeline",
        "steps.*",
        "steps.*.inject",
        "steps.*.cache",
        "steps.*.outputs",
        "steps.*.caches.*",
        "steps.*.secrets.*",
        "steps.*.services.*",
        "steps.*.services.*.ready",
    ] {
        let properties = table(&schema, path)["properties"]
            .as_object()
            .expect("properties");
        for key in properties.keys() {
            let named = guide
                .lines()
                .filter_map(|line| line.strip_prefix("| "))
                .filter_map(|line| line.split(" | ").next())
                .any(|cell| cell.split(", ").any(|word| word == format!("`{key}`")));
            assert!(
                named || key == "timeout",
                "docs/pipelines.md does not tell {path}.{key}"
            );
        }
    }
}
