//! Where a pipeline's outputs land, so that injects can leave them out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::patterns;
use crate::pipeline::Pipeline;

/// Where all outputs of a pipeline land: host directories, each with patterns of what comes into it, as components.
pub(super) struct Landings(BTreeMap<PathBuf, BTreeSet<Vec<String>>>);

impl Landings {
    /// Those of a pipeline. `real` makes a path absolute and free of links.
    pub(super) fn of(pipeline: &Pipeline, real: &dyn Fn(&Path) -> PathBuf) -> Self {
        let mut landings = BTreeMap::<PathBuf, BTreeSet<Vec<String>>>::new();
        let mut directories = BTreeMap::<&Path, PathBuf>::new();
        for outputs in pipeline.steps.iter().flat_map(|step| &step.outputs) {
            let Some(pattern) = landing(&outputs.pattern) else {
                continue;
            };
            let to = directories
                .entry(&outputs.to)
                .or_insert_with(|| real(&pipeline.directory.join(&outputs.to)));
            landings.entry(to.clone()).or_default().insert(pattern);
        }
        Self(landings)
    }

    /// Patterns that leave out of `source` what lands in it. An output that stands for all of `source` is not
    /// left out: whoever injects just that directory wants what is in it.
    pub(super) fn excluded_from(&self, source: &Path) -> Vec<String> {
        let mut excluded = BTreeSet::new();
        let from = (
            std::ops::Bound::Included(source),
            std::ops::Bound::Unbounded,
        );
        // Paths are in order of their components: all that begins with `source` comes in a row.
        let inside = self.0.range::<Path, _>(from);
        for (to, landing) in inside.take_while(|(to, _)| to.starts_with(source)) {
            let below = components(to.strip_prefix(source).unwrap_or(to));
            let prefix: Vec<String> = below.iter().map(|name| patterns::literal(name)).collect();
            excluded.extend(landing.iter().filter_map(|rest| anchored(&prefix, rest)));
        }
        for ancestor in source.ancestors().skip(1) {
            let Some(landing) = self.0.get(ancestor) else {
                continue;
            };
            let below = components(source.strip_prefix(ancestor).unwrap_or(source));
            for pattern in landing {
                let rests = remainders(pattern, &below);
                excluded.extend(rests.iter().filter_map(|rest| anchored(&[], rest)));
            }
        }
        excluded.into_iter().collect()
    }
}

/// Where what a guest pattern finds lands below its destination, as components. `None` when that cannot be inside of it.
fn landing(pattern: &str) -> Option<Vec<String>> {
    let mut parts: Vec<String> = pattern
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
        .collect();
    if parts.iter().any(|part| part == "..") {
        return None;
    }
    if pattern.starts_with('/') {
        parts.drain(..parts.len().saturating_sub(1));
    }
    if parts.is_empty() {
        // The base itself, or the guest's root: all that is in it.
        parts.push("**".to_owned());
    }
    Some(parts)
}

/// An anchored pattern; `None` when it would name everything, or is none: alternatives with a slash in them, taken apart.
fn anchored(prefix: &[String], rest: &[String]) -> Option<String> {
    let everything = rest.iter().all(|part| part.chars().all(|c| c == '*'));
    if prefix.is_empty() && everything {
        return None;
    }
    let mut pattern = String::new();
    let rest = rest.iter().map(|part| patterns::from_guest(part));
    for part in prefix.iter().cloned().chain(rest) {
        pattern.push('/');
        pattern.push_str(&part);
    }
    // Compiling takes long, and stars are always valid.
    let simple = !pattern.contains(['[', ']', '{', '}', '\\']);
    (simple || patterns::is_valid(&pattern)).then_some(pattern)
}

