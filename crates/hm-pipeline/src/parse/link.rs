//! `from` and `needs`: from names to steps, without cycles.

use std::collections::HashMap;
use std::ops::Range;

use super::expand::Expanded;
use super::matrix::suffix;
use super::model::ServiceTable;
use super::reader::{Reader, nearest};
use super::tree::Span;
use super::values::Text;

/// Dependencies that a pipeline may have.
const ARROW_LIMIT: usize = 1_000_000;
/// Cycles that are told; more of them are parts of these, mostly.
const CYCLES_TOLD: usize = 20;
/// Names of a cycle that are told.
const NAMES_TOLD: usize = 12;

/// A step depends on another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrow {
    pub(crate) to: usize,
    /// Where the file says so.
    pub(crate) span: Span,
}

/// What a step depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    pub(crate) from: Option<Arrow>,
    pub(crate) needs: Vec<Arrow>,
    /// `from` of its services, in their order.
    pub(crate) services: Vec<Option<Arrow>>,
}

/// What each step depends on; cycles are noted. `None` when there is too much of it.
pub(crate) fn link(steps: &[Expanded], reader: &mut Reader<'_>) -> Option<Vec<Links>> {
    let names = Names::of(steps);
    let mut links = Vec::with_capacity(steps.len());
    let mut arrows = 0_usize;
    for step in steps {
        let Some(table) = &step.table else {
            links.push(Links::default());
            continue;
        };
        let from = table.from.as_ref();
        let needs = table.needs.as_ref().map_or(&[][..], |needs| &needs.0);
        let services = table.services.as_ref().map_or(&[][..], |map| &map.entries);
        let link = Links {
            from: from.and_then(|name| names.one(name, step, reader)),
            needs: names.all(needs, reader),
            services: services
                .iter()
                .map(|(_, service): &(Text, ServiceTable)| {
                    let from = service.from.as_ref()?;
                    names.one(from, step, reader)
                })
                .collect(),
        };
        arrows += link.needs.len();
        if arrows > ARROW_LIMIT {
            reader.report(
                step.span,
                format!("more than {ARROW_LIMIT} dependencies between steps"),
                "put a step in between that needs all of a matrix, and need that one",
            );
            return None;
        }
        links.push(link);
    }
    let all: Vec<Vec<Arrow>> = links.iter().map(Links::arrows).collect();
    let titles: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    find_cycles(&titles, &all, reader);
    Some(links)
}

impl Links {
    fn arrows(&self) -> Vec<Arrow> {
        let services = self.services.iter().flatten();
        self.from
            .iter()
            .chain(&self.needs)
            .chain(services)
            .copied()
            .collect()
    }
}

/// Steps by name.
struct Names<'s> {
    steps: &'s [Expanded],
    /// The steps of a name in the file, which follow each other.
    groups: HashMap<&'s str, Range<usize>>,
    /// Steps of a matrix.
    full: HashMap<&'s str, usize>,
}

impl<'s> Names<'s> {
    fn of(steps: &'s [Expanded]) -> Self {
        let mut groups: HashMap<&str, Range<usize>> = HashMap::new();
        let mut full = HashMap::new();
        for (index, step) in steps.iter().enumerate() {
            groups
                .entry(&step.group)
                .and_modify(|range| range.end = index + 1)
                .or_insert(index..index + 1);
            full.insert(step.name.as_str(), index);
        }
        Self {
            steps,
            groups,
            full,
        }
    }

    fn find(&self, name: &Text, reader: &mut Reader<'_>) -> Option<Range<usize>> {
        if let Some(range) = self.groups.get(name.text.as_str()) {
            return Some(range.clone());
        }
        if let Some(index) = self.full.get(name.text.as_str()) {
            return Some(*index..*index + 1);
        }
        // Equally near names: the one that comes first.
        let mut known: Vec<(&str, usize)> = self
            .groups
            .iter()
            .map(|(name, range)| (*name, range.start))
            .collect();
        known.sort_by_key(|(_, start)| *start);
        let candidates = || known.iter().map(|(name, _)| *name);
        let hint = match nearest(&name.text, candidates()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.len() <= NAMES_TOLD => {
                format!("steps are {}", candidates().collect::<Vec<_>>().join(", "))
            }
            None => "name a step of this file".to_owned(),
        };
        reader.report(name.span, format!("unknown step `{}`", name.text), hint);
        None
    }

