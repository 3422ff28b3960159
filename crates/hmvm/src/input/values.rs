//! Option values with units. Each parser's error names what is wrong; a second line that begins
//! with `hint: ` says what to write instead.

use std::time::Duration;

const DURATION_HINT: &str = "write a number and a unit: 250ms, 90s, 5m, 1h30m or 2d";
const SIZE_HINT: &str = "write a number and a unit: 512MiB, 1.5GiB or 2G";

const COUNT_HINT: &str = "write a whole number such as 4";

/// Largest count: the most processes that a Linux machine can have.
const COUNT_LIMIT: u32 = 4_194_304;

/// One mebibyte in bytes.
pub(crate) const MIB: u64 = 1 << 20;
/// Largest disk: a file, and so a file system in one, stays below 16 TiB on ext4.
const DISK_LIMIT_GIB: u64 = 15 << 10;

/// One gibibyte in bytes.
pub(crate) const GIB: u64 = 1 << 30;

/// Reads a time such as `90s`, `1.5h` or `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(with_hint("no time given", DURATION_HINT));
    }
    while !rest.is_empty() {
        let (number, unit, after) = split_quantity(rest, DURATION_HINT)?;
        let seconds = match unit {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" => return Err(with_hint("a unit is missing", DURATION_HINT)),
            _ => return Err(with_hint(&format!("unknown unit {unit:?}"), DURATION_HINT)),
        };
        total += number * seconds;
        rest = after;
    }
    if total <= 0.0 {
        return Err(with_hint("must be more than zero", DURATION_HINT));
    }
    // A hundred years: what is longer is a slip of the hand, and would overflow clocks.
    if total > 3_155_760_000.0 {
        return Err(with_hint("too long", DURATION_HINT));
    }
    Duration::try_from_secs_f64(total).map_err(|error| with_hint(&error.to_string(), DURATION_HINT))
}

/// Reads a size such as `512MiB`, `1.5GiB` or `2G`, in bytes. All units are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit, rest) = split_quantity(text.trim(), SIZE_HINT)?;
    if !rest.is_empty() {
        return Err(with_hint(&format!("unexpected {rest:?}"), SIZE_HINT));
    }
    let factor = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => MIB,
        "gib" | "g" => GIB,
        "tib" | "t" => 1 << 40,
        "" => return Err(with_hint("a unit is missing", SIZE_HINT)),
        "kb" | "mb" | "gb" | "tb" => {
            let binary = unit[..1].to_ascii_uppercase();
            return Err(with_hint(
                &format!("{unit} is read as 1000s by some and as 1024s by others"),
                &format!("write {binary}iB for powers of 1024"),
            ));
        }
        _ => return Err(with_hint(&format!("unknown unit {unit:?}"), SIZE_HINT)),
    };
    to_bytes(number, factor)
}

/// Reads a size that must be a whole number of MiB.
pub(crate) fn parse_mebibytes(text: &str) -> Result<u64, String> {
    whole(parse_size(text)?, MIB, "MiB")
}

/// Reads a size that must be a whole number of GiB.
pub(crate) fn parse_gibibytes(text: &str) -> Result<u64, String> {
    let size = whole(parse_size(text)?, GIB, "GiB")?;
    if size > DISK_LIMIT_GIB {
        return Err(with_hint(
            "too large",
            "write 15TiB or less, or leave it out",
        ));
    }
    Ok(size)
}

/// Reads a whole number from 1.
pub(crate) fn parse_count(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        // More than any machine has, and more than the kernel takes for some limits.
        Ok(count) if count > COUNT_LIMIT => Err(with_hint("too large", COUNT_HINT)),
        Ok(0) => Err(with_hint("must be at least 1", COUNT_HINT)),
        Ok(count) => Ok(count),
        Err(_) => Err(with_hint("not a whole number from 1", COUNT_HINT)),
    }
}

/// Value of `--cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CacheMode {
    /// Under the key that derives from the content.
    Auto,
    /// Always run.
    Off,
    /// Under this key.
    Key(String),
}

/// Reads `auto`, `off`, or any other text as a key.
pub(crate) fn parse_cache_mode(text: &str) -> Result<CacheMode, String> {
    match text {
        "auto" => Ok(CacheMode::Auto),
        "off" => Ok(CacheMode::Off),
        "" => Err(with_hint(
            "the key is empty",
            "write auto, off, or a key of your own",
        )),
        key => Ok(CacheMode::Key(key.to_owned())),
    }
}

