//! From the graph to a [`Pipeline`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hm_vm_core::NetworkPolicy;

use super::model::{CacheTable, Edge, GraphFile, GraphTable, NodeTable, StepTable};
use crate::parse::{
    Arrow, DEFAULT_IMAGE, EnvValue, FromNode, Map, Node, Reader, STEP_LIMIT, Text, VariableName,
    directory_name, find_cycles, nearest, step_name,
};
use crate::pipeline::{CacheMode, CacheRule, Inject, Pipeline, Step, StepBase, StepId};

/// Runners that stand for a VM.
const RUNNERS: [&str; 4] = ["vm", "hm-vm", "docker", "default"];

/// Where the hm program (hm-exec 0.0.9) brings the workspace, and runs every step.
const WORKSPACE: &str = "/workspace";

/// What depends on what, by place in the list of nodes.
#[derive(Debug)]
struct Edges {
    parents: Vec<Option<Arrow>>,
    needs: Vec<Vec<Arrow>>,
}

/// Reads a graph of `hm`. Problems are noted.
pub(crate) fn read(root: &Node, directory: &Path, reader: &mut Reader<'_>) -> Option<Pipeline> {
    reader.null_is_absent = true;
    let file = GraphFile::from_node(root, reader)?;
    if file.version.text != "0" {
        reader.report(
            file.version.span,
            format!(
                "unknown version `{}` of the graph format",
                file.version.text
            ),
            "only version \"0\" is known",
        );
        return None;
    }
    let graph = file.graph;
    if graph.edge_property.text != "directed" {
        let hint = "write \"directed\"";
        reader.report(graph.edge_property.span, "the graph is not directed", hint);
    }
    if graph.nodes.0.is_empty() {
        reader.report(
            graph.edge_property.span,
            "the graph has no steps",
            "add a node",
        );
        return None;
    }
    if graph.nodes.0.len() > STEP_LIMIT {
        let message = format!("the graph has more than {STEP_LIMIT} steps");
        reader.report(graph.edge_property.span, message, "split it");
        return None;
    }
    let edges = edges(&graph, reader);
    let keys = keys(&graph, reader);
    let arrows: Vec<Vec<Arrow>> = edges
        .parents
        .iter()
        .zip(&edges.needs)
        .map(|(parent, needs)| parent.iter().chain(needs).copied().collect())
        .collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    if !find_cycles(&names, &arrows, reader) {
        return None;
    }
    let default_image = file
        .default_image
        .map_or_else(|| DEFAULT_IMAGE.to_owned(), |image| image.value);
    check_images(&graph, &edges, &default_image, reader);
    let mut steps = Vec::with_capacity(graph.nodes.0.len());
    for (index, node) in graph.nodes.0.into_iter().enumerate() {
        // What is missing has been noted, and nothing comes of the rest but more notes.
        steps.extend(
            node.0
                .and_then(|node| step(node, index, &edges, &default_image, reader)),
        );
    }
    Some(Pipeline {
        name: directory_name(directory),
        directory: directory.to_owned(),
        backend: None,
        timeout: file
            .timeout_seconds
            .map(|seconds| Duration::from_secs(seconds.0)),
        parallelism: None,
        changed_since: None,
        remote_cache: None,
        steps,
    })
}

/// The key of each node; what has none gets its place.
fn keys(graph: &GraphTable, reader: &mut Reader<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut keys = Vec::with_capacity(graph.nodes.0.len());
    for (index, node) in graph.nodes.0.iter().enumerate() {
        let Some(node) = &node.0 else {
            keys.push(format!("#{index}"));
            continue;
        };
        let key = &node.step.key;
        if let Err(wrong) = step_name(&key.text) {
            reader.note(key.span, wrong.message, wrong.suggestion);
        }
        if !seen.insert(&key.text) {
            let message = format!("duplicate step `{}`", key.text);
            reader.report(key.span, message, "give each step a `key` of its own");
        }
        keys.push(key.text.clone());
    }
    keys
}

