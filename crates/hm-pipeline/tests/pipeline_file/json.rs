//! The same model in JSON.

use std::path::Path;

use hm_pipeline::parse::{Format, read};
use hm_pipeline::pipeline::StepBase;
use hm_pipeline::{Pipeline, StepId};

use super::{EVERYTHING, EXAMPLE, pipeline};

/// A file of TOML in JSON.
fn json_of(text: &str) -> String {
    fn value(item: &toml::de::DeValue<'_>) -> serde_json::Value {
        use toml::de::DeValue;
        match item {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Integer(number) => number.as_str().parse::<i64>().expect("decimal").into(),
            DeValue::Boolean(boolean) => (*boolean).into(),
            DeValue::Array(items) => items.iter().map(|item| value(item.get_ref())).collect(),
            DeValue::Table(items) => {
                let items = items.iter();
                items
                    .map(|(key, item)| (key.get_ref().to_string(), value(item.get_ref())))
                    .collect()
            }
            other => panic!("not in a pipeline: {other:?}"),
        }
    }
    let root = toml::de::DeTable::parse(text).expect("right TOML");
    value(&toml::de::DeValue::Table(root.into_inner())).to_string()
}

#[test]
fn json_says_the_same() {
    for text in [EXAMPLE, EVERYTHING] {
        let json = json_of(text);
        let from_json = read(&json, Format::Json, Path::new("/work/project"))
            .unwrap_or_else(|problems| panic!("{}", problems.render("hmvm.json", &json)));
        // serde_json sorts keys, and so the steps.
        assert_eq!(
            in_order_of_names(from_json),
            in_order_of_names(pipeline(text))
        );
    }
}

/// The pipeline with its steps and services in the order of their names.
fn in_order_of_names(mut pipeline: Pipeline) -> Pipeline {
    let mut order: Vec<usize> = (0..pipeline.steps.len()).collect();
    order.sort_by_key(|index| pipeline.steps[*index].name.clone());
    let place = |id: StepId| {
        let found = order.iter().position(|index| *index == id.0);
        StepId(found.expect("every step has a place"))
    };
    let base = |base: &mut StepBase| {
        if let StepBase::Step(id) = base {
            *id = place(*id);
        }
    };
    for step in &mut pipeline.steps {
        base(&mut step.base);
        for id in &mut step.needs {
            *id = place(*id);
        }
        for service in &mut step.services {
            base(&mut service.base);
        }
        step.services
            .sort_by(|one, other| one.name.cmp(&other.name));
    }
    pipeline
        .steps
        .sort_by(|one, other| one.name.cmp(&other.name));
    pipeline
}

#[test]
fn a_json_file_may_name_its_schema() {
    let text = r#"{ "$schema": "./hmvm.schema.json", "steps": { "a": { "run": "x" } } }"#;
    let pipeline = read(text, Format::Json, Path::new("/p")).expect("a pipeline");
    assert_eq!(pipeline.steps.len(), 1);
}
