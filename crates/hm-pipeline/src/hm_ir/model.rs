//! The tables of the format: petgraph's serde form of a directed graph, with steps as nodes.

use serde_json::{Value as Json, json};

use crate::parse::{
    As, Count, EnvValue, Filled, FromNode, Line, List, Map, Must, Node, Reader, Span, Text, Value,
    VariableName, table,
};

/// Seconds of a time limit: up to a hundred years.
pub(crate) type Seconds = Count<1, 3_155_760_000>;

/// Place of a node in the graph. petgraph's own are 32 bits wide.
pub(crate) type Index = Count<0, 4_294_967_295>;

table! {
    /// A pipeline as the `hm` program writes it.
    GraphFile {
        /// Version of the format.
        version: Text,
        /// Image of steps that have none and fork from no other step.
        default_image: Option<As<Line>>,
        /// Seconds that a whole run may take.
        timeout_seconds: Option<Seconds>,
        /// The steps and how they depend on each other.
        graph: GraphTable,
    }

    /// A graph.
    GraphTable {
        /// The steps, without holes.
        nodes: List<Must<NodeTable>>,
        /// Indices that no node has.
        node_holes: Option<List<Index>>,
        /// `directed`.
        edge_property: Text,
        /// Edges from a step to one that depends on it, as `[FROM, TO, KIND]`; a hole is `null`.
        edges: List<Edge>,
    }

    /// A node.
    NodeTable {
        /// The step.
        step: StepTable,
        /// Environment that the step has from the pipeline.
        env: Option<Map<VariableName, EnvValue>>,
    }

    /// A step.
    StepTable {
        /// Unique name.
        key: Text,
        /// A name for people. Not used.
        label: Option<Text>,
        /// The command.
        cmd: Must<As<Filled>>,
        /// Image that it starts from.
        image: Option<As<Line>>,
        /// Environment of the step, above that of the node.
        env: Option<Map<VariableName, EnvValue>>,
        /// Seconds that it may take.
        timeout_seconds: Option<Seconds>,
        /// Whether its result is cached.
        cache: Option<CacheTable>,
        /// What runs it.
        runner: Option<Text>,
        /// Options for that.
        runner_args: Option<Arguments>,
    }

    /// Whether a result is cached.
    CacheTable {
        /// By which rule.
        policy: Text,
        /// Under which key.
        key: Option<As<Line>>,
    }
}

/// An edge, or a hole where one was.
#[derive(Clone, Debug)]
pub(crate) enum Edge {
    Hole,
    Arrow {
        span: Span,
        from: u64,
        to: u64,
        kind: Text,
    },
}

impl FromNode for Edge {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Null => Some(Self::Hole),
            Value::List(parts) if parts.len() == 3 => {
                let from = Index::from_node(&parts[0], reader);
                let to = Index::from_node(&parts[1], reader);
                let kind = Text::from_node(&parts[2], reader);
                Some(Self::Arrow {
                    span: node.span,
                    from: from?.0,
                    to: to?.0,
                    kind: kind?,
                })
            }
            _ => {
                reader.report(
                    node.span,
                    "this is no edge",
                    "write [FROM, TO, \"builds_in\"] or [FROM, TO, \"depends_on\"]",
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": ["array", "null"] })
    }
}

/// Options of a runner; only their absence is understood.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) span: Span,
    pub(crate) empty: bool,
}

impl FromNode for Arguments {
    fn from_node(node: &Node, _: &mut Reader<'_>) -> Option<Self> {
        let empty = match &node.value {
            Value::Table(table) => table.entries.is_empty(),
            Value::List(items) => items.is_empty(),
            _ => false,
        };
        Some(Self {
            span: node.span,
            empty,
        })
    }

    fn schema() -> Json {
        json!({ "type": "object", "maxProperties": 0 })
    }
}
