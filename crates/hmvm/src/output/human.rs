//! Sizes, times and counts that read well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hm_vm::calendar::civil_date;
use hm_vm::{ProgressState, ProgressUnit};

/// `1 layer`, `2 layers`. The plural is the word with an `s`, or the one given after a `|`.
pub(crate) fn plural(count: u64, word: &str) -> String {
    let (one, many) = word.split_once('|').map_or_else(
        || (word.to_owned(), format!("{word}s")),
        |(one, many)| (one.to_owned(), many.to_owned()),
    );
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

/// A size with three significant digits: `0 B`, `12.5 KiB`, `340 MiB`.
#[expect(
    clippy::cast_precision_loss,
    reason = "three digits are shown, and a double has fifteen"
)]
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // What would be rounded to 1024 belongs to the next unit.
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{} {unit}", three_digits(value))
    }
}

/// A count with a comma at each thousand: `4,200`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How far something is: `4,200/10,000 files`, `12 MiB/1.5 GiB`, `310 files`.
pub(crate) fn progress(state: ProgressState) -> String {
    let (text, unit): (fn(u64) -> String, _) = match state.unit {
        ProgressUnit::Bytes => (size, ""),
        _ => (count, " files"),
    };
    match state.total {
        Some(total) => format!("{}/{}{unit}", text(state.done), text(total)),
        None => format!("{}{unit}", text(state.done)),
    }
}

/// A duration with three significant digits: `85 µs`, `1.24 ms`, `2.5 s`, `3 min 20 s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.000_999_5 {
        format!("{} µs", time.as_micros())
    } else if seconds < 0.999_5 {
        format!("{} ms", three_digits(seconds * 1e3))
    } else if seconds < 60.0 {
        format!("{} s", three_digits(seconds))
    } else if time.as_secs() < 3600 {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    } else {
        let minutes = time.as_secs() / 60;
        format!("{} h {} min", minutes / 60, minutes % 60)
    }
}

/// How long ago something was: `just now`, `5 minutes ago`.
pub(crate) fn ago(now: SystemTime, then: SystemTime) -> String {
    let Ok(passed) = now.duration_since(then) else {
        return "just now".into();
    };
    let seconds = passed.as_secs();
    match seconds {
        0..10 => "just now".into(),
        10..60 => format!("{seconds} seconds ago"),
        60..3600 => format!("{} ago", plural(seconds / 60, "minute")),
        3600..86_400 => format!("{} ago", plural(seconds / 3600, "hour")),
        _ => format!("{} ago", plural(seconds / 86_400, "day")),
    }
}

/// A time as RFC 3339 in UTC, to the second: `2026-03-01T12:00:00Z`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn three_digits(value: f64) -> String {
    let text = if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        return format!("{value:.0}");
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well() {
        let state = |unit, done, total| progress(ProgressState { unit, done, total });
        let files = ProgressUnit::Files;
        assert_eq!(state(files, 4200, Some(10_000)), "4,200/10,000 files");
        assert_eq!(state(files, 310, None), "310 files");
        assert_eq!(state(files, 1_234_567, None), "1,234,567 files");
        let bytes = ProgressUnit::Bytes;
        assert_eq!(state(bytes, 1 << 20, Some(3 << 29)), "1 MiB/1.5 GiB");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1 KiB");
        assert_eq!(size(1_048_500), "1 MiB");
        assert_eq!(size(12_800), "12.5 KiB");
        assert_eq!(duration(Duration::from_micros(85)), "85 µs");
        assert_eq!(duration(Duration::from_micros(1240)), "1.24 ms");
        assert_eq!(duration(Duration::from_micros(999_700)), "1 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(7260)), "2 h 1 min");
        assert_eq!(plural(1, "entry|entries"), "1 entry");
        assert_eq!(plural(0, "entry|entries"), "0 entries");
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_772_366_400), "2026-03-01T12:00:00Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
    }

    #[test]
    fn ages() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let before = |seconds| ago(now, now - Duration::from_secs(seconds));
        assert_eq!(before(3), "just now");
        assert_eq!(before(60), "1 minute ago");
        assert_eq!(before(172_800), "2 days ago");
        assert_eq!(ago(now, now + Duration::from_secs(5)), "just now");
    }
}
