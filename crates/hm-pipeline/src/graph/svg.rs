//! A picture that needs nothing else.

use std::fmt::{self, Write};

use super::edges;
use super::layout::{self, BOX_HEIGHT, Layout, Line, MARGIN, StepBox};
use super::text;
use crate::pipeline::StepId;
use crate::plan::{Decision, Plan};
use crate::words;

/// Size of letters of a step's name, and of what is said of it.
const NAME_SIZE: f64 = 13.0;
const NOTE_SIZE: f64 = 11.0;
/// Left and right of text in a box.
const PADDING: f64 = 12.0;
/// A box is at least so wide.
const MIN_WIDTH: f64 = 90.0;

/// All colours, for light and dark surroundings.
const STYLE: &str = "\
svg{font-family:system-ui,sans-serif}\
text{fill:#1f2328}\
.title{font-size:16px;font-weight:600}.name{font-size:13px;font-weight:600}.note{font-size:11px;fill:#59636e}\
rect{stroke-width:1.5}\
.cached rect{fill:#dafbe1;stroke:#2da44e}.runs rect{fill:#ddf4ff;stroke:#0969da}\
.skipped rect{fill:#f6f8fa;stroke:#afb8c1;stroke-dasharray:4 3}\
path{fill:none;stroke:#59636e;stroke-width:1.5}.needs{stroke-dasharray:6 4}.service{stroke-dasharray:2 3}\
marker path{fill:#59636e;stroke:none}.paper{fill:#fff;stroke:none}\
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}text{fill:#e6edf3}.note{fill:#9198a1}\
.cached rect{fill:#12261e}.runs rect{fill:#0c2d6b}.skipped rect{fill:#161b22;stroke:#656c76}}";

/// The plan as a picture: steps as boxes from left to right, forks as solid lines, needs as dashed ones, services as dotted
/// ones. Has no scripts and refers to nothing outside of it.
pub fn svg(plan: &Plan) -> String {
    let layout = layout::of(plan, &|id| width(plan, id));
    let mut out = String::with_capacity(1024 * (2 + layout.boxes.len()));
    // A string cannot fail to be written to.
    let _ = write(&mut out, plan, &layout);
    out
}

fn width(plan: &Plan, id: StepId) -> f64 {
    let name = text::shortened(&plan.pipeline.step(id).name);
    let name = text::width(&name, NAME_SIZE) * 1.06;
    let note = text::width(&note(plan, id), NOTE_SIZE);
    (name.max(note) + 2.0 * PADDING).max(MIN_WIDTH).ceil()
}

/// What is said of a step.
fn note(plan: &Plan, id: StepId) -> String {
    let said = match &plan.steps[id.0].decision {
        Decision::Hit(entry) => match entry.cost {
            Some(cost) => format!("cached, saves {}", words::rough(cost)),
            None => "cached".into(),
        },
        Decision::Run(_) => format!("runs: {}", decision(plan, id)),
        Decision::Skip(_) => format!("skipped: {}", decision(plan, id)),
    };
    text::shortened(&said)
}

fn decision(plan: &Plan, id: StepId) -> String {
    words::decision(plan, &plan.steps[id.0].decision)
}

fn write(out: &mut String, plan: &Plan, layout: &Layout) -> fmt::Result {
    let legend = legend(plan);
    let least = text::width(&legend, NOTE_SIZE) + 2.0 * MARGIN;
    let (width, height) = (layout.width.max(least).ceil(), layout.height.ceil());
    let name = text::xml(&plan.pipeline.name);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">"
    )?;
    writeln!(out, "<title>{name}</title>")?;
    writeln!(out, "<style>{STYLE}</style>")?;
    out.push_str(
        "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n",
    );
    // Not every viewer knows a background of the picture itself.
    writeln!(
        out,
        "<path class=\"paper\" d=\"M0 0H{width}V{height}H0z\"/>"
    )?;
    writeln!(
        out,
        "<text class=\"title\" x=\"{MARGIN}\" y=\"30\">{name}</text>"
    )?;
    writeln!(
        out,
        "<text class=\"note\" x=\"{MARGIN}\" y=\"50\">{legend}</text>"
    )?;
    for line in &layout.lines {
        write_line(out, line)?;
    }
    for step in &layout.boxes {
        write_box(out, plan, step)?;
    }
    out.push_str("</svg>\n");
    Ok(())
}

fn legend(plan: &Plan) -> String {
    let count = |fate| {
        let order = plan.order.iter();
        order.filter(|id| edges::fate(plan, **id) == fate).count()
    };
    format!(
        "{} run, {} cached, {} skipped · solid: forks from, dashed: needs, dotted: a service forks from",
        count("runs"),
        count("cached"),
        count("skipped")
    )
}

/// A line with a curve between columns, and straight through those that it passes.
fn write_line(out: &mut String, line: &Line) -> fmt::Result {
    let edge = line.edge;
    write!(
        out,
        "<path class=\"{}\" data-from=\"{}\" data-to=\"{}\" marker-end=\"url(#arrow)\" d=\"",
        edge.kind.name(),
        edge.from,
        edge.to
    )?;
    let mut last = (0.0, 0.0);
    for (i, (x, y)) in line.points.iter().copied().enumerate() {
        if i == 0 {
            write!(out, "M{x:.1} {y:.1}")?;
        } else if i % 2 == 1 {
            let middle = f64::midpoint(last.0, x);
            write!(
                out,
                "C{middle:.1} {:.1} {middle:.1} {y:.1} {x:.1} {y:.1}",
                last.1
            )?;
        } else {
            write!(out, "L{x:.1} {y:.1}")?;
        }
        last = (x, y);
    }
    out.push_str("\"/>\n");
    Ok(())
}

fn write_box(out: &mut String, plan: &Plan, step: &StepBox) -> fmt::Result {
    let (id, left, top) = (step.id, step.left, step.top);
    let name = &plan.pipeline.step(id).name;
    writeln!(
        out,
        "<g class=\"{}\" id=\"step-{id}\"><title>{}: {}</title>",
        edges::fate(plan, id),
        text::xml(name),
        text::xml(&decision(plan, id))
    )?;
    writeln!(
        out,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BOX_HEIGHT:.1}\" rx=\"6\"/>",
        step.width
    )?;
    let x = left + PADDING;
    let (first, second) = (top + 19.0, top + 36.0);
    writeln!(
        out,
        "<text class=\"name\" x=\"{x:.1}\" y=\"{first:.1}\">{}</text>",
        text::xml(&text::shortened(name))
    )?;
    writeln!(
        out,
        "<text class=\"note\" x=\"{x:.1}\" y=\"{second:.1}\">{}</text></g>",
        text::xml(&note(plan, id))
    )
}
