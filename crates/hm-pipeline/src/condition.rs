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
    /// `A && B`; `true`, when there is none.
    All(Vec<Condition>),
    /// `A || B`; `false`, when there is none.
    Any(Vec<Condition>),
}

impl Condition {
    /// Reads a condition.
    ///
    /// ```text
    /// any     = all { "||" all }
    /// all     = not { "&&" not }
    /// not     = "!" not | "(" any ")" | "true" | "false" | changed | variable
    /// changed = "changed" "(" text { "," text } ")"
    /// variable = "env." NAME [ ( "==" | "!=" ) text ]
    /// ```
    ///
    /// A text stands in double or single quotes; there are no escapes.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let condition = parser.any()?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.unexpected("`&&`, `||` or the end"));
        }
        Ok(condition)
    }

    /// Whether it holds. `variable` gives the value of an environment variable, `changed` whether a file
    /// that one of the patterns names has changed; neither is asked for more than is needed.
    pub fn evaluate(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
        changed: &dyn Fn(&[String]) -> bool,
    ) -> bool {
        match self {
            Self::Set(name) => variable(name).is_some_and(|value| !value.is_empty()),
            Self::Equals { name, value } => variable(name).unwrap_or_default() == *value,
            Self::Changed(patterns) => changed(patterns),
            Self::Not(inner) => !inner.evaluate(variable, changed),
            Self::All(parts) => parts.iter().all(|part| part.evaluate(variable, changed)),
            Self::Any(parts) => parts.iter().any(|part| part.evaluate(variable, changed)),
        }
    }

    /// Whether its evaluation may ask what has changed.
    pub fn needs_changes(&self) -> bool {
        match self {
            Self::Set(_) | Self::Equals { .. } => false,
            Self::Changed(_) => true,
            Self::Not(inner) => inner.needs_changes(),
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::needs_changes),
        }
    }
}

/// What is wrong with the text of a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// The first byte that is wrong.
    pub offset: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Deepest nesting of `!` and parentheses.
const DEPTH_LIMIT: usize = 32;

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn any(&mut self) -> Result<Condition, ConditionError> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(single(parts, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, ConditionError> {
        let mut parts = vec![self.not()?];
        while self.take("&&") {
            parts.push(self.not()?);
        }
        Ok(single(parts, Condition::All))
    }

    fn not(&mut self) -> Result<Condition, ConditionError> {
        if self.depth == DEPTH_LIMIT {
            return Err(self.error(format!("nested deeper than {DEPTH_LIMIT} levels")));
        }
        self.depth += 1;
        let condition = if self.take("!") {
            self.not().map(|inner| Condition::Not(Box::new(inner)))
        } else if self.take("(") {
            let inner = self.any()?;
            self.expect(")").map(|()| inner)
        } else {
            self.atom()
        };
        self.depth -= 1;
        condition
    }

    fn atom(&mut self) -> Result<Condition, ConditionError> {
        self.skip_space();
        let start = self.at;
        match self.word() {
            "true" => Ok(Condition::All(Vec::new())),
            "false" => Ok(Condition::Any(Vec::new())),
            "changed" => self.changed(),
            "env" => self.variable(),
            _ => {
                self.at = start;
                Err(self.unexpected("env.NAME, changed(…), true, false, `!` or `(`"))
            }
        }
    }

    fn changed(&mut self) -> Result<Condition, ConditionError> {
        self.expect("(")?;
        let mut patterns = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            let pattern = self.quoted()?;
            let wrong = if pattern.trim().is_empty() {
                Some("the pattern is empty")
            } else if pattern.split('/').any(|part| part == "..") {
                Some("the pattern leaves the pipeline's directory")
            } else {
                None
            };
            if let Some(message) = wrong {
                self.at = start;
                return Err(self.error(message.to_owned()));
            }
            patterns.push(pattern);
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(Condition::Changed(patterns))
    }

    fn variable(&mut self) -> Result<Condition, ConditionError> {
        self.expect(".")?;
        let name = self.word().to_owned();
        if name.is_empty() {
            return Err(self.unexpected("the name of a variable"));
        }
        if self.take("==") {
            let value = self.quoted()?;
            return Ok(Condition::Equals { name, value });
        }
        if self.take("!=") {
            let value = self.quoted()?;
            return Ok(Condition::Not(Box::new(Condition::Equals { name, value })));
        }
        self.skip_space();
        if self.rest().starts_with('=') {
            return Err(self.error("`=` is no comparison: write `==`".to_owned()));
        }
        Ok(Condition::Set(name))
    }

    fn quoted(&mut self) -> Result<String, ConditionError> {
        self.skip_space();
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Err(self.unexpected("a text in quotes")),
        };
        let inner = &self.rest()[1..];
        let Some(length) = inner.find(quote) else {
            return Err(self.error("the text has no closing quote".to_owned()));
        };
        self.at += length + 2;
        Ok(inner[..length].to_owned())
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest
            .find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ConditionError> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{token}`")))
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn unexpected(&self, wanted: &str) -> ConditionError {
        let rest = self.rest();
        let found = match rest.chars().next() {
            None => "the end".to_owned(),
            Some(first) => {
                let part = |letter: &char| letter.is_alphanumeric() || "_.".contains(*letter);
                let word: String = rest.chars().take(40).take_while(part).collect();
                let word = if word.is_empty() {
                    first.to_string()
                } else {
                    word
                };
                format!("`{word}`")
            }
        };
        self.error(format!("expected {wanted}, found {found}"))
    }

    fn error(&self, message: String) -> ConditionError {
        ConditionError {
            offset: self.at,
            message,
        }
    }
}

/// The only part, or all of them together.
fn single(mut parts: Vec<Condition>, together: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            together(parts)
        }
        None => together(parts),
    }
}