    /// The step that `from` names: of a matrix, the one whose values agree with those of `step`.
    fn one(&self, name: &Text, step: &Expanded, reader: &mut Reader<'_>) -> Option<Arrow> {
        let range = self.find(name, reader)?;
        let agrees = |index: &usize| {
            step.values.iter().all(|(axis, value)| {
                self.steps[*index]
                    .values
                    .iter()
                    .all(|(other, theirs)| other != axis || theirs == value)
            })
        };
        let exact = range.len() == 1 && self.full.contains_key(name.text.as_str());
        let found: Vec<usize> = if exact {
            range.collect()
        } else {
            range.filter(agrees).collect()
        };
        if let [to] = found[..] {
            return Some(Arrow {
                to,
                span: name.span,
            });
        }
        let which = if step.values.is_empty() {
            String::new()
        } else {
            format!(" with the values {}", suffix(&step.values))
        };
        let (message, example) = match found.first() {
            None => (format!("`{}` has no step{which}", name.text), None),
            Some(first) => (
                format!(
                    "`{}` stands for {} steps{which}; one is needed here",
                    name.text,
                    found.len()
                ),
                Some(*first),
            ),
        };
        let example = example.or_else(|| self.full.get(name.text.as_str()).copied());
        let hint = match example {
            Some(index) => format!("name one: \"{}\"", self.steps[index].name),
            None => "give both matrices the same values for the axes that they share".to_owned(),
        };
        reader.report(name.span, message, hint);
        None
    }

    fn all(&self, names: &[Text], reader: &mut Reader<'_>) -> Vec<Arrow> {
        let mut arrows: Vec<Arrow> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for name in names {
            let Some(range) = self.find(name, reader) else {
                continue;
            };
            let before = arrows.len();
            for to in range {
                if arrows.len() <= ARROW_LIMIT && seen.insert(to) {
                    let span = name.span;
                    arrows.push(Arrow { to, span });
                }
            }
            if arrows.len() == before {
                let message = format!("`{}` is named twice", name.text);
                reader.report(name.span, message, "remove one of them");
            }
        }
        arrows
    }
}

/// Notes cycles. Whether there is none.
pub(crate) fn find_cycles(names: &[&str], arrows: &[Vec<Arrow>], reader: &mut Reader<'_>) -> bool {
    /// Not seen, on the way, done.
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; names.len()];
    let mut told = 0;
    for start in 0..names.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // The way from `start`, with the arrow that each of its steps goes on by.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((at, next)) = way.last_mut() {
            let Some(arrow) = arrows[*at].get(*next).copied() else {
                marks[*at] = Mark::Done;
                way.pop();
                continue;
            };
            *next += 1;
            match marks[arrow.to] {
                Mark::New => {
                    marks[arrow.to] = Mark::Open;
                    way.push((arrow.to, 0));
                }
                Mark::Open => {
                    tell_cycle(names, arrows, &way, arrow.to, reader);
                    told += 1;
                    if told == CYCLES_TOLD {
                        return false;
                    }
                }
                Mark::Done => {}
            }
        }
    }
    told == 0
}

fn tell_cycle(
    names: &[&str],
    arrows: &[Vec<Arrow>],
    way: &[(usize, usize)],
    back: usize,
    reader: &mut Reader<'_>,
) {
    let begin = way
        .iter()
        .position(|(at, _)| *at == back)
        .unwrap_or_default();
    let mut cycle = way[begin..].to_vec();
    // Told from the step that comes first in the file.
    let first = cycle.iter().enumerate().min_by_key(|(_, (at, _))| *at);
    let turn = first.map_or(0, |(index, _)| index);
    cycle.rotate_left(turn);
    let (at, next) = cycle[0];
    let mut path: Vec<&str> = cycle.iter().map(|(at, _)| names[*at]).collect();
    path.push(names[at]);
    if path.len() > NAMES_TOLD {
        path.splice(NAMES_TOLD / 2..path.len() - NAMES_TOLD / 2, ["…"]);
    }
    reader.report(
        arrows[at][next - 1].span,
        format!("cycle: {}", path.join(" → ")),
        "remove one of these dependencies",
    );
}
