//! Pictures of a plan: what forks from what, what needs what, and what would become of each step. Steps that do
//! not belong to the run are left out.

mod dot;
mod edges;
mod layers;
mod layout;
mod place;
mod svg;
#[cfg(test)]
mod tests;
mod text;

pub use dot::dot;
pub use svg::svg;
