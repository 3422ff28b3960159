//! Tests of the pictures.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use hm_vm_core::SnapshotId;
use proptest::prelude::*;

use super::{dot, svg};
use crate::event::SkipReason;
use crate::pipeline::{Pipeline, Service, StepBase, StepId, StepLimits};
use crate::plan::{CachedEntry, Decision, Plan};
use crate::testing::{pipeline, plan, step};

/// A rectangle of a picture: left, top, right, bottom.
type Rectangle = (f64, f64, f64, f64);

/// What is found in a picture.
struct Seen {
    boxes: HashMap<String, Rectangle>,
    texts: Vec<String>,
    edges: Vec<(String, String, String)>,
    paths: Vec<Vec<(f64, f64)>>,
    size: (f64, f64),
}

fn look(svg: &str) -> Seen {
    let document = roxmltree::Document::parse(svg).unwrap();
    let number = |node: roxmltree::Node<'_, '_>, name: &str| -> f64 {
        node.attribute(name).unwrap().parse().unwrap()
    };
    let root = document.root_element();
    let mut seen = Seen {
        boxes: HashMap::new(),
        texts: Vec::new(),
        edges: Vec::new(),
        paths: Vec::new(),
        size: (number(root, "width"), number(root, "height")),
    };
    for node in root.descendants() {
        match node.tag_name().name() {
            "rect" => {
                let (left, top) = (number(node, "x"), number(node, "y"));
                let corner = (left + number(node, "width"), top + number(node, "height"));
                let id = node.parent().unwrap().attribute("id").unwrap().to_owned();
                let before = seen.boxes.insert(id, (left, top, corner.0, corner.1));
                assert_eq!(before, None, "a step twice");
            }
            "text" => seen.texts.extend(node.text().map(str::to_owned)),
            "path" if node.attribute("data-from").is_some() => {
                let of = |name| node.attribute(name).unwrap().to_owned();
                seen.edges
                    .push((of("data-from"), of("data-to"), of("class")));
                let numbers = of("d").replace(['M', 'C', 'L'], " ");
                let numbers: Vec<f64> = numbers
                    .split_whitespace()
                    .map(|text| text.parse().unwrap())
                    .collect();
                seen.paths
                    .push(numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect());
            }
            "script" | "image" | "foreignObject" => panic!("{}", node.tag_name().name()),
            _ => {}
        }
    }
    seen
}

fn overlap(a: Rectangle, b: Rectangle) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

/// Checks what holds for every picture of a plan in which all steps are selected.
fn check(plan: &Plan) -> Seen {
    let seen = look(&svg(plan));
    let boxes: BTreeSet<&str> = seen.boxes.keys().map(String::as_str).collect();
    let expected: BTreeSet<String> = plan.order.iter().map(|id| format!("step-{id}")).collect();
    assert_eq!(boxes, expected.iter().map(String::as_str).collect());
    let all: Vec<Rectangle> = seen.boxes.values().copied().collect();
    for (i, one) in all.iter().enumerate() {
        assert!(one.0 >= 0.0 && one.1 >= 60.0 && one.2 <= seen.size.0 && one.3 <= seen.size.1);
        assert!(all[i + 1..].iter().all(|other| !overlap(*one, *other)));
    }
    let pairs: BTreeSet<(StepId, StepId)> = plan
        .order
        .iter()
        .flat_map(|id| {
            let before = plan.pipeline.step(*id).waits_for();
            before.map(|other| (other, *id)).collect::<Vec<_>>()
        })
        .collect();
    let mut drawn: Vec<(String, String)> = seen
        .edges
        .iter()
        .map(|(from, to, _)| (from.clone(), to.clone()))
        .collect();
    drawn.sort();
    let mut expected: Vec<(String, String)> = pairs
        .iter()
        .map(|(from, to)| (from.to_string(), to.to_string()))
        .collect();
    expected.sort();
    assert_eq!(drawn, expected);
    check_lines(&seen);
    seen
}

/// Lines begin and end at their boxes, and go from left to right.
fn check_lines(seen: &Seen) {
    for ((from, to, _), points) in seen.edges.iter().zip(&seen.paths) {
        let (from, to) = (
            seen.boxes[&format!("step-{from}")],
            seen.boxes[&format!("step-{to}")],
        );
        let (first, last) = (points[0], points[points.len() - 1]);
        assert!((first.0 - from.2).abs() < 0.2 && (last.0 - to.0).abs() < 0.2);
        assert!(from.1 < first.1 && first.1 < from.3 && to.1 < last.1 && last.1 < to.3);
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }
}

fn service(parent: usize) -> Service {
    Service {
        name: "db".into(),
        base: StepBase::Step(StepId(parent)),
        run: "serve".into(),
        env: Default::default(),
        working_dir: "/".into(),
        user: None,
        limits: StepLimits::default(),
        ready: None,
    }
}

