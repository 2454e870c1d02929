//! Text and location tokens -> boxes: one file a model family.
//!
//! A codec reads what a language model writes, piece by piece, and hands out each box as soon as its text is complete,
//! so that the first box of a long answer need not wait for the last. It also writes boxes the way the family was
//! taught to, where a formula exists. It knows nothing of tokenisers, engines or frames: pieces are text (for
//! [`pix2seq`] and [`nano`] token ids), boxes are fractions of the *model's input image*, and [`Placement`] carries them back to
//! source pixels.
//!
//! | family | file | numbers in the text | fraction of the model's image |
//! |---|---|---|---|
//! | Qwen-VL, Qwen2-VL | [`qwen_box`] | 0..1000 | v / 1000 |
//! | Qwen2.5-VL | [`qwen_json`] | pixels of the resized image | v / (grid · patch) |
//! | Qwen3-VL, Qwen3.5 | [`qwen_json`] | 0..1000 | v / 1000 |
//! | OFA | [`ofa`] | bins 0..=999 | bin / 999 · 512 / resized side |
//! | `Pix2Seq` | [`pix2seq`] | bins 0..=999, y first | bin / 999 |
//! | Florence-2 | [`florence`] | bins 0..=999 | (bin + 0.5) / 1000 |
//! | `PaliGemma` | [`paligemma`] | bins 0..=1023, y first | bin / 1024 |
//! | nano | [`nano`] | digits 000..=999 | v / 1000 |
//! | nano | [`nano`] | bins 0..=255 | (bin + 0.5) / 256 |
//! | VLM-FO1, VLX-Seek | [`regions`] | indexes 0..=99 of regions that were offered | the region's own |
//!
//! # Rules every codec keeps
//!
//! * Feeding a text in any split gives the same boxes as feeding it whole: every codec is an automaton over characters.
//! * It never panics and never invents: a box needs its family's complete syntax. Corners the wrong way round are
//!   swapped, what lies outside the image is cut off, and a box with nothing left is no box.
//! * Memory is bounded whatever the text: labels and lists that outgrow their limit are refused, not collected.
//!
//! # Scores
//!
//! None of these families (`Pix2Seq` and nano apart) gives a score, so a box carries the **geometric mean of the probabilities
//! of the pieces that hold its four coordinates** ([`ScoreKind::TokenProb`](crate::types::ScoreKind)). Coordinates only,
//! because brackets and keys are near certain and would drown the rest; the geometric mean and not the minimum, because
//! the number of tokens in a coordinate differs by family and by value (`7` or `1234`), and the minimum of more numbers
//! is smaller. If one piece came without a probability the box has no score.

pub mod florence;
pub mod guard;
mod json;
pub mod nano;
pub mod ofa;
pub mod paligemma;
pub mod pix2seq;
pub mod placement;
pub mod qwen_box;
pub mod qwen_json;
pub mod regions;
pub mod softmax;
mod tags;
mod tally;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod reference;

pub use placement::Placement;
use tally::{Piece, Pieces};

use crate::types::query::MAX_TEXT;

/// Longest label kept, in bytes of UTF-8; a longer one is no label of a thing in a picture. Models repeat what they are asked, so
/// the longest query in any script fits.
pub const MAX_LABEL: usize = 4 * MAX_TEXT;

/// One box as the model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct RawBox {
    /// What the model called it, trimmed; empty where it gave no name. Lower-cased only where the family's own
    /// evaluation does.
    pub label: String,
    /// `[x1, y1, x2, y2]` in fractions of the model's input image: `0 <= x1 < x2 <= 1`, likewise y.
    pub fractions: [f32; 4],
    /// Geometric mean of the token probabilities of its coordinates, 0 to 1; see the [module](self) for why.
    pub score: Option<f32>,
}

/// Reads one answer of a model, piece by piece. Make a new one for each answer.
///
/// Pieces are what the tokeniser makes of each token **with special tokens kept**: location tokens and Qwen2-VL's box
/// markers are special tokens, and a decoder that skips them leaves nothing to read. A token that ends in the middle
/// of a character is held back by the caller until the character is whole.
pub trait Codec: Send {
    /// Takes the next piece of the answer and the probability the model gave it; returns the boxes this completed.
    fn push(&mut self, piece: &str, token_prob: Option<f32>) -> Vec<RawBox>;

    /// Says that the answer is over (end token or token cap); returns the boxes whose end only this could tell.
    fn finish(&mut self) -> Vec<RawBox>;

    /// Whether boxes are chosen among some that were offered, each once: then there is an end to them, and a row of them is a row of
    /// real things.
    fn chooses(&self) -> bool {
        false
    }
}

/// An automaton over characters: what each family's file provides; [`Stream`] makes a [`Codec`] of it.
pub(crate) trait Automaton {
    /// See [`Codec::chooses`].
    const CHOOSES: bool = false;
    /// Takes one character of `piece`.
    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>);
    /// The text is over.
    fn end(&mut self, out: &mut Vec<RawBox>);
}

/// Cuts pieces into characters and numbers them, so that an automaton can tell whose probability a character carries.
#[derive(Debug, Clone)]
pub struct Stream<A> {
    automaton: A,
    pieces: Pieces,
}

impl<A> Stream<A> {
    pub(crate) fn over(automaton: A) -> Self {
        Self { automaton, pieces: Pieces::default() }
    }
}

impl<A: Automaton + Send> Codec for Stream<A> {
    fn push(&mut self, piece: &str, token_prob: Option<f32>) -> Vec<RawBox> {
        let mut out = Vec::new();
        let piece_id = self.pieces.next(token_prob);
        for c in piece.chars() {
            self.automaton.step(c, piece_id, &mut out);
        }
        out
    }

    fn finish(&mut self) -> Vec<RawBox> {
        let mut out = Vec::new();
        self.automaton.end(&mut out);
        out
    }

    fn chooses(&self) -> bool {
        A::CHOOSES
    }
}

/// Orders corners, clips to the image, refuses what is not finite or has nothing left.
pub(crate) fn checked(corners: [f64; 4]) -> Option<[f32; 4]> {
    if corners.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let [xa, ya, xb, yb] = corners.map(|v| v.clamp(0.0, 1.0));
    #[expect(clippy::cast_possible_truncation, reason = "0..=1; rounding to f32 is meant")]
    let ordered = [xa.min(xb) as f32, ya.min(yb) as f32, xa.max(xb) as f32, ya.max(yb) as f32];
    (ordered[0] < ordered[2] && ordered[1] < ordered[3]).then_some(ordered)
}

/// `round(value * steps)` of a fraction, within `0..=max`; not a number is 0.
pub(crate) fn quantised(fraction: f32, steps: f64, max: u32) -> u32 {
    clamped((f64::from(fraction) * steps).round_ties_even(), max)
}

/// A whole, possibly wild number as `0..=max`.
pub(crate) fn clamped(value: f64, max: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; NaN becomes 0 by `as`")]
    let v = value.clamp(0.0, f64::from(max)) as u32;
    v
}
