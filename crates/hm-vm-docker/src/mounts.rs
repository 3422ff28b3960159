//! Caches and secrets of a command.