/// What is left of a pattern below each way in which its beginning names `path`.
fn remainders<'a>(pattern: &'a [String], path: &[&[u8]]) -> BTreeSet<&'a [String]> {
    let mut rests = BTreeSet::from([pattern]);
    for name in path {
        let mut next = BTreeSet::new();
        for rest in rests.into_iter().flat_map(without_leading_stars) {
            match rest.split_first() {
                Some((part, _)) if part == "**" => next.insert(rest),
                Some((part, after)) if patterns::names(part, name) => next.insert(after),
                _ => continue,
            };
        }
        rests = next;
    }
    rests.retain(|rest| !rest.is_empty());
    rests
}

/// A pattern, and what it is when its leading `**` match no directory.
fn without_leading_stars(pattern: &[String]) -> impl Iterator<Item = &[String]> {
    let stars = pattern.iter().take_while(|part| *part == "**").count();
    (0..=stars).map(move |skipped| &pattern[skipped..])
}

fn components(path: &Path) -> Vec<&[u8]> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(OsStr::as_bytes(name)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Outputs;
    use crate::testing::{pipeline, step};

    fn excluded(outputs: &[(&str, &str)], source: &str) -> Vec<String> {
        let mut one = step("a");
        one.outputs = outputs
            .iter()
            .map(|(pattern, to)| Outputs {
                pattern: (*pattern).into(),
                to: to.into(),
            })
            .collect();
        let landings = Landings::of(&pipeline(vec![one]), &Path::to_path_buf);
        landings.excluded_from(Path::new(source))
    }

    #[test]
    fn outputs_that_land_inside_are_left_out() {
        assert_eq!(excluded(&[("app", "")], "/project"), ["/app"]);
        assert_eq!(excluded(&[("./bin//app", "")], "/project"), ["/bin/app"]);
        assert_eq!(
            excluded(&[("*.so", "dist [1]")], "/project"),
            ["/dist \\[1\\]/*.so"]
        );
        assert_eq!(excluded(&[("*.{a,so}", "")], "/project"), ["/*.{a,so}"]);
        assert!(excluded(&[("/out/{a/b,c}", "")], "/project").is_empty());
        assert_eq!(excluded(&[("**/*.o", "")], "/project"), ["/**/*.o"]);
    }

    #[test]
    fn an_absolute_one_lands_under_its_last_component() {
        assert_eq!(
            excluded(&[("/out/x/app-*", "bin")], "/project"),
            ["/bin/app-*"]
        );
    }

    #[test]
    fn outputs_that_land_elsewhere_are_not() {
        assert!(excluded(&[("app", "/elsewhere")], "/project").is_empty());
        assert!(excluded(&[("app", "")], "/project/src").is_empty());
        assert!(excluded(&[("app", "")], "/projects").is_empty());
        assert!(excluded(&[("../app", "")], "/project").is_empty());
    }

    #[test]
    fn a_source_below_the_destination_sees_the_rest_of_the_pattern() {
        assert_eq!(
            excluded(&[("src/gen/*.c", "")], "/project/src"),
            ["/gen/*.c"]
        );
        assert_eq!(excluded(&[("s*/gen", "")], "/project/src"), ["/gen"]);
        assert_eq!(excluded(&[("s[q-s]c/gen", "")], "/project/src"), ["/gen"]);
        assert_eq!(excluded(&[("**/gen", "")], "/project/src"), ["/**/gen"]);
    }

    #[test]
    fn a_source_that_is_an_output_is_brought() {
        assert!(excluded(&[("gen", "")], "/project/gen").is_empty());
        assert!(excluded(&[("gen", "")], "/project/gen/deep").is_empty());
        assert!(excluded(&[("*", "")], "/project").is_empty());
        assert!(excluded(&[("**", "")], "/project").is_empty());
        assert!(excluded(&[(".", "")], "/project/src").is_empty());
        assert_eq!(excluded(&[("*", "dist")], "/project"), ["/dist/*"]);
        assert_eq!(excluded(&[("./", "dist")], "/project"), ["/dist/**"]);
    }
}
