//! The rows of the report.

use std::time::Duration;

use crate::measure::{Outcome, Who};

/// What was compared, and what came out.
#[derive(Debug)]
pub(crate) struct Row {
    /// Names the row for targets of other rows; unique.
    pub(crate) id: String,
    /// What one round did.
    pub(crate) title: String,
    pub(crate) outcomes: Vec<(Who, Outcome)>,
    pub(crate) target: Option<Target>,
}

impl Row {
    pub(crate) fn new(
        id: impl Into<String>,
        title: impl Into<String>,
        outcomes: Vec<(Who, Outcome)>,
    ) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            outcomes,
            target: None,
        }
    }

    pub(crate) fn with_target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The median of one of the racers, if it was measured.
    pub(crate) fn median(&self, who: Who) -> Option<Duration> {
        self.outcomes
            .iter()
            .find_map(|(racer, outcome)| match outcome {
                Outcome::Measured(samples) if *racer == who => Some(samples.median()),
                _ => None,
            })
    }
}

impl Row {
    /// Our side of the row.
    pub(crate) fn us(&self) -> Who {
        let is_docker = |(who, _): &(Who, Outcome)| *who == Who::OursDocker;
        if self.outcomes.iter().any(is_docker) {
            Who::OursDocker
        } else {
            Who::Ours
        }
    }

    /// Our own median, if it was measured.
    pub(crate) fn ours(&self) -> Option<Duration> {
        self.median(self.us())
    }
}

/// What our median must not exceed.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    AtMost(Duration),
    /// `factor` times the median of a racer of some row of the same run.
    TimesOf {
        factor: f64,
        row: &'static str,
        who: Who,
    },
    /// So much more than our own median of some row of the same run.
    Above {
        by: Duration,
        row: &'static str,
    },
}

/// A number that is not a time.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// With its unit; or why there is none.
    pub(crate) value: Result<f64, String>,
    pub(crate) unit: &'static str,
    pub(crate) at_most: Option<f64>,
}
