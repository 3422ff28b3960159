//! Times and sizes: a number and a unit.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::values::{Form, Wrong};

/// Longest time, a hundred years: what is longer is a slip of the hand, and would overflow clocks.
const LONGEST: Duration = Duration::from_secs(3_155_760_000);

/// A time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time;

impl Form for Time {
    type Value = Duration;

    fn parse(text: &str) -> Result<Duration, Wrong> {
        parse_time(text)
    }

    fn schema() -> Json {
        json!({ "examples": ["250ms", "90s", "5m", "1h30m"] })
    }
}

fn parse_time(text: &str) -> Result<Duration, Wrong> {
    const HINT: &str = "write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d";
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(Wrong::new("no time given", HINT));
    }
    while !rest.is_empty() {
        let (number, unit, after) = quantity(rest);
        rest = after;
        if number.is_empty() {
            return Err(Wrong::new(format!("`{text}` is no time"), HINT));
        }
        let millis: u64 = match unit {
            "ms" => 1,
            "s" | "sec" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => {
                return Err(Wrong::new(
                    format!("`{text}` has no unit"),
                    format!("write \"{text}s\" for seconds or \"{text}m\" for minutes"),
                ));
            }
            _ => return Err(Wrong::new(format!("unknown unit `{unit}`"), HINT)),
        };
        let part = number
            .parse::<f64>()
            .ok()
            .and_then(|number| Duration::try_from_secs_f64(number * millis as f64 / 1000.0).ok());
        total = match part.and_then(|part| total.checked_add(part)) {
            Some(sum) if sum <= LONGEST => sum,
            _ => {
                return Err(Wrong::new(
                    format!("`{text}` is no time, or too long"),
                    HINT,
                ));
            }
        };
    }
    if total.is_zero() {
        return Err(Wrong::new("must be more than zero", HINT));
    }
    Ok(total)
}

/// Splits `1.5h30m` into number, unit and rest.
fn quantity(text: &str) -> (&str, &str, &str) {
    let text = text.trim_start();
    let digits = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest
        .find(|letter: char| letter.is_ascii_digit() || letter == '.' || letter.is_whitespace())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    (number, unit, rest.trim_start())
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn parse_size(text: &str, unit_bytes: u64, unit_name: &str) -> Result<u64, Wrong> {
    const HINT: &str = "write a number and a unit: 512MiB, 1.5GiB or 2GiB";
    let (number, unit, rest) = quantity(text.trim());
    if number.is_empty() || !rest.is_empty() {
        return Err(Wrong::new(format!("`{text}` is no size"), HINT));
    }
    let factor = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => MIB,
        "gib" | "g" => GIB,
        "tib" | "t" => 1 << 40,
        "" => {
            return Err(Wrong::new(
                format!("`{text}` has no unit"),
                format!("write \"{text}MiB\" or \"{text}GiB\""),
            ));
        }
        "kb" | "mb" | "gb" | "tb" => {
            let binary = unit[..1].to_ascii_uppercase();
            return Err(Wrong::new(
                format!("`{unit}` is read as 1000s by some and as 1024s by others"),
                format!("write \"{number}{binary}iB\" for powers of 1024"),
            ));
        }
        _ => return Err(Wrong::new(format!("unknown unit `{unit}`"), HINT)),
    };
    let bytes = number.parse::<f64>().unwrap_or(f64::NAN) * factor as f64;
    let count = bytes / unit_bytes as f64;
    // Beyond a tebi of units a number is a slip of the hand.
    if !(count.is_finite() && count < 1e12) {
        return Err(Wrong::new(
            format!("`{text}` is no size, or too large"),
            HINT,
        ));
    }
    if count < 1.0 || count.fract() != 0.0 {
        return Err(Wrong::new(
            format!("`{text}` is no whole number of {unit_name}"),
            format!("write \"{}{unit_name}\"", count.ceil().max(1.0)),
        ));
    }
    Ok(count as u64)
}

/// Memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory;

impl Form for Memory {
    type Value = u64;

    fn parse(text: &str) -> Result<u64, Wrong> {
        parse_size(text, MIB, "MiB")
    }

    fn schema() -> Json {
        json!({ "examples": ["512MiB", "2GiB"] })
    }
}

/// A disk, in GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk;

impl Form for Disk {
    type Value = u64;

    fn parse(text: &str) -> Result<u64, Wrong> {
        let size = parse_size(text, GIB, "GiB")?;
        // A file, and so a file system in one, stays below 16 TiB on ext4.
        if size > 15 << 10 {
            return Err(Wrong::new(
                format!("`{text}` is too large"),
                "write \"15TiB\" or less, or leave it out",
            ));
        }
        Ok(size)
    }

    fn schema() -> Json {
        json!({ "examples": ["10GiB"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, millis) in [
            ("250ms", 250),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            (" 1 h 30 min ", 5_400_000),
            ("2d", 172_800_000),
            ("36500d", 36_500 * 86_400_000),
        ] {
            let time = Time::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
            assert_eq!(time, Duration::from_millis(millis), "{text}");
        }
        for text in [
            "",
            "5",
            "5x",
            "m",
            "-5m",
            "0s",
            "1..5s",
            ".s",
            "40000d",
            "1e9s",
            "5m30",
            "99999999999999999999999999999d",
            "5 m x",
        ] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, mib) in [
            ("512MiB", 512),
            ("1.5GiB", 1536),
            ("2G", 2048),
            ("2048k", 2),
            ("1048576b", 1),
            (" 1 TiB ", 1 << 20),
        ] {
            let size = Memory::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
            assert_eq!(size, mib, "{text}");
        }
        for text in [
            "",
            "512",
            "1GB",
            "MiB",
            "-1MiB",
            "0MiB",
            "1.1MiB",
            "1MiB1MiB",
            "1..MiB",
            "1e9MiB",
            "99999999999999999999TiB",
            "1xiB",
        ] {
            assert!(Memory::parse(text).is_err(), "{text}");
        }
        assert_eq!(Disk::parse("1024MiB").ok(), Some(1));
        assert_eq!(Disk::parse("15TiB").ok(), Some(15 << 10));
        assert!(Disk::parse("1536MiB").is_err());
        assert!(Disk::parse("16TiB").is_err());
    }
}