fn edges(graph: &GraphTable, reader: &mut Reader<'_>) -> Edges {
    let count = graph.nodes.0.len();
    let places = places(graph, reader);
    let mut edges = Edges {
        parents: vec![None; count],
        needs: vec![Vec::new(); count],
    };
    let mut seen = HashSet::new();
    for edge in &graph.edges.0 {
        let Edge::Arrow {
            span,
            from,
            to,
            kind,
        } = edge
        else {
            continue;
        };
        let mut known = true;
        for index in [from, to] {
            if !places.contains_key(index) {
                reader.report(
                    *span,
                    format!("the edge leads to node {index}, which is not there"),
                    "remove the edge, or add the node",
                );
                known = false;
            }
        }
        if !known {
            continue;
        }
        let (from, to) = (places[from], places[to]);
        let arrow = Arrow {
            to: from,
            span: *span,
        };
        match kind.text.as_str() {
            "builds_in" if edges.parents[to].is_some() => reader.report(
                *span,
                "a step cannot fork from two others",
                "keep one \"builds_in\", and make the other \"depends_on\"",
            ),
            "builds_in" => edges.parents[to] = Some(arrow),
            "depends_on" => {
                if seen.insert((from, to)) {
                    edges.needs[to].push(arrow);
                }
            }
            other => unknown(kind, other, "edge", &["builds_in", "depends_on"], reader),
        }
    }
    edges
}

/// From an index of the graph to a place in the list of nodes, which has no holes.
fn places(graph: &GraphTable, reader: &mut Reader<'_>) -> HashMap<u64, usize> {
    let holes: HashSet<u64> = graph
        .node_holes
        .iter()
        .flat_map(|holes| &holes.0)
        .map(|index| index.0)
        .collect();
    let total = (graph.nodes.0.len() + holes.len()) as u64;
    if let Some(hole) = holes.iter().filter(|hole| **hole >= total).min() {
        let span = graph.edge_property.span;
        let hint = "write the indices that no node has";
        reader.report(
            span,
            format!("`node_holes` has {hole}, beyond all nodes"),
            hint,
        );
    }
    let live = (0..total).filter(|index| !holes.contains(index));
    live.zip(0..graph.nodes.0.len()).collect()
}

fn unknown(at: &Text, word: &str, what: &str, known: &[&str], reader: &mut Reader<'_>) {
    let hint = match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known are {}", known.join(", ")),
    };
    reader.report(at.span, format!("unknown {what} `{word}`"), hint);
}

/// A step that forks from another one may name its image only if that is where the other one comes from.
fn check_images(graph: &GraphTable, edges: &Edges, default: &str, reader: &mut Reader<'_>) {
    let image_of = |index: usize| {
        let node: Option<&NodeTable> = graph.nodes.0[index].0.as_ref();
        node.and_then(|node| node.step.image.as_ref())
    };
    for index in 0..graph.nodes.0.len() {
        let (Some(image), Some(parent)) = (image_of(index), edges.parents[index]) else {
            continue;
        };
        // Up to the next step that names an image: that one is checked itself.
        let mut at = parent.to;
        while image_of(at).is_none()
            && let Some(next) = edges.parents[at]
        {
            at = next.to;
        }
        let theirs = image_of(at).map_or(default, |image| image.value.as_str());
        if theirs != image.value {
            reader.report(
                image.span,
                format!("the step forks from another one, whose image is `{theirs}`"),
                "remove `image`, or the edge \"builds_in\"",
            );
        }
    }
}

