//! Registries: a real one, alone and behind a proxy that misbehaves.

mod access;
mod blobs;
mod encryption;
mod limits;
mod mirrors;
mod requests;
mod support;
mod uploads;
