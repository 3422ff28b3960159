//! Layers as others have them, OCI archives, made layers of the store.

mod decoder;
mod hold;
mod inflow;
mod links;
mod outcome;
#[cfg(test)]
mod tests;
mod unpack;
mod windows;

pub(crate) use hold::{Held, layer_of};
pub(crate) use outcome::{LayerRequest, OWN_LAYER};
