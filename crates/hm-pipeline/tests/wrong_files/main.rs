//! Wrong files: all that the user is told about them, to the letter.

use std::path::Path;

use hm_pipeline::parse::{Format, read};

mod graphs;
mod keys;
mod links;
mod matrix;
mod paths;
mod syntax;
mod values;

/// Compares what is told about `source`. Both texts begin on the line after their quote.
fn check(format: Format, source: &str, expected: &str) {
    let source = source.strip_prefix('\n').expect("begins on its own line");
    let expected = expected.strip_prefix('\n').expect("begins on its own line");
    let name = match format {
        Format::Toml => "hmvm.toml",
        Format::Json => "hmvm.json",
        Format::HmIr => "graph.json",
    };
    let problems = match read(source, format, Path::new("/work/project")) {
        Ok(pipeline) => panic!("nothing is wrong: {pipeline:?}"),
        Err(problems) => problems,
    };
    let rendered = problems.render(name, source);
    assert!(
        rendered == expected,
        "expected:\n{expected}\ntold:\n{rendered}"
    );
}
