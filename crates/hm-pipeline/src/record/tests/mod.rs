//! Tests of the record.

mod case;
mod compare;
mod files;
mod life;
mod manifests;
mod prune;
