//! Files of anybody: no panic, no overflow of the stack, no use of memory beyond measure.

use std::path::Path;

use hm_pipeline::Condition;
use hm_pipeline::parse::{Diagnostics, Format, SIZE_LIMIT, read};
use proptest::prelude::*;

fn refused(text: &str, format: Format) -> Diagnostics {
    match read(text, format, Path::new("/work/project")) {
        Ok(pipeline) => panic!("{} steps", pipeline.steps.len()),
        Err(problems) => {
            // What the user sees must not fail either.
            assert!(!problems.render("file", text).is_empty());
            assert!(!problems.problems.is_empty());
            problems
        }
    }
}

/// In a thread with the stack that tokio's workers have.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread
        .spawn(work)
        .expect("a thread")
        .join()
        .expect("no panic");
}

#[test]
fn a_file_that_is_too_large() {
    let text = format!("# {}\n", "x".repeat(SIZE_LIMIT));
    let problems = refused(&text, Format::Toml);
    assert_eq!(problems.to_string(), "1:1: the file is larger than 4 MiB");
}

#[test]
fn deep_nesting() {
    on_a_small_stack(|| {
        for format in [Format::Toml, Format::Json, Format::HmIr] {
            for (open, close) in [
                ("[", "]"),
                ("{\"a\":", "}"),
                ("{a=", "}"),
                ("{\"a\":[", "]}"),
            ] {
                let many = 100_000;
                refused(&open.repeat(many), format);
                refused(&(open.repeat(many) + "1" + &close.repeat(many)), format);
                refused(
                    &format!("steps = {}1{}", open.repeat(many), close.repeat(many)),
                    format,
                );
            }
        }
        let dotted = vec!["a"; 500_000].join(".");
        refused(&format!("{dotted} = 1"), Format::Toml);
        refused(&format!("[{dotted}]"), Format::Toml);
        refused(&format!("steps.{dotted} = 1"), Format::Toml);
    });
}

#[test]
fn deep_nesting_by_dotted_keys_in_tables() {
    on_a_small_stack(|| {
        // Each of the two depths is as far as the parser goes.
        let dotted = vec!["a"; 79].join(".");
        for levels in [10, 40, 78, 79, 80] {
            let text = format!(
                "steps.x.env = {}1{}",
                format!("{{{dotted} = ").repeat(levels),
                "}".repeat(levels)
            );
            refused(&text, Format::Toml);
        }
    });
}

#[test]
fn deep_conditions() {
    on_a_small_stack(|| {
        let many = 1_000_000;
        for text in [
            "!".repeat(many) + "true",
            "(".repeat(many) + "true" + &")".repeat(many),
            "!(".repeat(many),
        ] {
            let error = Condition::parse(&text).expect_err("too deep");
            assert_eq!(error.message, "nested deeper than 32 levels");
        }
        let long = vec!["env.A"; 100_000].join(" && ");
        assert!(Condition::parse(&long).is_ok());
    });
}

#[test]
fn a_long_chain_and_a_long_cycle() {
    on_a_small_stack(|| {
        let mut text = String::from("[steps.s0]\nrun = \"x\"\n");
        for index in 1..9_999 {
            text += &format!("[steps.s{index}]\nrun = \"x\"\nfrom = \"s{}\"\n", index - 1);
        }
        let chain = read(&text, Format::Toml, Path::new("/p")).expect("a chain");
        assert_eq!(chain.steps.len(), 9_999);
        let cycle = text.replacen("run = \"x\"", "run = \"x\"\nfrom = \"s9998\"", 1);
        let problems = refused(&cycle, Format::Toml);
        let message = &problems.problems[0].message;
        assert!(message.starts_with("cycle: s0 → s9998 → "), "{message}");
        assert!(message.len() < 200, "{message}");
    });
}

#[test]
fn a_matrix_that_multiplies_text() {
    let long = "x".repeat(1 << 20);
    let axis: Vec<String> = (0..5_000).map(|value| value.to_string()).collect();
    let axis = axis.join(",");
    let text = format!("[steps.a]\nrun = \"{long}\"\nmatrix = {{ v = [{axis}] }}\n");
    let problems = refused(&text, Format::Toml);
    assert_eq!(
        problems.to_string(),
        "1:8: the steps have more than 64 MiB of text"
    );
    let many = "${matrix.v}".repeat(100_000);
    let text = format!("[steps.a]\nrun = \"{many}\"\nmatrix = {{ v = [\"{long}\"] }}\n");
    let problems = refused(&text, Format::Toml);
    assert_eq!(
        problems.to_string(),
        "1:8: the steps have more than 64 MiB of text"
    );
}

