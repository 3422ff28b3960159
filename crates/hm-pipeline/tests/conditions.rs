//! Conditions: what they mean, and what is told about wrong ones.

use std::cell::Cell;

use hm_pipeline::Condition;

fn holds(text: &str) -> bool {
    let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    condition.evaluate(
        &|name| match name {
            "CI" => Some("1".to_owned()),
            "BRANCH" => Some("main".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        },
        &|patterns| patterns.iter().any(|pattern| pattern == "src/**"),
    )
}

#[test]
fn meaning() {
    for text in [
        "true",
        "env.CI",
        " ( env.CI ) ",
        "!env.EMPTY",
        "!env.ABSENT",
        "env.BRANCH == \"main\"",
        "env.BRANCH=='main'",
        "env.BRANCH != 'dev'",
        "env.ABSENT == ''",
        "env.ABSENT != 'x'",
        "changed('src/**')",
        "changed('docs/**', \"src/**\")",
        "!changed('docs/**')",
        "false && false || true",
        "true || false && false",
        "!(false || false)",
        "!!true",
        "env.CI && env.BRANCH == 'main' && !false",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "false",
        "!true",
        "env.EMPTY",
        "env.ABSENT",
        "env.BRANCH == 'MAIN'",
        "env.CI != '1'",
        "changed('docs/**')",
        "false && (true || true)",
        "!true || false",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_changed_is_asked_for_only_when_it_matters() {
    let needs = |text: &str| Condition::parse(text).expect("right").needs_changes();
    assert!(needs("env.CI && !(false || changed('a'))"));
    assert!(!needs("env.CI && env.BRANCH == 'changed(a)'"));
    let asked = Cell::new(0);
    let condition = Condition::parse("env.CI && changed('a')").expect("right");
    let ask = |_: &[String]| {
        asked.set(asked.get() + 1);
        true
    };
    assert!(!condition.evaluate(&|_| None, &ask));
    assert_eq!(asked.get(), 0);
    assert!(condition.evaluate(&|_| Some("1".to_owned()), &ask));
    assert_eq!(asked.get(), 1);
}

#[test]
fn wrong_ones() {
    const ATOM: &str = "expected env.NAME, changed(…), true, false, `!` or `(`";
    for (text, offset, message) in [
        ("", 0, format!("{ATOM}, found the end")),
        ("env.CI &&", 9, format!("{ATOM}, found the end")),
        (
            "env.CI & env.X",
            7,
            "expected `&&`, `||` or the end, found `&`".to_owned(),
        ),
        (
            "env.CI env.X",
            7,
            "expected `&&`, `||` or the end, found `env.X`".to_owned(),
        ),
        ("(true", 5, "expected `)`, found the end".to_owned()),
        (
            "true)",
            4,
            "expected `&&`, `||` or the end, found `)`".to_owned(),
        ),
        (
            "env.A == main",
            9,
            "expected a text in quotes, found `main`".to_owned(),
        ),
        (
            "env.A == 'main",
            9,
            "the text has no closing quote".to_owned(),
        ),
        (
            "env.A = 'main'",
            6,
            "`=` is no comparison: write `==`".to_owned(),
        ),
        (
            "env.",
            4,
            "expected the name of a variable, found the end".to_owned(),
        ),
        ("env", 3, "expected `.`, found the end".to_owned()),
        ("branch == 'main'", 0, format!("{ATOM}, found `branch`")),
        ("changed", 7, "expected `(`, found the end".to_owned()),
        (
            "changed('a',)",
            12,
            "expected a text in quotes, found `)`".to_owned(),
        ),
        ("changed('')", 8, "the pattern is empty".to_owned()),
        ("é", 0, format!("{ATOM}, found `é`")),
    ] {
        let error = Condition::parse(text).expect_err(text);
        assert_eq!((error.offset, error.message), (offset, message), "{text}");
    }
}
