//! What goes wrong, and when.

use std::time::Duration;

/// One thing that goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before anything is answered.
    Drop,
    /// The request is read, and nothing is answered for as long as the proxy lives.
    Stall,
    /// The answer starts this much later.
    Delay(Duration),
    /// The connection is closed after this many bytes of the answer's body; its length is told as
    /// it was.
    CutAfter(u64),
    /// Nothing more comes after this many bytes of the answer's body; the connection stays open.
    StallAfter(u64),
    /// The answer's body ends after this many bytes, and its length is told to be that: looks
    /// whole.
    TruncateTo(u64),
    /// This byte of the answer's body, counted from 0, is another one.
    FlipByte(u64),
    /// The answer's body never ends: what came is followed by zeros, in chunks, without a length.
    Endless,
    /// The answer's body comes at this many bytes a second.
    Slow(u64),
    /// The answer tells this length for its body, which is sent as it is.
    Length(u64),
    /// The answer has this header instead of what it had by this name.
    Header(String, String),
    /// The request reaches the server without this header: `Range`, for one that ignores it.
    WithoutHeader(String),
    /// The server is not asked. This is the answer.
    Answer {
        /// The status, such as 500.
        status: u16,
        /// Headers beside the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// The connection is closed after this many bytes of the request's body.
    CutRequestAfter(u64),
    /// Nothing more is read after this many bytes of the request's body, and nothing answered.
    StallRequestAfter(u64),
}

impl Fault {
    /// An answer with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// 429 with `Retry-After` of this many seconds.
    pub fn too_many_requests(seconds: u64) -> Self {
        Self::Answer {
            status: 429,
            headers: vec![("Retry-After".to_owned(), seconds.to_string())],
            body: Vec::new(),
        }
    }

    /// An answer with a wrong `Docker-Content-Digest`.
    pub fn wrong_digest() -> Self {
        Self::Header(
            "Docker-Content-Digest".to_owned(),
            format!("sha256:{}", "0".repeat(64)),
        )
    }

    /// A server that knows no ranges.
    pub fn ignore_range() -> Self {
        Self::WithoutHeader("Range".to_owned())
    }
}

/// To which requests a [`Fault`] happens.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    method: Option<String>,
    path: String,
    lacking: Option<(String, String)>,
    skip: u64,
    left: u64,
}

impl Rule {
    /// To every request whose path, query included, matches a pattern: all of it, with `*` for
    /// any number of any characters.
    pub fn new(path: &str, fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            path: path.to_owned(),
            lacking: None,
            skip: 0,
            left: u64::MAX,
        }
    }

    /// Only for this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only for the first so many requests that match.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.left = times;
        self
    }

    /// Only once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Only after so many requests that match.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Only for requests that do not carry this header with this value: what `401` is for.
    #[must_use]
    pub fn unless_header(mut self, name: &str, value: &str) -> Self {
        self.lacking = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether this happens to a request; counts it.
    fn applies(&mut self, method: &str, path: &str, headers: &[(String, String)]) -> bool {
        let named = self.method.as_ref().is_none_or(|wanted| wanted == method);
        if !named || !matches(&self.path, path) {
            return false;
        }
        if let Some((name, value)) = &self.lacking
            && headers
                .iter()
                .any(|(had, of)| had.eq_ignore_ascii_case(name) && of == value)
        {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// Everything that goes wrong at a proxy. All rules that match a request apply to it.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// This goes wrong too.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// This happens to requests whose path matches, always.
    #[must_use]
    pub fn always(self, path: &str, fault: Fault) -> Self {
        self.with(Rule::new(path, fault))
    }

    /// This happens to the first request whose path matches.
    #[must_use]
    pub fn once(self, path: &str, fault: Fault) -> Self {
        self.with(Rule::new(path, fault).once())
    }

    pub(super) fn of(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
    ) -> Vec<Fault> {
        self.rules
            .iter_mut()
            .filter_map(|rule| {
                rule.applies(method, path, headers)
                    .then(|| rule.fault.clone())
            })
            .collect()
    }
}

/// Whether all of `text` is like `pattern`, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    (0..=text.len())
        .filter(|at| text.is_char_boundary(*at))
        .any(|at| matches(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("*", "/v2/"));
        assert!(matches("/v2/*/blobs/*", "/v2/a/b/blobs/sha256:0"));
        assert!(!matches("/v2/*/blobs/*", "/v2/a/manifests/t"));
        assert!(!matches("/v2/", "/v2/a"));
        assert!(matches("*/manifests/hm1-*", "/v2/cache/manifests/hm1-00"));
    }

    #[test]
    fn rules_count() {
        let mut faults = Faults::none().with(
            Rule::new("*", Fault::Drop)
                .method("GET")
                .after(1)
                .times(2)
                .unless_header("authorization", "x"),
        );
        let told = |faults: &mut Faults, method| faults.of(method, "/", &[]).len();
        assert_eq!(told(&mut faults, "PUT"), 0);
        let with = [("Authorization".to_owned(), "x".to_owned())];
        assert!(faults.of("GET", "/", &with).is_empty());
        let seen: Vec<usize> = (0..4).map(|_| told(&mut faults, "GET")).collect();
        assert_eq!(seen, [0, 1, 1, 0]);
    }
}
