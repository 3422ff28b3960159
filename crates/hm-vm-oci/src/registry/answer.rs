//! What servers answer, and what it means for us.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::OciError;

/// Enough of an answer that says what went wrong.
const MOST_ERROR_BYTES: u64 = 16 << 10;
const MOST_ERROR_CHARACTERS: usize = 300;

/// A failure, and whether it may pass.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: OciError,
    pub(super) may_pass: bool,
    /// When the other side wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn for_good(error: OciError) -> Self {
        Self {
            error,
            may_pass: false,
            retry_after: None,
        }
    }

    pub(super) fn for_now(error: OciError) -> Self {
        Self {
            error,
            may_pass: true,
            retry_after: None,
        }
    }
}

impl From<OciError> for Failure {
    fn from(error: OciError) -> Self {
        Self::for_good(error)
    }
}

/// What was being done, for messages.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    pub(super) what: String,
    pub(super) place: String,
}

impl Doing {
    /// It did not come to an answer.
    pub(super) fn unreachable(&self, reason: impl Into<String>) -> OciError {
        OciError::Unreachable {
            doing: self.what.clone(),
            place: self.place.clone(),
            reason: reason.into(),
        }
    }

    /// An answer against the protocol.
    pub(super) fn answer(&self, reason: impl Into<String>) -> OciError {
        OciError::Answer {
            doing: self.what.clone(),
            place: self.place.clone(),
            reason: reason.into(),
        }
    }

    pub(super) fn denied(&self, reason: impl Into<String>) -> OciError {
        OciError::Denied {
            doing: self.what.clone(),
            place: self.place.clone(),
            reason: reason.into(),
        }
    }

    /// A failure of the transport. Addresses are left out: they may hold secrets.
    pub(super) fn transport(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        let mut innermost: &(dyn Error + 'static) = &error;
        let mut wrong_certificate = false;
        while let Some(held) = inside(innermost) {
            innermost = held;
            wrong_certificate |= is_certificate_error(innermost);
        }
        let reason = if error.is_timeout() {
            "it does not answer in time".to_owned()
        } else if error.is_connect() {
            format!("no connection: {innermost}")
        } else {
            format!("the connection broke: {innermost}")
        };
        Failure {
            error: self.unreachable(reason),
            may_pass: !wrong_certificate && !error.is_builder(),
            retry_after: None,
        }
    }

    /// What an answer says that is none of those hoped for.
    pub(super) async fn refusal(&self, response: Response, idle: Duration) -> Failure {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let text = read_bounded(response, MOST_ERROR_BYTES, idle).await;
        let said = text
            .ok()
            .flatten()
            .map(|text| words(&text))
            .unwrap_or_default();
        let and_said = if said.is_empty() {
            String::new()
        } else {
            format!(": {said}")
        };
        let error = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                self.denied(format!("{status}{and_said}"))
            }
            StatusCode::PAYLOAD_TOO_LARGE => self.answer(format!(
                "that this is too large for it ({status}{and_said})"
            )),
            StatusCode::INSUFFICIENT_STORAGE => {
                self.answer(format!("that it has no space left ({status}{and_said})"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = retry_after.map_or_else(String::new, |wait| {
                    format!("; it may be asked again in {} s", wait.as_secs())
                });
                self.answer(format!(
                    "that it was asked too often ({status}{and_said}){wait}"
                ))
            }
            status => self.answer(format!("{status}{and_said}")),
        };
        let may_pass = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        ) || status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE;
        Failure {
            error,
            may_pass,
            retry_after,
        }
    }
}

/// What an error holds. An I/O error hides it from its sources.
fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(held) => Some(held),
        None => error.source(),
    }
}

/// Their certificate and what we trust do not fit: no repetition helps.
fn is_certificate_error(error: &(dyn Error + 'static)) -> bool {
    matches!(
        error.downcast_ref(),
        Some(rustls::Error::InvalidCertificate(_))
    )
}

/// Only seconds: nobody needs dates for waits this short.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads an answer's body; `None` when it is longer. All of it must arrive within `limit`.
pub(super) async fn read_bounded(
    mut response: Response,
    most: u64,
    limit: Duration,
) -> Result<Option<Vec<u8>>, Option<reqwest::Error>> {
    let read = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    };
    match tokio::time::timeout(limit, read).await {
        Ok(outcome) => outcome.map_err(Some),
        Err(_) => Err(None),
    }
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<OneError>,
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the other side says, in one line that cannot harm a terminal.
fn words(text: &[u8]) -> String {
    let said = match serde_json::from_slice::<Errors>(text) {
        Ok(Errors { errors, details }) => {
            let each = errors.into_iter().map(|error| {
                if error.message.is_empty() {
                    error.code
                } else {
                    error.message
                }
            });
            let all = each.chain([details]).filter(|text| !text.is_empty());
            all.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(text).into_owned(),
    };
    let line: String = said
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(MOST_ERROR_CHARACTERS)
        .collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_server_are_made_harmless() {
        let json =
            br#"{"errors": [{"code": "DENIED", "message": "no\u001b[31m way"}, {"code": "X"}]}"#;
        assert_eq!(words(json), "no [31m way; X");
        assert_eq!(words(b"a\nb"), "a b");
        assert_eq!(words(&[b'x'; 10_000]).len(), MOST_ERROR_CHARACTERS);
        assert_eq!(words(b"{}"), "");
    }
}
