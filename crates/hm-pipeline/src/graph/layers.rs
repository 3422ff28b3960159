//! Steps in columns, each right of all that it comes after, with as few crossings as a few sweeps bring.
//!
//! An edge over several columns has a place of its own in each of those between, so that it runs through
//! no box.

use std::collections::HashMap;

use super::edges::Edge;
use crate::pipeline::StepId;

/// Sweeps over all columns: more of them change next to nothing.
const SWEEPS: usize = 6;
/// From so many places of edges on, edges run straight: nobody could follow them anyway.
const MAX_BENDS: usize = 20_000;

/// What is at a place in a column: a step, or an edge that passes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vertex {
    Step(StepId),
    Bend,
}

/// Columns of vertices, and what leads from one column to the next.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) vertices: Vec<Vertex>,
    /// Vertices of each column, from top to bottom.
    pub(super) columns: Vec<Vec<usize>>,
    /// Neighbours of each vertex in the column to its left, and in that to its right.
    pub(super) left: Vec<Vec<usize>>,
    pub(super) right: Vec<Vec<usize>>,
    /// The vertices that each edge passes, with its ends.
    pub(super) paths: Vec<Vec<usize>>,
}

impl Layers {
    /// Puts steps, which are in an order, into columns.
    pub(super) fn of(steps: &[StepId], edges: &[Edge]) -> Self {
        let column = columns_of(steps, edges);
        let mut layers = Self::default();
        let mut vertex_of = HashMap::new();
        for id in steps {
            vertex_of.insert(*id, layers.add(Vertex::Step(*id), column[id]));
        }
        let spans = edges
            .iter()
            .map(|edge| column[&edge.to] - column[&edge.from]);
        let bends = spans.sum::<usize>() <= MAX_BENDS;
        for edge in edges {
            let mut path = vec![vertex_of[&edge.from]];
            if bends {
                let between = column[&edge.from] + 1..column[&edge.to];
                path.extend(between.map(|place| layers.add(Vertex::Bend, place)));
            }
            path.push(vertex_of[&edge.to]);
            for pair in path.windows(2) {
                layers.right[pair[0]].push(pair[1]);
                layers.left[pair[1]].push(pair[0]);
            }
            layers.paths.push(path);
        }
        layers.sort();
        layers
    }

    fn add(&mut self, vertex: Vertex, column: usize) -> usize {
        let number = self.vertices.len();
        self.vertices.push(vertex);
        self.left.push(Vec::new());
        self.right.push(Vec::new());
        if self.columns.len() <= column {
            self.columns.resize(column + 1, Vec::new());
        }
        self.columns[column].push(number);
        number
    }

    /// Puts each vertex at the mean of its neighbours, to the left and to the right in turn.
    fn sort(&mut self) {
        let mut place = vec![0.0; self.vertices.len()];
        for column in &self.columns {
            number(column, &mut place);
        }
        for sweep in 0..SWEEPS {
            let forwards = sweep % 2 == 0;
            let neighbours = if forwards { &self.left } else { &self.right };
            let count = self.columns.len();
            for i in 0..count {
                let column = &mut self.columns[if forwards { i } else { count - 1 - i }];
                let key =
                    |vertex: &usize| mean(&neighbours[*vertex], &place).unwrap_or(place[*vertex]);
                column.sort_by(|a, b| key(a).total_cmp(&key(b)));
                number(column, &mut place);
            }
        }
    }
}

/// Column of each step: right of all that it comes after; one that comes after nothing, beside its first follower.
fn columns_of(steps: &[StepId], edges: &[Edge]) -> HashMap<StepId, usize> {
    let mut column: HashMap<StepId, usize> = steps.iter().map(|id| (*id, 0)).collect();
    let mut before: HashMap<StepId, Vec<StepId>> = HashMap::new();
    let mut first_after: HashMap<StepId, usize> = HashMap::new();
    for edge in edges {
        before.entry(edge.to).or_default().push(edge.from);
    }
    for id in steps {
        let others = before.get(id).into_iter().flatten();
        if let Some(last) = others.map(|other| column[other]).max() {
            column.insert(*id, last + 1);
        }
    }
    for edge in edges {
        let first = first_after.entry(edge.from).or_insert(usize::MAX);
        *first = (*first).min(column[&edge.to]);
    }
    for id in steps.iter().filter(|id| !before.contains_key(id)) {
        if let Some(first) = first_after.get(id) {
            column.insert(*id, first.saturating_sub(1));
        }
    }
    column
}

fn number(column: &[usize], place: &mut [f64]) {
    let mut next = 0.0;
    for vertex in column {
        place[*vertex] = next;
        next += 1.0;
    }
}

/// Mean of what these vertices have.
pub(super) fn mean(vertices: &[usize], values: &[f64]) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for vertex in vertices {
        sum += values[*vertex];
        count += 1.0;
    }
    (count > 0.0).then(|| sum / count)
}
