//! VMs that are containers.

mod choosing;
mod copying;
mod left_over;
mod running;
mod support;
