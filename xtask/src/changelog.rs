//! The changelog has a place for what comes next.

use std::path::Path;

use anyhow::Context as _;

use crate::finding::Finding;

/// Finds a changelog whose first section is not the one of unreleased changes.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let path = root.join("CHANGELOG.md");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(check_text(&text))
}

fn check_text(text: &str) -> Vec<Finding> {
    let first = text.lines().find(|line| line.starts_with("## "));
    if first
        .is_some_and(|line| line.trim_start_matches("## ").trim_matches(['[', ']']) == "Unreleased")
    {
        return Vec::new();
    }
    vec![Finding::error(
        "CHANGELOG.md",
        "its first section must be `## Unreleased`",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreleased_comes_first() {
        assert_eq!(check_text("# Changelog\n\n## Unreleased\n\n## 0.1.0\n"), []);
        assert_eq!(check_text("# Changelog\n\n## [Unreleased]\n"), []);
        assert_eq!(
            check_text("# Changelog\n\n## 0.1.0\n\n## Unreleased\n").len(),
            1
        );
        assert_eq!(check_text("# Changelog\n").len(), 1);
    }
}
