//! Patterns of `.gitignore` files, written so that they name exactly what is meant.

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

/// One component of a guest pattern, in which only `*` and `?` have a meaning.
pub(super) fn from_guest(component: &str) -> String {
    let mut pattern = String::with_capacity(component.len());
    for c in component.chars() {
        if matches!(c, '*' | '?') {
            pattern.push(c);
        } else {
            escape(c, &mut pattern);
        }
    }
    keep_end(pattern)
}

/// Whether one component of a guest pattern names `name`.
pub(super) fn names(component: &str, name: &[u8]) -> bool {
    let pattern: Vec<char> = component.chars().collect();
    let name: Vec<char> = String::from_utf8_lossy(name).chars().collect();
    // Positions of the last star, and of what it has taken so far: going back to it is enough.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((position, taken)) = star else {
                    return false;
                };
                star = Some((position, taken + 1));
                at = position + 1;
                seen = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

fn escape(c: char, pattern: &mut String) {
    if SPECIAL.contains(&c) {
        pattern.push('\\');
    }
    pattern.push(c);
}

/// White space at the end of a line would be cut off.
fn keep_end(mut pattern: String) -> String {
    if let Some(last) = pattern.pop() {
        if last.is_whitespace() {
            pattern.extend(['[', last, ']']);
        } else {
            pattern.push(last);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use ignore::gitignore::GitignoreBuilder;
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let mut builder = GitignoreBuilder::new("");
        builder.add_line(None, pattern).unwrap();
        let matcher = builder.build().unwrap();
        matcher.matched(path, false).is_ignore()
    }

    #[test]
    fn a_literal_names_itself_alone() {
        for name in [
            "a*b", "[x]", "{a,b}", "!a", "#a", "a\\b", "a ", "a\t", "a  ", "-", "ä",
        ] {
            let pattern = format!("/{}", literal(name.as_bytes()));
            assert!(matches(&pattern, name), "{pattern:?} {name:?}");
        }
        assert!(!matches(&format!("/{}", literal(b"a*b")), "axb"));
        assert!(!matches(&format!("/{}", literal(b"{a,b}")), "a"));
        assert!(!matches(&format!("/{}", literal(b"[x]")), "x"));
    }

    #[test]
    fn a_guest_pattern_keeps_its_stars() {
        assert!(matches(&from_guest("app-*"), "app-1"));
        assert!(matches(&from_guest("?.o"), "a.o"));
        assert!(!matches(&from_guest("[ab]"), "a"));
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

        #[test]
        fn stars_match_as_the_library_does(pattern in "[ab*?]{1,6}", name in "[ab]{1,6}") {
            prop_assume!(!pattern.contains("**"));
            prop_assert_eq!(
                names(&pattern, name.as_bytes()),
                matches(&format!("/{pattern}"), &name)
            );
        }
    }
}
