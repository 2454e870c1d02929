//! What was found on one frame, for every query asked of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{BBox, Frame, Method, Query};

/// What a match's score means; scores of different kinds are not comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreKind {
    /// The proposal network's own score.
    Proposal,
    /// Probability of the token (or selection) that named the box.
    TokenProb,
    /// A detection head's logit through a sigmoid.
    Logit,
    /// The family gives none.
    None,
}

/// How a box was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Via {
    /// The method that ran (never `auto`).
    pub method: Method,
    /// `name@<first 8 hex digits of the model's hash>`.
    pub model: Arc<str>,
    /// The crop it was found in, in source pixels; `None` is the whole picture.
    pub crop: Option<BBox>,
    /// Whether this frame's pixels were asked, or an earlier answer still holds.
    pub fresh: bool,
}

/// One box that answers a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Match {
    /// Where, in source pixels.
    #[serde(rename = "box")]
    pub bbox: BBox,
    /// How sure, 0 to 1.
    pub score: f32,
    /// What the score means.
    pub score_kind: ScoreKind,
    /// The track it belongs to on this camera, once tracking has seen it.
    pub track: Option<u64>,
    /// How it was found.
    pub via: Via,
}

/// Whether a query was answered on a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was asked; no matches means "nothing there".
    Ok,
    /// It was not asked, to save work; says why.
    Shed(String),
    /// It could not be answered; says why and what to do.
    Error(String),
}

/// One query's answer on one frame.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The query, in the revision that was asked.
    pub query: Arc<Query>,
    /// Whether it was answered.
    pub status: Status,
    /// The boxes, best first.
    pub matches: Vec<Match>,
    /// Whether there was time to ask about all that is known: of what an incomplete answer does not hold nobody can say that it
    /// is gone.
    pub complete: bool,
}

/// Where a frame's time went.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// From the decoded frame to the moment the model began with its batch.
    pub queued: Duration,
    /// The batch's time in the model.
    pub inferred: Duration,
    /// When the batch was done.
    pub done_at: Instant,
    /// Frames in the batch.
    pub batch: usize,
}

/// All answers on one frame.
#[derive(Debug, Clone)]
pub struct Grounding {
    /// The frame, with its pixels: snapshots and the live view still need them.
    pub frame: Arc<Frame>,
    /// One answer a query, in the query set's order.
    pub answers: Vec<Answer>,
    /// Where the time went.
    pub timings: Timings,
}