#[test]
fn a_matrix_with_more_combinations_than_numbers() {
    let axes: Vec<String> = (0..64).map(|axis| format!("a{axis} = [1, 2]")).collect();
    let text = format!(
        "[steps.a]\nrun = \"x\"\nmatrix = {{ {} }}\n",
        axes.join(", ")
    );
    let problems = refused(&text, Format::Toml);
    let expected = "1:8: with `a` the pipeline has more than 10000 steps";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn more_dependencies_than_can_be() {
    let axis: Vec<String> = (0..4_000).map(|value| value.to_string()).collect();
    let axis = axis.join(",");
    let text = format!(
        "[steps.a]\nrun = \"x\"\nmatrix = {{ v = [{axis}] }}\n\
         [steps.b]\nrun = \"x\"\nneeds = \"a\"\nmatrix = {{ w = [{axis}] }}\n"
    );
    let problems = refused(&text, Format::Toml);
    let expected = "4:8: more than 1000000 dependencies between steps";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn very_many_problems() {
    let text: String = (0..50_000).map(|key| format!("key{key} = 1\n")).collect();
    let problems = refused(&format!("{text}[steps.a]\nrun = \"x\"\n"), Format::Toml);
    assert_eq!(problems.problems.len(), 100);
    assert_eq!(problems.omitted, 49_900);
    let shown = problems.to_string();
    assert!(shown.ends_with("\n… and 49900 more problems"), "{shown}");
}

#[test]
fn very_many_duplicates() {
    let text = format!("[steps.a]\nrun = \"x\"\n{}", "[steps.a]\n".repeat(50_000));
    assert_eq!(refused(&text, Format::Toml).omitted, 49_900);
    let text = format!("[steps.a]\nrun = \"x\"\n{}", "run = 1\n".repeat(50_000));
    assert_eq!(refused(&text, Format::Toml).omitted, 49_900);
    let text = format!(
        "{{ \"steps\": {{ \"a\": {{ {} \"run\": 1 }} }} }}",
        "\"run\": \"x\",".repeat(50_000)
    );
    assert_eq!(refused(&text, Format::Json).omitted, 49_900);
}

#[test]
fn a_file_does_not_write_to_the_terminal() {
    let text = "{ \"steps\": { \"\u{1b}[31mred\": { \"run\": \"\u{9b}2J\", \"x\u{7}\": 1 } } }";
    let rendered = refused(text, Format::Json).render("f.json", text);
    assert!(
        !rendered.contains(|letter: char| letter.is_control() && letter != '\n'),
        "{rendered}"
    );
}

/// Text that looks like a pipeline, in parts that may not fit.
fn almost_a_file() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("[steps.a]\n".to_owned()),
        Just("[steps.b]\n".to_owned()),
        Just("[pipeline]\n".to_owned()),
        Just("run = \"x\"\n".to_owned()),
        Just("from = \"a\"\n".to_owned()),
        Just("needs = [\"b\", \"a\"]\n".to_owned()),
        Just("matrix = { os = [\"a\", 1], exclude = [{ os = 1 }] }\n".to_owned()),
        Just("if = \"env.é && (changed('x')\"\n".to_owned()),
        Just("run = \"\"\"é${matrix.os} ${matrix.\"\"\"\n".to_owned()),
        "[a-z_]{1,8} = (\"[ -~é\u{7f}]{0,8}\"|[0-9]{1,3}|\\[\\]|\\{\\}|true)\n",
        "timeout = \"[0-9.]{0,30}[a-zµ]{0,3}\"\n",
        "memory = \"[0-9.]{0,30}[a-zA-Zµ]{0,4}\"\n",
        "\\PC{0,12}",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// JSON of any form, with the keys of pipelines and graphs.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[0-9]{1,20}",
        "\"[ a-z0-9é${}.*=/-]{0,10}\"",
    ];
    let key = prop_oneof![
        Just("steps"),
        Just("a"),
        Just("run"),
        Just("from"),
        Just("needs"),
        Just("inject"),
        Just("matrix"),
        Just("secrets"),
        Just("services"),
        Just("cache"),
        Just("graph"),
        Just("nodes"),
        Just("edges"),
        Just("version"),
        Just("step"),
        Just("env"),
        Just("key"),
        Just("cmd"),
        Just("node_holes"),
        Just("edge_property"),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|all| {
                let all: Vec<String> = all
                    .into_iter()
                    .map(|(key, value)| format!("\"{key}\": {value}"))
                    .collect();
                format!("{{{}}}", all.join(", "))
            }),
        ]
    })
}

fn survives(text: &str) {
    for format in [Format::Toml, Format::Json, Format::HmIr] {
        if let Err(problems) = read(text, format, Path::new("/work/project")) {
            assert!(!problems.problems.is_empty());
            let rendered = problems.render("file", text);
            assert!(rendered.lines().count() >= problems.problems.len());
        }
    }
}

proptest! {
    #[test]
    fn any_text(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_bytes_that_are_text(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn almost_a_pipeline(text in almost_a_file()) {
        survives(&text);
    }

    #[test]
    fn json_of_any_form(text in any_json()) {
        survives(&text);
    }

    #[test]
    fn any_condition(text in "[a-z.()!&|=\"', é]{0,40}") {
        if let Err(error) = Condition::parse(&text) {
            prop_assert!(text.is_char_boundary(error.offset));
        }
    }
}
