//! Scans of host directories, and the layers made of them.

mod layer;
mod scan;
mod support;
