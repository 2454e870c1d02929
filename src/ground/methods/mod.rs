//! The ways to turn words into boxes, each over traits that a model family implements. None knows a runtime or a family.
//!
//! `coords` and `bins` differ only in what the model writes, text or location tokens, which its family's code reads: both
//! are [`written`].

pub mod regions;
pub mod retrieve;
pub mod written;
