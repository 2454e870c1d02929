//! One file a model family: which files it has, how its words become numbers, what its tensors mean.
//!
//! [`qwen`], [`florence`] and [`paligemma`] write their answers; what they share is in [`decoder`] (the language model
//! and its cache), [`speech`] (from one token to the next), [`answer`] (until the answer is over) and [`tokens`]. What is done at
//! once, several pictures in a pass and several answers side by side, is laid out in [`plan`], if [`trial`] found that the graphs
//! can do it. [`closed`] are
//! detectors with classes of their own, [`dino`] and [`owl`] read words; [`contrast`] ranks the regions of a [`proposer`] by
//! words, and [`regional`] is shown them and names those that are meant. [`llava`] writes, and a head
//! finds what it meant by each phrase.

use std::path::Path;

use super::{
    GroundError,
    engine::{Engine, EngineError},
    manifest::{Manifest, Positions},
};

pub mod answer;
pub mod closed;
pub mod contrast;
pub mod decoder;
pub mod dino;
pub mod florence;
mod grounded;
pub mod llava;
pub mod nano;
pub mod owl;
pub mod paligemma;
mod phrases;
mod picture;
pub mod plan;
pub mod proposer;
pub mod qwen;
mod reader;
mod recent;
pub mod regional;
pub mod speech;
mod square;
pub mod tokens;
pub(super) mod trial;
pub mod words;

/// The families [`crate::ground::load`] knows, for the message that says which.
pub fn families() -> String {
    let asked = [nano::FAMILY, qwen::QWEN2, qwen::QWEN2_5, qwen::QWEN3, florence::FAMILY, paligemma::FAMILY];
    let others = [dino::FAMILY, owl::FAMILY, llava::FAMILY];
    [&asked[..], &closed::FAMILIES, &contrast::FAMILIES, &regional::FAMILIES, &others].concat().join(", ")
}

/// Opens one file of a model.
pub type Open<'a> = dyn FnMut(&Path) -> Result<Box<dyn Engine>, EngineError> + 'a;

/// Opens the only file with `role`.
fn open_role(manifest: &Manifest, role: &str, open: &mut Open<'_>) -> Result<Box<dyn Engine>, GroundError> {
    match manifest.file(role) {
        Some(file) => Ok(open(&file)?),
        None => Err(unfit(
            manifest,
            format!("the family {} needs exactly one file with role = \"{role}\"", manifest.family),
        )),
    }
}

fn unfit(manifest: &Manifest, reason: String) -> GroundError {
    GroundError::Unfit { manifest: manifest.path(), reason }
}

/// A key that the family needs.
fn need<T>(manifest: &Manifest, key: &str, value: Option<T>) -> Result<T, GroundError> {
    value.ok_or_else(|| unfit(manifest, format!("{key}: the family {} needs it", manifest.family)))
}

/// `1 / (1 + e^-x)`.
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Refuses the scores in an output that are not numbers: those reach no threshold, and it would be said that nothing is there.
/// Minus infinity is how graphs say that something is ruled out.
fn numbers<'a>(output: &str, scores: impl IntoIterator<Item = &'a f32>) -> Result<(), String> {
    let wrong = |score: &f32| score.is_nan() || (score.is_infinite() && score.is_sign_positive());
    if scores.into_iter().any(wrong) { Err(not_numbers(output)) } else { Ok(()) }
}

/// What is wrong with an output that holds something else than numbers, and what helps.
fn not_numbers(output: &str) -> String {
    format!("its `{output}` are not numbers; if the file computes in half precision, take one in single precision")
}

/// Refuses a manifest that says the positions of tokens are told otherwise than the family does.
fn positions(manifest: &Manifest, own: Positions) -> Result<(), GroundError> {
    match &manifest.decoder {
        Some(facts) if facts.positions != own => {
            Err(unfit(manifest, format!("decoder.positions: should be \"{}\"", own.name())))
        }
        _ => Ok(()),
    }
}
