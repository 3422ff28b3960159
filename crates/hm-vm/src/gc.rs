//! What to remove when space runs out.
