//! What several tests need.

pub mod ground;
