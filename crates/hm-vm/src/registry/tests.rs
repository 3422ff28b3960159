//! Tests of what the face does not show.
