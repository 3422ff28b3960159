//! The disk limit.

/// Why no disk limit can be enforced here, if so.
pub(crate) fn refusal() -> Option<String> {
    Some("under construction".into())
}
