//! Images in and out, by real registries, archives and the programs of others.

mod hostile;
mod out;
mod places;
mod pull;
mod support;
mod tar;
