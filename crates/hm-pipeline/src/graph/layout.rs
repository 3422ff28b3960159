//! Where boxes and lines are, in pixels.

use std::collections::HashSet;

use super::edges::{self, Edge};
use super::layers::{Layers, Vertex, mean};
use super::place;
use crate::pipeline::StepId;
use crate::plan::Plan;

/// Height of a box.
pub(super) const BOX_HEIGHT: f64 = 46.0;
/// Between boxes of one column.
const ROW_GAP: f64 = 18.0;
/// Beside a line that passes boxes.
const LINE_GAP: f64 = 8.0;
/// Between columns.
const COLUMN_GAP: f64 = 64.0;
/// Around all.
pub(super) const MARGIN: f64 = 24.0;
/// For the title and the legend.
const HEADER: f64 = 64.0;
/// Width that rows of unconnected boxes may have in any case.
const ROW_WIDTH: f64 = 960.0;
/// Rows of many boxes are so many times as wide as high.
const ROWS_RATIO: f64 = 1.6;
/// Sweeps that move boxes towards what they are connected with.
const SWEEPS: usize = 8;

/// The box of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StepBox {
    pub(super) id: StepId,
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
}

/// The line of an edge: from point to point, straight or curved in turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) edge: Edge,
    pub(super) points: Vec<(f64, f64)>,
}

/// A whole picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub(super) boxes: Vec<StepBox>,
    pub(super) lines: Vec<Line>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Lays a plan out. `width` tells how wide the box of a step must be.
pub(super) fn of(plan: &Plan, width: &dyn Fn(StepId) -> f64) -> Layout {
    let edges = edges::of(plan);
    let ends = edges.iter().flat_map(|edge| [edge.from, edge.to]);
    let connected: HashSet<StepId> = ends.collect();
    let (connected, alone): (Vec<StepId>, Vec<StepId>) =
        plan.order.iter().partition(|id| connected.contains(id));
    let mut layout = Layout {
        width: MARGIN,
        height: HEADER,
        ..Layout::default()
    };
    layout.add_layers(&Layers::of(&connected, &edges), &edges, width);
    layout.add_rows(&alone, width);
    layout.width += MARGIN;
    layout.height += MARGIN;
    layout
}

impl Layout {
    fn add_layers(&mut self, layers: &Layers, edges: &[Edge], width: &dyn Fn(StepId) -> f64) {
        let middles = middles(layers, self.height);
        let mut sides = vec![(0.0, 0.0); layers.vertices.len()];
        let mut left = MARGIN;
        for column in &layers.columns {
            let widths = column.iter().map(|vertex| match layers.vertices[*vertex] {
                Vertex::Step(id) => width(id),
                Vertex::Bend => 0.0,
            });
            let widest = widths.fold(0.0, f64::max);
            for vertex in column {
                sides[*vertex] = (left, left + widest);
                let Vertex::Step(id) = layers.vertices[*vertex] else {
                    continue;
                };
                self.boxes.push(StepBox {
                    id,
                    left,
                    top: middles[*vertex] - BOX_HEIGHT / 2.0,
                    width: widest,
                });
                self.height = self.height.max(middles[*vertex] + BOX_HEIGHT / 2.0);
            }
            self.width = left + widest;
            left += widest + COLUMN_GAP;
        }
        for (edge, path) in edges.iter().zip(&layers.paths) {
            let mut points = Vec::with_capacity(2 * path.len());
            for vertex in path {
                let (left, right) = sides[*vertex];
                points.push((left, middles[*vertex]));
                points.push((right, middles[*vertex]));
                self.height = self.height.max(middles[*vertex]);
            }
            // It begins at the right of the first box, and ends at the left of the last one.
            points.remove(0);
            points.pop();
            self.lines.push(Line {
                edge: *edge,
                points,
            });
        }
    }

    /// Puts steps that are connected with nothing into rows below all others.
    fn add_rows(&mut self, alone: &[StepId], width: &dyn Fn(StepId) -> f64) {
        let widest = alone.iter().map(|id| width(*id)).fold(0.0, f64::max);
        let area: f64 = alone
            .iter()
            .map(|_| (widest + ROW_GAP) * (BOX_HEIGHT + ROW_GAP))
            .sum();
        let right_end = self.width.max(ROW_WIDTH).max((area * ROWS_RATIO).sqrt());
        let mut left = MARGIN;
        let mut top = self.height
            + if self.boxes.is_empty() {
                0.0
            } else {
                2.0 * ROW_GAP
            };
        for id in alone {
            if left > MARGIN && left + widest > right_end {
                left = MARGIN;
                top += BOX_HEIGHT + ROW_GAP;
            }
            self.boxes.push(StepBox {
                id: *id,
                left,
                top,
                width: widest,
            });
            self.width = self.width.max(left + widest);
            self.height = top + BOX_HEIGHT;
            left += widest + ROW_GAP;
        }
    }
}

/// Vertical middle of each vertex, the topmost box beginning at `top`.
fn middles(layers: &Layers, top: f64) -> Vec<f64> {
    let gap = |above: usize, below: usize| match (layers.vertices[above], layers.vertices[below]) {
        (Vertex::Step(_), Vertex::Step(_)) => BOX_HEIGHT + ROW_GAP,
        (Vertex::Bend, Vertex::Bend) => LINE_GAP,
        _ => BOX_HEIGHT / 2.0 + LINE_GAP,
    };
    let gaps: Vec<Vec<f64>> = layers
        .columns
        .iter()
        .map(|column| {
            let between = column.windows(2).map(|pair| gap(pair[0], pair[1]));
            std::iter::once(0.0).chain(between).collect()
        })
        .collect();
    let mut middles = vec![0.0; layers.vertices.len()];
    for sweep in 0..=SWEEPS {
        let forwards = sweep % 2 == 0;
        let neighbours = if forwards {
            &layers.left
        } else {
            &layers.right
        };
        let count = layers.columns.len();
        for i in 0..count {
            let i = if forwards { i } else { count - 1 - i };
            let column = &layers.columns[i];
            let wanted: Vec<f64> = column
                .iter()
                .map(|vertex| mean(&neighbours[*vertex], &middles).unwrap_or(middles[*vertex]))
                .collect();
            for (vertex, middle) in column.iter().zip(place::apart(&wanted, &gaps[i])) {
                middles[*vertex] = middle;
            }
        }
    }
    let highest = middles.iter().copied().fold(f64::INFINITY, f64::min);
    let shift = top + BOX_HEIGHT / 2.0 - highest;
    middles.into_iter().map(|middle| middle + shift).collect()
}
