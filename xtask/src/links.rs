//! Relative links in the documents lead somewhere.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::finding::Finding;

/// Finds relative links in the root's and `docs/`'s Markdown files that lead nowhere.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for document in documents(root)? {
        let text = std::fs::read_to_string(&document)
            .with_context(|| format!("reading {}", document.display()))?;
        let place = document
            .strip_prefix(root)
            .unwrap_or(&document)
            .display()
            .to_string();
        let folder = document.parent().unwrap_or(root);
        for link in relative_links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !folder.join(path).exists() {
                findings.push(Finding::error(
                    &place,
                    format!("links to {link}, which is not there"),
                ));
            }
        }
    }
    Ok(findings)
}

fn documents(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut documents = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        if !folder.is_dir() {
            continue;
        }
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?
        {
            let path = entry
                .with_context(|| format!("listing {}", folder.display()))?
                .path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    Ok(documents)
}

/// The targets of `[text](target)` outside fenced code, without those that name a scheme.
fn relative_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, next)) = after.split_once(')') else {
                break;
            };
            let target = target.split_whitespace().next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                links.push(target.to_owned());
            }
            rest = next;
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_with_a_scheme_and_links_in_code_are_left_alone() {
        let text = "See [a](docs/a.md) and [b](https://example.org/b), [c](c.md#part \"title\").\n\
                    ```\n[d](d.md)\n```\n[e](#here)\n";
        assert_eq!(relative_links(text), ["docs/a.md", "c.md#part", "#here"]);
    }

    #[test]
    fn a_link_to_a_missing_file_is_found() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("docs")).unwrap();
        std::fs::write(
            root.path().join("README.md"),
            "[a](docs/a.md) [b](docs/b.md)",
        )
        .unwrap();
        std::fs::write(root.path().join("docs/a.md"), "[up](../README.md#top)").unwrap();
        let found = check(root.path()).unwrap();
        assert_eq!(
            found,
            [Finding::error(
                "README.md",
                "links to docs/b.md, which is not there"
            )]
        );
    }
}
