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

fn is_harmful(character: char) -> bool {
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
}