fn step(
    node: NodeTable,
    index: usize,
    edges: &Edges,
    default_image: &str,
    reader: &mut Reader<'_>,
) -> Option<Step> {
    let step: StepTable = node.step;
    let mut env = environment(node.env);
    env.extend(environment(step.env));
    if let Some(runner) = &step.runner
        && !RUNNERS.contains(&runner.text.as_str())
    {
        unknown(runner, &runner.text, "runner", &RUNNERS, reader);
    }
    if let Some(arguments) = step.runner_args.filter(|arguments| !arguments.empty) {
        let hint = "remove them: every step runs in a VM of hmvm";
        reader.report(arguments.span, "`runner_args` are not known here", hint);
    }
    // A name for people, in addition to the key that everything here is shown by.
    drop(step.label);
    let parent = edges.parents[index].map(|arrow| arrow.to);
    let base = match (parent, step.image) {
        (Some(parent), _) => StepBase::Step(StepId(parent)),
        (None, Some(image)) => StepBase::Image(image.value),
        (None, None) => StepBase::Image(default_image.to_owned()),
    };
    let needs = edges.needs[index].iter().map(|arrow| arrow.to);
    let run = step.cmd.0.map(|cmd| cmd.value);
    // Without a word about its cache, the hm program runs a step every time.
    let mode = step.cache.map_or(CacheMode::Off, |cache| {
        let covers = Covers {
            run: run.as_deref().unwrap_or_default(),
            env: &env,
            base: &base,
        };
        cache_mode(cache, &covers, reader)
    });
    Some(Step {
        needs: needs.filter(|to| Some(*to) != parent).map(StepId).collect(),
        // As the hm program does it, for every step that runs.
        injects: vec![Inject {
            source: PathBuf::from("."),
            target: WORKSPACE.to_owned(),
            include: Vec::new(),
            exclude: Vec::new(),
            ignore_files: true,
            with_outputs: false,
        }],
        working_dir: WORKSPACE.to_owned(),
        env,
        timeout: step
            .timeout_seconds
            .map(|seconds| Duration::from_secs(seconds.0)),
        // The format has no word for it, and its steps are written for machines with a network.
        network: NetworkPolicy::Outbound,
        cache: CacheRule {
            mode,
            ..CacheRule::default()
        },
        ..Step::new(step.key.text, base, run?)
    })
}

fn environment(table: Option<Map<VariableName, EnvValue>>) -> BTreeMap<String, String> {
    let entries = table.map_or_else(Vec::new, |map| map.entries);
    entries
        .into_iter()
        .map(|(name, value)| (name.text, value.0))
        .collect()
}

/// What a step does, beside what its author's key says.
struct Covers<'a> {
    run: &'a str,
    env: &'a BTreeMap<String, String>,
    base: &'a StepBase,
}

impl Covers<'_> {
    /// The author's key stands for the files that the step depends on, but neither for its command nor for its image:
    /// those are put beside it.
    fn key(&self, given: &str) -> String {
        let image = match self.base {
            StepBase::Image(image) => image.as_str(),
            // A hit counts only on the snapshot that the parent has now.
            StepBase::Step(_) => "",
        };
        let mut hasher = blake3::Hasher::new();
        let variables = self
            .env
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for part in [given, self.run, image].into_iter().chain(variables) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        format!("hm-ir-{}", hasher.finalize().to_hex())
    }
}

fn cache_mode(cache: CacheTable, covers: &Covers<'_>, reader: &mut Reader<'_>) -> CacheMode {
    const KNOWN: [&str; 8] = [
        "none",
        "no_cache",
        "off",
        "auto",
        "on_change",
        "forever",
        "ttl",
        "key",
    ];
    let CacheTable { policy, key } = cache;
    match (policy.text.as_str(), key) {
        ("none" | "no_cache" | "off", None) => CacheMode::Off,
        ("none" | "no_cache" | "off", Some(key)) => {
            let hint = "remove `key`, or choose another policy";
            reader.report(key.span, "a step that is not cached has no key", hint);
            CacheMode::Off
        }
        ("auto" | "on_change" | "forever", None) => CacheMode::Auto,
        // The key of `ttl` holds the span of time that it is good for.
        ("auto" | "on_change" | "forever" | "ttl" | "key", Some(key)) => {
            CacheMode::Key(covers.key(&key.value))
        }
        ("key" | "ttl", None) => {
            let hint = "add `key`, or choose another policy";
            let message = format!("the policy `{}` needs a key", policy.text);
            reader.report(policy.span, message, hint);
            CacheMode::Auto
        }
        (other, _) => {
            unknown(&policy, other, "cache policy", &KNOWN, reader);
            CacheMode::Auto
        }
    }
}
