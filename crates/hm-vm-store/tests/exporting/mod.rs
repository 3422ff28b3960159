//! Exports: what others get of layers, snapshots and caches.

mod archives;
mod cache;
mod images;
mod random;
mod support;
mod tools;
