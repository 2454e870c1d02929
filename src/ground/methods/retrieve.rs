//! `retrieve`: a proposal network offers regions, the language side selects among them.

use std::sync::Arc;

use super::regions::{self, Bar, Offer, Pick};
use crate::{
    ground::GroundError,
    types::{BBox, Frame, Query, Rgb},
};

/// Regions proposed on some canvases: the same number on each, canvas after canvas.
#[derive(Debug)]
pub struct Proposals<F> {
    /// Regions on each canvas.
    pub each: usize,
    /// Corners in fractions of the canvas.
    pub boxes: Vec<[f32; 4]>,
    /// How sure the network is that a region holds a thing at all, 0 to 1.
    pub objectness: Vec<f32>,
    /// What the language side wants to know of the canvases besides.
    pub features: F,
}

/// One query on one canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Which of the proposals' canvases.
    pub canvas: usize,
    /// The words.
    pub text: &'a str,
}

/// What was selected for some pairs.
#[derive(Debug)]
pub struct Selection<S> {
    /// How well every region of each pair's canvas fits the pair's words: a probability a region, as many as there are
    /// proposals on a canvas, pair after pair.
    pub scores: Vec<f32>,
    /// How sure it is that nothing on the canvas is meant: a probability a pair.
    pub none: Vec<f32>,
    /// What the regions are once the words were read; for those who write about them.
    pub states: S,
}

/// Offers regions.
pub trait Proposer {
    /// What is carried from the proposals to the language side.
    type Features;

    /// Proposes regions on every canvas; there is at least one.
    fn propose(&mut self, canvases: &[&Rgb]) -> Result<Proposals<Self::Features>, GroundError>;
}

/// Whether a text can be asked, or why not.
pub type TextCheck = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Selects among the regions of a [`Proposer`].
pub trait Selector: Proposer {
    /// What is known of the regions once the words were read.
    type States;

    /// Tells from any thread whether words can be asked; says why not, for people.
    fn checker(&self) -> TextCheck;

    /// Whether words mean one thing, as superlatives do, whatever else fits.
    fn means_one(&self, _text: &str) -> bool {
        false
    }

    /// Selects for every pair. The words have passed the checker.
    fn select(
        &mut self,
        proposals: &Proposals<Self::Features>,
        pairs: &[Pair<'_>],
    ) -> Result<Selection<Self::States>, GroundError>;
}

/// One question: a query on a frame.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where to look.
    pub frame: &'a Frame,
    /// What for.
    pub query: &'a Query,
}

/// The matches on one canvas, best first: `scores` are those of its regions, `to_source` maps fractions of it to source
/// pixels.
pub fn picks<F>(
    proposals: &Proposals<F>,
    canvas: usize,
    scores: &[f32],
    to_source: impl Fn([f32; 4]) -> Option<BBox>,
    bar: Bar,
) -> Vec<Pick> {
    let regions = canvas * proposals.each..(canvas + 1) * proposals.each;
    let (boxes, objectness) = (&proposals.boxes[regions.clone()], &proposals.objectness[regions]);
    regions::choose_in(to_source, Offer { boxes, objectness, scores }, bar)
}
