//! What a registry was asked, from its access log.

/// One request that a server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
}

impl Request {
    /// A request from a line in Apache's combined format, which the registry writes.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(" \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let (method, rest_of_request) = request.split_once(' ')?;
        let (path, _) = rest_of_request.rsplit_once(' ')?;
        let mut numbers = rest.split(' ');
        Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            status: numbers.next()?.parse().ok()?,
            bytes: numbers.next()?.parse().unwrap_or(0),
        })
    }

    /// Whether this fetched a blob's bytes.
    pub fn fetched_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/") && self.status < 300
    }

    /// Whether this finished the upload of a blob.
    pub fn stored_blob(&self) -> bool {
        self.method == "PUT" && self.path.contains("/blobs/uploads/") && self.status == 201
    }

    /// Whether this stored a manifest.
    pub fn stored_manifest(&self) -> bool {
        self.method == "PUT" && self.path.contains("/manifests/") && self.status == 201
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_requests() {
        let line = r#"127.0.0.1 - - [22/Nov/2026:05:00:00 +0000] "GET /v2/a/blobs/sha256:00 HTTP/1.1" 200 17 "" "agent/1 (x)""#;
        let request = Request::parse(line).unwrap();
        assert_eq!(request.path, "/v2/a/blobs/sha256:00");
        assert_eq!((request.status, request.bytes), (200, 17));
        assert!(request.fetched_blob() && !request.stored_blob());
        assert_eq!(Request::parse("time=\"…\" level=info"), None);
    }
}
