//! GraphViz.

use std::fmt::Write;

use super::edges::{self, EdgeKind};
use super::text;
use crate::plan::Plan;
use crate::words;

/// The plan in the language of GraphViz: forks are solid, needs are dashed, services dotted.
pub fn dot(plan: &Plan) -> String {
    let mut out = format!("digraph {} {{\n", text::dot(&plan.pipeline.name));
    out.push_str("  rankdir=LR;\n");
    out.push_str("  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n");
    for id in &plan.order {
        let step = &plan.steps[id.0];
        let fill = match edges::fate(plan, *id) {
            "cached" => "#d9f2e0",
            "runs" => "#dbe9ff",
            _ => "#eeeeee",
        };
        let label = text::dot(&plan.pipeline.step(*id).name);
        let tip = text::dot(&words::decision(plan, &step.decision));
        // A string cannot fail to be written to.
        let _ = writeln!(
            out,
            "  s{id} [label={label}, tooltip={tip}, class={}, fillcolor=\"{fill}\"];",
            edges::fate(plan, *id),
        );
    }
    for edge in edges::of(plan) {
        let style = match edge.kind {
            EdgeKind::From => "solid",
            EdgeKind::Service => "dotted",
            EdgeKind::Needs => "dashed",
        };
        let _ = writeln!(out, "  s{} -> s{} [style={style}];", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}
