//! Patterns of `.gitignore` files, written so that they name exactly what is meant.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Characters with a meaning of their own. Braces have none for git, but for the library that matches.
const SPECIAL: &[char] = &['\\', '*', '?', '[', ']', '{', '}', '!', '#'];

/// One component of a path, as a pattern that names just it. What is not UTF-8 matches anything.
pub(super) fn literal(component: &[u8]) -> String {
    let mut pattern = String::with_capacity(component.len());
    for chunk in component.utf8_chunks() {
        chunk.valid().chars().for_each(|c| escape(c, &mut pattern));
        if !chunk.invalid().is_empty() {
            pattern.push('*');
        }
    }
    keep_end(pattern)
}

/// One component of a guest pattern. What means something in it means the same in ignore files, but for white space at
/// the end.
pub(super) fn from_guest(component: &str) -> String {
    keep_end(component.to_owned())
}

/// Whether one component of a guest pattern names `name`.
pub(super) fn names(component: &str, name: &[u8]) -> bool {
    if !component.contains(SPECIAL) {
        return component.as_bytes() == name;
    }
    let name = Path::new(OsStr::from_bytes(name));
    matcher(
        [from_guest(component)]
            .iter()
            .map(|part| format!("/{part}")),
    )
    .is_ok_and(|matcher| matcher.matched(name, false).is_ignore())
}

/// Whether this is a pattern at all.
pub(super) fn is_valid(pattern: &str) -> bool {
    matcher([pattern.to_owned()].into_iter()).is_ok()
}

/// A matcher for patterns that are relative to where its paths start.
pub(super) fn matcher(patterns: impl Iterator<Item = String>) -> Result<Gitignore, ignore::Error> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, &pattern)?;
    }
    builder.build()
}

fn escape(c: char, pattern: &mut String) {
    if SPECIAL.contains(&c) {
        pattern.push('\\');
    }
    pattern.push(c);
}

/// White space at the end of a line would be cut off. In a class it stays, but a class holds bytes: what takes several
/// becomes a pattern that matches anything.
fn keep_end(mut pattern: String) -> String {
    if let Some(last) = pattern.pop() {
        let backslashes = pattern.chars().rev().take_while(|c| *c == '\\').count();
        if last.is_whitespace() && !last.is_ascii() {
            pattern.push('*');
        } else if last.is_whitespace() && backslashes % 2 == 0 {
            pattern.extend(['[', last, ']']);
        } else {
            pattern.push(last);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let matcher = matcher([pattern.to_owned()].into_iter()).unwrap();
        matcher.matched(path, false).is_ignore()
    }

    #[test]
    fn a_literal_names_itself_alone() {
        for name in [
            "a*b",
            "[x]",
            "{a,b}",
            "!a",
            "#a",
            "a\\b",
            "a ",
            "a\t",
            "a  ",
            "a\\ ",
            "-",
            "ä",
            "\u{a0}",
            "a\\\u{3000}",
        ] {
            let pattern = format!("/{}", literal(name.as_bytes()));
            assert!(matches(&pattern, name), "{pattern:?} {name:?}");
        }
        assert!(!matches(&format!("/{}", literal(b"a*b")), "axb"));
        assert!(!matches(&format!("/{}", literal(b"{a,b}")), "a"));
        assert!(!matches(&format!("/{}", literal(b"[x]")), "x"));
    }

    #[test]
    fn a_guest_pattern_means_the_same() {
        for (pattern, name, other) in [
            ("app", "app", "app2"),
            ("app-*", "app-1", "app"),
            ("?.o", "a.o", "ab.o"),
            ("[ab]", "a", "c"),
            ("*.{so,a}", "x.so", "x.o"),
            ("\\*", "*", "a"),
            ("a ", "a ", "a"),
            ("a\\ ", "a ", "a"),
        ] {
            let line = format!("/{}", from_guest(pattern));
            assert!(matches(&line, name) && !matches(&line, other), "{line:?}");
            assert!(names(pattern, name.as_bytes()), "{pattern:?}");
            assert!(!names(pattern, other.as_bytes()), "{pattern:?}");
        }
        assert!(!is_valid("/{a") && is_valid("/a"));
    }

    #[test]
    fn names_that_are_not_text_are_covered() {
        assert_eq!(literal(b"a\xffb"), "a*b");
    }

    proptest! {
        #[test]
        fn any_name_is_named_by_its_literal(name in "[^/\0\n\r]{1,8}") {
            prop_assume!(name != "." && name != "..");
            let pattern = format!("/{}", literal(name.as_bytes()));
            prop_assert!(matches(&pattern, &name), "{:?}", pattern);
        }
    }
}
