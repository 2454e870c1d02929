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

/// Which code runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// [`nano`].
    Nano,
    /// [`qwen`].
    Qwen,
    /// [`florence`].
    Florence,
    /// [`paligemma`].
    PaliGemma,
    /// One that scores boxes by words.
    Head(Head),
}

/// Which code runs a model that scores boxes by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// [`closed`].
    Closed,
    /// [`contrast`].
    Contrast,
    /// [`regional`].
    Regional,
    /// [`dino`].
    Dino,
    /// [`owl`].
    Owl,
    /// [`llava`].
    Llava,
}

impl Family {
    /// Every name in manifests, and whose it is.
    fn named() -> impl Iterator<Item = (&'static str, Self)> {
        let named: [(&[&str], Self); 10] = [
            (&[nano::FAMILY], Self::Nano),
            (&[qwen::QWEN2, qwen::QWEN2_5, qwen::QWEN3], Self::Qwen),
            (&[florence::FAMILY], Self::Florence),
            (&[paligemma::FAMILY], Self::PaliGemma),
            (&closed::FAMILIES, Self::Head(Head::Closed)),
            (&contrast::FAMILIES, Self::Head(Head::Contrast)),
            (&regional::FAMILIES, Self::Head(Head::Regional)),
            (&[dino::FAMILY], Self::Head(Head::Dino)),
            (&[owl::FAMILY], Self::Head(Head::Owl)),
            (&[llava::FAMILY], Self::Head(Head::Llava)),
        ];
        named.into_iter().flat_map(|(names, family)| names.iter().map(move |name| (*name, family)))
    }

    /// The family of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::named().find(|(own, _)| *own == name).map(|(_, family)| family)
    }

    /// The names of all, for the message that says which there are.
    pub fn names() -> String {
        Self::named().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    }
}

/// Opens one file of a model.
pub type Open<'a> = dyn FnMut(&Path) -> Result<Box<dyn Engine>, EngineError> + 'a;

/// Opens the only file with `role`.
fn open_role(manifest: &Manifest, role: &str, open: &mut Open<'_>) -> Result<Box<dyn Engine>, GroundError> {
    match manifest.file(role) {
        Some(file) => Ok(open(&file)?),
        None => Err(GroundError::unfit(
            manifest,
            format!("the family {} needs exactly one file with role = \"{role}\"", manifest.family),
        )),
    }
}

/// A key that the family needs.
fn need<T>(manifest: &Manifest, key: &str, value: Option<T>) -> Result<T, GroundError> {
    value.ok_or_else(|| GroundError::unfit(manifest, format!("{key}: the family {} needs it", manifest.family)))
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
            Err(GroundError::unfit(manifest, format!("decoder.positions: should be \"{}\"", own.name())))
        }
        _ => Ok(()),
    }
}
