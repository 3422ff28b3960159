//! What went through a proxy.

/// A request that reached the proxy, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The request's headers, in order.
    pub headers: Vec<(String, String)>,
    /// The status that the client was told; 0 where it was told none.
    pub status: u16,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the answer's body that the client was given.
    pub received: u64,
}

impl Passed {
    /// The value of a header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(had, _)| had.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}
