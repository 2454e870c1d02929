//! `retrieve`: a proposal network offers regions, the language side selects among them.
//!
//! The pixels are looked at once a frame, however many queries are asked of it.

use super::regions::{self, Bar, Offer, Pick};
use std::sync::Arc;

use crate::{
    ground::GroundError,
    types::{Frame, Query, Rgb},
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
    /// What the selector wants to know of the regions.
    pub features: F,
}

/// One query on one canvas.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Which of the proposals' canvases.
    pub canvas: usize,
    /// The words.
    pub text: &'a str,
}

/// Offers regions.
pub trait Proposer {
    /// What is carried from the proposals to the selection.
    type Features;

    /// Proposes regions on every canvas; there is at least one.
    fn propose(&mut self, canvases: &[&Rgb]) -> Result<Proposals<Self::Features>, GroundError>;
}

/// Whether a text can be asked, or why not.
pub type TextCheck = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Selects among the regions of a [`Proposer`].
pub trait Selector: Proposer {
    /// Tells from any thread whether words can be asked; says why not, for people.
    fn checker(&self) -> TextCheck;

    /// How well every region of each pair's canvas fits the pair's words: a probability a region, `each` of them a
    /// pair, pair after pair. The words have passed the checker.
    fn select(&mut self, proposals: &Proposals<Self::Features>, pairs: &[Pair<'_>]) -> Result<Vec<f32>, GroundError>;
}

/// One question: a query on a frame.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where to look.
    pub frame: &'a Frame,
    /// What for.
    pub query: &'a Query,
}

/// Answers all questions with one look at each frame: the matches of each, best first. Questions about the same frame
/// stand next to each other. `bar.score` holds where a query has no threshold of its own.
pub fn answer<S: Selector>(selector: &mut S, asks: &[Ask<'_>], bar: Bar) -> Result<Vec<Vec<Pick>>, GroundError> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let mut canvases: Vec<&Rgb> = Vec::new();
    let mut pairs = Vec::with_capacity(asks.len());
    for (i, ask) in asks.iter().enumerate() {
        if i == 0 || !std::ptr::eq(asks[i - 1].frame, ask.frame) {
            canvases.push(&ask.frame.canvas);
        }
        pairs.push(Pair { canvas: canvases.len() - 1, text: &ask.query.text });
    }
    let proposals = selector.propose(&canvases)?;
    let scores = selector.select(&proposals, &pairs)?;
    let picks = asks.iter().zip(&pairs).zip(scores.chunks(proposals.each)).map(|((ask, pair), scores)| {
        let regions = pair.canvas * proposals.each..(pair.canvas + 1) * proposals.each;
        let offer =
            Offer { boxes: &proposals.boxes[regions.clone()], objectness: &proposals.objectness[regions], scores };
        let bar = Bar { score: ask.query.threshold.unwrap_or(bar.score), ..bar };
        regions::choose(&ask.frame.view, offer, bar)
    });
    Ok(picks.collect())
}
