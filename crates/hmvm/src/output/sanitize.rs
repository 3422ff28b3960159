//! Names that come from guests, shown safely.
//!
//! A file name or an error text from a VM may hold escape sequences that would move the user's
//! cursor, change the title, or fake other output. In the program's own messages they are shown
//! escaped. Output of the user's own command is passed through: it was asked for.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

/// Replaces control characters, and marks that change the direction of text, by escapes.
pub(crate) fn sanitize(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_harmful(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// A path as text: bytes that are not UTF-8 become `\xNN`, the rest as [`sanitize`] says.
pub(crate) fn sanitize_path(path: impl AsRef<OsStr>) -> String {
    let mut safe = String::new();
    for chunk in path.as_ref().as_bytes().utf8_chunks() {
        safe.push_str(&sanitize(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _written = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// A line of a command's output as a terminal may show it: colours and tabs stay, other control characters are
/// escaped. Where there are colours, they end with the line.
pub(crate) fn terminal_line(line: &str) -> Cow<'_, str> {
    if !line
        .chars()
        .any(|character| is_harmful(character) && character != '\t')
    {
        return Cow::Borrowed(line);
    }
    let mut safe = String::with_capacity(line.len() + 8);
    let mut rest = line;
    let mut coloured = false;
    while let Some(character) = rest.chars().next() {
        let length = colour(rest).unwrap_or(0);
        if length > 0 {
            safe.push_str(&rest[..length]);
            rest = &rest[length..];
            coloured = true;
            continue;
        }
        rest = &rest[character.len_utf8()..];
        // What is before the end of a line of another system is shown as such a line.
        if character == '\r' && rest.is_empty() {
            break;
        }
        if is_harmful(character) && character != '\t' {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    if coloured {
        safe.push_str("\u{1b}[0m");
    }
    Cow::Owned(safe)
}

/// What a line of output would leave on a terminal, without colours, for showing it among other things: a bar
/// that redraws itself by carriage returns is its last state.
pub(crate) fn bare_line(line: &str) -> String {
    let mut bare = String::with_capacity(line.len());
    let mut rest = line.trim_end_matches('\r');
    rest = rest.rsplit('\r').next().unwrap_or(rest);
    while let Some(character) = rest.chars().next() {
        let length = colour(rest).unwrap_or(0);
        if length > 0 {
            rest = &rest[length..];
            continue;
        }
        rest = &rest[character.len_utf8()..];
        if character == '\t' {
            bare.push(' ');
        } else if is_harmful(character) {
            bare.extend(character.escape_default());
        } else {
            bare.push(character);
        }
    }
    bare
}

/// Length of the escape sequence at the beginning of `text` that does nothing but change colours.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|character: char| !matches!(character, '0'..='9' | ';' | ':'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// Whether a character moves the cursor, changes the direction of text, or does not show itself.
pub(crate) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_get_through() {
        assert_eq!(sanitize("a\u{1b}[2Jb\n\u{9b}c"), "a\\u{1b}[2Jb\\n\\u{9b}c");
        assert_eq!(sanitize("grün ✓"), "grün ✓");
        assert_eq!(sanitize_path(OsStr::from_bytes(b"a\xffb\r")), "a\\xffb\\r");
    }

    #[test]
    fn of_output_only_colours_reach_the_terminal() {
        let red = "\u{1b}[1;31mred";
        assert_eq!(terminal_line("plain\ttext"), "plain\ttext");
        assert_eq!(terminal_line(red), format!("{red}\u{1b}[0m"));
        assert_eq!(
            terminal_line("\u{1b}[2Jx\u{1b}[31"),
            "\\u{1b}[2Jx\\u{1b}[31"
        );
        assert_eq!(terminal_line("dos\r"), "dos");
        assert_eq!(bare_line(red), "red");
        assert_eq!(bare_line("10 %\r20 %\r"), "20 %");
        assert_eq!(
            bare_line("a\tb\u{1b}]0;title\u{7}"),
            "a b\\u{1b}]0;title\\u{7}"
        );
    }
}
