//! Snapshots in and out, as archives of images.
