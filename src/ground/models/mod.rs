//! One file a model family: which files it has, how its words become numbers, what its tensors mean.

pub mod nano;
pub mod words;

/// The families [`crate::ground::load`] knows, for the message that says which.
pub const FAMILIES: &str = nano::FAMILY;
