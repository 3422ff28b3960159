//! Right pipeline files: what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hm_pipeline::parse::{Format, read};
use hm_pipeline::pipeline::{Outputs, StepBase};
use hm_pipeline::{Pipeline, StepId};
use hm_vm_core::NetworkPolicy;

/// The form that the project promises to keep.
const EXAMPLE: &str = r#"
[pipeline]
name = "ci"
image = "debian:bookworm"

[steps.deps]
run = "apt-get update && apt-get install -y gcc make"
network = "outbound"

[steps.build]
from = "deps"
inject = "."
workdir = "/src"
run = "make -j2"
outputs = ["app"]

[steps.test]
from = "build"
run = "make check"
timeout = "5m"
"#;

fn pipeline(text: &str) -> Pipeline {
    read(text, Format::Toml, Path::new("/work/project"))
        .unwrap_or_else(|problems| panic!("{}", problems.render("hmvm.toml", text)))
}

#[test]
fn the_promised_example() {
    let pipeline = pipeline(EXAMPLE);
    assert_eq!(pipeline.name, "ci");
    assert_eq!(pipeline.directory, PathBuf::from("/work/project"));
    let [deps, build, test] = &pipeline.steps[..] else {
        panic!("three steps: {:?}", pipeline.steps)
    };
    assert_eq!(deps.base, StepBase::Image("debian:bookworm".to_owned()));
    assert_eq!(deps.network, NetworkPolicy::Outbound);
    assert_eq!(deps.working_dir, "/");
    assert_eq!(build.base, StepBase::Step(StepId(0)));
    assert_eq!(build.injects[0].source, PathBuf::from("."));
    assert_eq!(build.injects[0].target, "/src");
    let app = Outputs {
        pattern: "app".to_owned(),
        to: PathBuf::new(),
    };
    assert_eq!(build.outputs, [app]);
    assert_eq!(test.base, StepBase::Step(StepId(1)));
    assert_eq!(test.working_dir, "/src");
    assert_eq!(test.timeout, Some(Duration::from_secs(300)));
}
