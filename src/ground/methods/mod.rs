//! The ways to turn words into boxes, each over traits that a model family implements. None knows a runtime or a family.

pub mod regions;
pub mod retrieve;
