//! What containers reach.