/// Value of `-e`: a variable with its value, or one to take over from hmvm's own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvArgument {
    /// Name of the variable.
    pub(crate) name: String,
    /// Its value, if given.
    pub(crate) value: Option<String>,
}

/// Reads `NAME=VALUE` or `NAME`.
pub(crate) fn parse_env(text: &str) -> Result<EnvArgument, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(with_hint(
            "the name is empty",
            "write NAME=VALUE, or NAME to take over the value it has here",
        ));
    }
    Ok(EnvArgument {
        name: name.to_owned(),
        value,
    })
}

/// Reads an absolute guest path.
pub(crate) fn parse_guest_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(with_hint(
            "not an absolute path",
            &format!("write it from the VM's root: /{text}"),
        ))
    }
}

/// Splits `12.5xyz9…` into 12.5, `xyz` and the rest.
fn split_quantity<'a>(text: &'a str, hint: &str) -> Result<(f64, &'a str, &'a str), String> {
    if text.starts_with('-') {
        return Err(with_hint("must be more than zero", hint));
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let number: f64 = number
        .parse()
        .map_err(|_| with_hint("does not begin with a number", hint))?;
    let letters = rest
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Ok((number, unit.trim(), rest))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the value is checked to be a positive number below 2^53 first"
)]
fn to_bytes(number: f64, factor: u64) -> Result<u64, String> {
    let bytes = number * factor as f64;
    if bytes < 1.0 {
        return Err(with_hint("must be more than zero", SIZE_HINT));
    }
    if bytes > (1u64 << 53) as f64 {
        return Err(with_hint("too large", SIZE_HINT));
    }
    Ok(bytes as u64)
}

fn whole(bytes: u64, unit: u64, name: &str) -> Result<u64, String> {
    if bytes.is_multiple_of(unit) {
        return Ok(bytes / unit);
    }
    Err(with_hint(
        &format!("not a whole number of {name}"),
        &format!("write {}{name}", bytes.div_ceil(unit)),
    ))
}

fn with_hint(problem: &str, hint: &str) -> String {
    format!("{problem}\nhint: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(millis("90s"), Ok(90_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("1.5m"), Ok(90_000));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("2 d"), Ok(172_800_000));
        for bad in [
            "",
            "90",
            "s",
            "-1s",
            "0s",
            "1x",
            "1h30",
            "99999999999d",
            "1..5s",
            "1e9s",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_mebibytes("512MiB"), Ok(512));
        assert_eq!(parse_mebibytes("1.5GiB"), Ok(1536));
        assert_eq!(parse_mebibytes("2g"), Ok(2048));
        assert_eq!(parse_gibibytes("1024MiB"), Ok(1));
        for bad in [
            "",
            "512",
            "MiB",
            "1MB",
            "0MiB",
            "-1MiB",
            "1KiB",
            "9999999TiB",
            "1GiB2",
        ] {
            assert!(parse_mebibytes(bad).is_err(), "{bad:?} was accepted");
        }
        let error = parse_gibibytes("1.5GiB").unwrap_err();
        assert!(error.ends_with("hint: write 2GiB"), "{error}");
    }

    #[test]
    fn environment_pairs() {
        let pair = parse_env("A=b=c").expect("a pair");
        assert_eq!(
            (pair.name.as_str(), pair.value.as_deref()),
            ("A", Some("b=c"))
        );
        assert_eq!(parse_env("A").expect("a name").value, None);
        assert_eq!(parse_env("A=").expect("a pair").value.as_deref(), Some(""));
        assert!(parse_env("=x").is_err());
        assert!(parse_env("").is_err());
    }

    #[test]
    fn counts_keys_and_paths() {
        assert_eq!(parse_count("4"), Ok(4));
        for bad in ["0", "-1", "1.5", "x", "", "4194305", "99999999999"] {
            assert!(parse_count(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(parse_cache_mode("mine"), Ok(CacheMode::Key("mine".into())));
        assert!(parse_cache_mode("").is_err());
        assert!(parse_guest_path("src").is_err());
    }
}
