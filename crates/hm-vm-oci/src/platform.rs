//! What programs run on, and which of several images fits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::OciError;

/// What a program runs on, in the words of the OCI: `linux`, `amd64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Processor.
    #[serde(default)]
    pub architecture: String,
    /// Its version: `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on this machine's processor.
    pub fn here() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "x86" => ("386", None),
            "loongarch64" => ("loong64", None),
            "arm" => ("arm", Some("v7")),
            other => (other, None),
        };
        Self::of("linux", architecture, variant).normalized()
    }

    /// The same in the words that everybody uses: `x86_64` is `amd64`, `aarch64` and `arm64/v8` are `arm64`, `arm` is
    /// `arm/v7`; no operating system is `linux`.
    pub fn normalized(&self) -> Self {
        let os = match self.os.to_ascii_lowercase() {
            os if os.is_empty() => "linux".to_owned(),
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().unwrap_or("").to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self::of(
            &os,
            architecture,
            Some(variant).filter(|variant| !variant.is_empty()),
        )
    }

    /// Whether programs for `other` run on this one, as Docker and containerd have it: an `arm64` also runs `arm/v7`,
    /// an `amd64` also `386`.
    pub fn runs(&self, other: &Self) -> bool {
        self.compatible().contains(&other.normalized())
    }

    /// Whether it says that the image is none: signatures and attestations in an index.
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// What runs on this one, best first.
    pub(crate) fn compatible(&self) -> Vec<Self> {
        let wanted = self.normalized();
        let of =
            |architecture: &str, variant: Option<&str>| Self::of(&wanted.os, architecture, variant);
        let variant = wanted.variant.as_deref().unwrap_or("");
        let mut all = vec![wanted.clone()];
        match wanted.architecture.as_str() {
            "amd64" => {
                all.extend(
                    below(variant, 1).map(|version| of("amd64", Some(&version)).normalized()),
                );
                all.push(of("386", None));
            }
            "arm" => all.extend(below(variant, 5).map(|version| of("arm", Some(&version)))),
            "arm64" => {
                if !variant.is_empty() {
                    all.push(of("arm64", None));
                }
                for version in ["v8", "v7", "v6", "v5"] {
                    all.push(of("arm", Some(version)));
                }
            }
            _ => {}
        }
        all
    }

    fn of(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

/// The versions below `v<N>`, highest first, down to `lowest`. Processors have few of them, whatever a text says.
fn below(variant: &str, lowest: u8) -> impl Iterator<Item = String> + use<> {
    let version = variant
        .strip_prefix('v')
        .and_then(|digits| digits.parse::<u8>().ok());
    (lowest..version.unwrap_or(0).min(16))
        .rev()
        .map(|version| format!("v{version}"))
}

/// `linux/arm/v7`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// `linux/arm64`, `linux/arm/v7`, or only `arm64`, which is Linux. The result is [normalized](Platform::normalized).
impl FromStr for Platform {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let bad = |reason: &str| OciError::invalid(format!("platform {text:?}"), reason);
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            !part.is_empty() && part.bytes().all(usual)
        };
        if !parts.iter().all(is_word) {
            return Err(bad("it is written as linux/amd64 or linux/arm/v7"));
        }
        let platform = match parts[..] {
            ["linux" | "windows" | "darwin" | "macos" | "freebsd"] => {
                return Err(bad("it names no processor: write it as linux/amd64"));
            }
            [architecture] => Self::of("linux", architecture, None),
            [os, architecture] => Self::of(os, architecture, None),
            [os, architecture, variant] => Self::of(os, architecture, Some(variant)),
            _ => return Err(bad("it is written as linux/amd64 or linux/arm/v7")),
        };
        Ok(platform.normalized())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_the_same_are_the_same() {
        for (one, other) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "arm64"),
            ("x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/ARMHF", "linux/arm/v7"),
            ("i386", "linux/386"),
        ] {
            assert_eq!(platform(one), platform(other));
        }
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        assert_eq!(Platform::here(), Platform::here().normalized());
        for wrong in [
            "",
            "linux",
            "/amd64",
            "linux/",
            "a/b/c/d",
            "linux/am d64",
            "linux/é",
        ] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_runs_on_what() {
        assert!(platform("arm64").runs(&platform("linux/arm/v7")));
        assert!(platform("linux/arm64/v9").runs(&platform("arm64")));
        assert!(platform("linux/amd64/v3").runs(&platform("linux/amd64/v2")));
        assert!(platform("amd64").runs(&platform("386")));
        assert!(!platform("amd64").runs(&platform("linux/amd64/v2")));
        assert!(!platform("amd64").runs(&platform("arm64")));
        assert!(!platform("linux/arm/v6").runs(&platform("linux/arm/v7")));
        assert!(!platform("amd64").runs(&platform("windows/amd64")));
    }
}
