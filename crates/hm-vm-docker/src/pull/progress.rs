//! What is known of a pull.

use bollard::models::CreateImageInfo;
use hm_vm_core::Cancellation;
use hm_vm_oci::Platform;

/// Of what a daemon writes about a layer, so much is kept.
const LONGEST_WORD: usize = 80;

/// How to pull.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// `None` is that of the backend.
    pub platform: Option<Platform>,
    /// Ends the pull early.
    pub cancel: Cancellation,
}

/// One layer of an image that is being pulled, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The beginning of its digest.
    pub layer: String,
    /// What is being done with it, in the daemon's words: `Downloading`, `Extracting`, `Pull complete`.
    pub state: String,
    /// Bytes that are done of it.
    pub done: u64,
    /// How many there are, if that is known.
    pub total: Option<u64>,
}

/// An image that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulledImage {
    /// Its id: the digest that stands for it in keys.
    pub id: String,
    /// `name@sha256:…` under which the registry knows it.
    pub digest: Option<String>,
    /// Bytes of its layers, unpacked.
    pub bytes: u64,
}

impl PullOptions {
    /// For a platform, instead of the backend's.
    #[must_use]
    pub fn with_platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Ended by a token.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancellation) -> Self {
        self.cancel = cancel;
        self
    }
}

impl PullProgress {
    /// What a line of a daemon says of a layer, if it is about one.
    pub(super) fn of_line(line: &CreateImageInfo) -> Option<Self> {
        let layer = line.id.as_deref()?;
        let state = line.status.as_deref()?;
        // The line about the whole image has its tag where others have their layer.
        let is_layer = layer.len() >= 12 && layer.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_layer || state.starts_with("Pulling from") {
            return None;
        }
        let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
        let detail = line.progress_detail.as_ref();
        Some(Self {
            layer: word(layer),
            state: word(state),
            done: detail.and_then(|detail| bytes(detail.current)).unwrap_or(0),
            total: detail
                .and_then(|detail| bytes(detail.total))
                .filter(|total| *total > 0),
        })
    }
}

fn word(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(LONGEST_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<PullProgress> {
        PullProgress::of_line(&serde_json::from_str(line).unwrap())
    }

    #[test]
    fn only_lines_about_layers_are_progress() {
        let line = r#"{"status":"Downloading","progressDetail":{"current":5,"total":9},"id":"0123456789ab"}"#;
        let found = of(line).unwrap();
        assert_eq!(
            (found.layer.as_str(), found.state.as_str()),
            ("0123456789ab", "Downloading")
        );
        assert_eq!((found.done, found.total), (5, Some(9)));
        let line = r#"{"status":"Download\u001b[31m","progressDetail":{"current":-1,"total":-1},"id":"0123456789ab"}"#;
        let found = of(line).unwrap();
        assert_eq!(
            (found.state.as_str(), found.done, found.total),
            ("Download[31m", 0, None)
        );
        for other in [
            r#"{"status":"Pulling from library/alpine","id":"3"}"#,
            r#"{"status":"Pulling from library/alpine","id":"0123456789ab"}"#,
            r#"{"status":"Digest: sha256:00"}"#,
            r#"{"id":"0123456789ab"}"#,
            "{}",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
