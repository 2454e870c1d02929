//! The ways to turn words into boxes, each over traits that a model family implements. None knows a runtime or a family.
//!
//! `coords` and `bins` differ only in what the model writes, text or location tokens, which its family's code reads: both
//! are [`written`]. Likewise `detector`, and `retrieve` by models that are shown the whole picture: both are [`find`]. A
//! model that can do several methods from one look at the picture is asked [`together`].

use std::ptr;

use crate::types::{BBox, Frame, ScoreKind};

pub mod find;
pub mod propose;
pub mod regions;
pub mod retrieve;
pub mod shares;
pub mod together;
pub mod written;
pub mod zoom;

use regions::Pick;

/// Questions, of which those about the same frame stand next to each other, in groups about one frame each.
pub(in crate::ground) fn by_frame<'q, 'f, Q>(
    questions: &'q [Q],
    frame: impl Fn(&Q) -> &'f Frame,
) -> impl Iterator<Item = &'q [Q]> {
    questions.chunk_by(move |a, b| ptr::eq(frame(a), frame(b)))
}

/// A match: where, how well, what that means, and in which crop it was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Where and how well.
    pub pick: Pick,
    /// What the score means.
    pub kind: ScoreKind,
    /// The crop it was found in, in source pixels; `None` is the whole picture.
    pub crop: Option<BBox>,
}

impl Hit {
    /// Matches in the whole picture.
    fn all(picks: impl IntoIterator<Item = Pick>, kind: ScoreKind) -> Vec<Self> {
        picks.into_iter().map(|pick| Self { pick, kind, crop: None }).collect()
    }
}

/// A query's matches, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finds {
    /// The matches; none, of a complete look, is a declared miss.
    pub hits: Vec<Hit>,
    /// Whether there was time to look wherever it was before: of what an incomplete look does not show nobody can say that it
    /// is gone.
    pub complete: bool,
}

impl From<Vec<Hit>> for Finds {
    /// Of a complete look.
    fn from(hits: Vec<Hit>) -> Self {
        Self { hits, complete: true }
    }
}

/// What was found for a query, or why there is no answer.
pub type Told = Result<Finds, Unanswered>;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// It could not be asked; says why, for people.
    Refused(String),
    /// The budget ended the search before anything was found, and before all was looked at; or it took so long to look at
    /// all that the first looks say nothing of this picture.
    Unfinished,
}

impl From<String> for Unanswered {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}
