//! `if`: whether a step is to run at all.

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `env.NAME`: the variable is there and not empty.
    Set(String),
    /// `env.NAME == "VALUE"`. A variable that is absent equals the empty string.
    Equals {
        /// Its name.
        name: String,
        /// The value.
        value: String,
    },
    /// `changed("PATTERN", …)`: a file that one of these patterns names differs from the revision that the
    /// run compares with. Patterns as in `.gitignore`, from the pipeline's directory.
    Changed(Vec<String>),
    /// `!CONDITION`.
    Not(Box<Condition>),
    /// `A && B`.
    All(Vec<Condition>),
    /// `A || B`.
    Any(Vec<Condition>),
}