/// One of each kind of edge and of each decision.
fn variety() -> Plan {
    let mut steps = vec![
        step("deps"),
        step("build").forking(0),
        step("test").forking(1).needing(&[0, 3]),
        step("lint"),
        step("alone"),
    ];
    steps[2].services.push(service(3));
    let mut plan = plan(pipeline(steps));
    plan.order = [0, 1, 3, 2, 4].map(StepId).to_vec();
    plan.steps[0].decision = Decision::Hit(CachedEntry {
        snapshot: SnapshotId::new("s"),
        parent: None,
        created: SystemTime::UNIX_EPOCH,
        cost: Some(Duration::from_secs(90)),
        elsewhere: false,
    });
    plan.steps[3].decision = Decision::Skip(SkipReason::Condition);
    plan
}

#[test]
fn a_picture_shows_what_becomes_of_each_step() {
    let picture = svg(&variety());
    let seen = check(&variety());
    assert!(seen.texts.iter().any(|text| text == "cached, saves 90 s"));
    assert!(
        seen.texts
            .iter()
            .any(|text| text == "runs: it has no result yet")
    );
    assert!(
        seen.texts
            .iter()
            .any(|text| text == "skipped: its condition does not hold")
    );
    for class in ["cached", "runs", "skipped"] {
        assert!(
            picture.contains(&format!("<g class=\"{class}\"")),
            "{class}"
        );
    }
    let kinds: Vec<&str> = seen.edges.iter().map(|edge| edge.2.as_str()).collect();
    assert_eq!(kinds, ["from", "from", "service", "needs"]);
}

#[test]
fn steps_outside_of_the_run_are_left_out() {
    let mut plan = variety();
    plan.order = vec![StepId(0), StepId(1)];
    check(&plan);
    assert!(!svg(&plan).contains("lint") && !dot(&plan).contains("lint"));
}

#[test]
fn any_name_is_text() {
    let name = "a<b>&\"c\"'\u{1b}\u{0}]]>\\";
    let mut one = plan(pipeline(vec![step(name), step("b").forking(0)]));
    one.pipeline.name = name.into();
    let seen = check(&one);
    assert!(
        seen.texts
            .iter()
            .any(|text| text.starts_with("a<b>&\"c\"'"))
    );
    assert!(dot(&one).contains("label=\"a<b>&\\\"c\\\"'  ]]>\\\\\""));
}

#[test]
fn a_long_name_is_cut_and_told_in_full() {
    let name = "x".repeat(300);
    let picture = svg(&plan(pipeline(vec![step(&name)])));
    assert!(picture.contains(&format!("<title>{name}")));
    let width = look(&picture).boxes["step-0"];
    assert!(width.2 - width.0 < 600.0);
}

#[test]
fn nothing_is_a_picture_too() {
    assert!(check(&plan(pipeline(Vec::new()))).boxes.is_empty());
}

#[test]
fn a_line_passes_the_boxes_between() {
    let steps = vec![
        step("a"),
        step("b").forking(0),
        step("c").forking(1),
        step("d").forking(2).needing(&[0]),
    ];
    let seen = check(&plan(pipeline(steps)));
    let long = seen
        .edges
        .iter()
        .position(|edge| edge.2 == "needs")
        .unwrap();
    for (x, y) in &seen.paths[long] {
        for middle in ["step-1", "step-2"] {
            let (left, top, right, bottom) = seen.boxes[middle];
            assert!(
                !(left <= *x && *x <= right && top <= *y && *y <= bottom),
                "{middle}"
            );
        }
    }
}

#[test]
fn many_steps_that_have_nothing_to_do_with_each_other_fill_rows() {
    let steps = (0..200).map(|i| step(&format!("s{i}"))).collect();
    let seen = check(&plan(pipeline(steps)));
    assert!(
        seen.size.0 < 2400.0 && seen.size.1 < 1600.0,
        "{:?}",
        seen.size
    );
}

#[test]
fn dot_names_every_step_and_edge_once() {
    let text = dot(&variety());
    let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(lines("[label="), 5);
    assert_eq!(lines(" -> "), 4);
    for edge in [
        "s0 -> s1 [style=solid];",
        "s1 -> s2 [style=solid];",
        "s3 -> s2 [style=dotted];",
        "s0 -> s2 [style=dashed];",
    ] {
        assert_eq!(lines(edge), 1, "{edge}");
    }
    assert!(text.starts_with("digraph \"test\" {\n") && text.ends_with("}\n"));
}

/// Steps that refer to earlier ones.
fn random() -> impl Strategy<Value = Pipeline> {
    let index = any::<prop::sample::Index>;
    let one = (
        prop::option::weighted(0.6, index()),
        prop::collection::vec(index(), 0..3),
        "[a-z]{1,60}",
    );
    prop::collection::vec(one, 1..60).prop_map(|shapes| {
        let steps = shapes.iter().enumerate().map(|(i, (parent, needs, name))| {
            let mut one = step(&format!("{name}{i}"));
            if i > 0 {
                if let Some(parent) = parent {
                    one = one.forking(parent.index(i));
                }
                one.needs = needs.iter().map(|need| StepId(need.index(i))).collect();
            }
            one
        });
        pipeline(steps.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_boxes_overlap_and_all_lines_meet_theirs(pipeline in random()) {
        check(&plan(pipeline));
    }
}
