//! JSON for programs: listings are one array or object, event streams one object a line.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::human;
use super::sanitize::is_harmful;
use super::ui::write_out;

/// Prints a listing or an object, indented.
///
/// # Errors
///
/// As [`write_out`].
pub(crate) fn document(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    write_out(|out| writeln!(out, "{text}"))
}

/// A time in JSON: RFC 3339, UTC.
pub(crate) fn time(time: SystemTime) -> Value {
    Value::String(human::timestamp(time))
}

/// A duration in JSON: milliseconds, with microseconds behind the point.
pub(crate) fn milliseconds(time: Duration) -> Value {
    let micros = u32::try_from(time.as_micros());
    micros.map_or_else(
        |_| Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        |micros| Value::from(f64::from(micros) / 1000.0),
    )
}

/// Adds an object on a line of its own to others that are to be written together.
pub(crate) fn append_line(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let start = bytes.len();
    if let Err(error) = serde_json::to_writer(&mut *bytes, value) {
        // No event holds anything that JSON cannot.
        bytes.truncate(start);
        tracing::error!(%error, "an event was not written");
        return;
    }
    // JSON leaves the controls beyond ASCII as they are; the line may be looked at on a terminal.
    if !bytes[start..].is_ascii()
        && let Ok(text) = std::str::from_utf8(&bytes[start..])
        && let Cow::Owned(escaped) = escape(text)
    {
        bytes.truncate(start);
        bytes.extend_from_slice(escaped.as_bytes());
    }
    bytes.push(b'\n');
}

/// Writes harmful characters, which are in strings alone, as JSON's escapes.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmful(character) {
            // All of them have four digits.
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left_in_a_line() {
        let text = "a\u{1b}[2J\u{9b}2J\u{202e}ü";
        let mut line = Vec::new();
        append_line(&mut line, &text);
        let line = String::from_utf8(line).expect("UTF-8");
        assert_eq!(line, "\"a\\u001b[2J\\u009b2J\\u202eü\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
    }
}
