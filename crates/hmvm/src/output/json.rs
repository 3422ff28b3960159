//! JSON for programs: listings are one array or object, event streams one object a line.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::human;
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
