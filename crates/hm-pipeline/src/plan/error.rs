//! What can be wrong with what the user asks of a plan.

/// Why there is no plan. Found by `downcast_ref` in what [`Plan::make`](super::Plan::make) returns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A step was named that the pipeline does not have.
    #[error("the pipeline has no step {name:?}")]
    UnknownStep {
        /// The name as given.
        name: String,
        /// Names that resemble it, the most similar one first.
        similar: Vec<String>,
    },
    /// The run is to begin from a step that does not belong to it.
    #[error("the step {name:?} does not belong to this run")]
    NotSelected {
        /// Its name as given.
        name: String,
    },
    /// Steps wait for each other. Not for pipelines that were read from a file, which are checked.
    #[error("these steps wait for each other: {}", .steps.join(", "))]
    Cycle {
        /// Names of the steps that can never start.
        steps: Vec<String>,
    },
}

impl PlanError {
    /// What the user can do, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownStep { similar, .. } if !similar.is_empty() => {
                let names: Vec<String> = similar.iter().map(|name| format!("{name:?}")).collect();
                Some(format!("did you mean {}?", names.join(" or ")))
            }
            Self::NotSelected { name } => Some(format!("add {name:?} to the steps to run")),
            Self::UnknownStep { .. } | Self::Cycle { .. } => None,
        }
    }
}
