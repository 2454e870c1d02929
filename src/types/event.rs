//! What happened to a tracked object, for one query: what tracking reports and publishing sends.

use std::{sync::Arc, time::SystemTime};

use super::{BBox, Match, Query};

/// Where an object stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// It was seen often enough to be believed.
    New,
    /// It is still there.
    Update,
    /// It is gone, or its query is.
    End,
}

/// The match with the highest score an object has had for a query, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The match.
    pub found: Match,
    /// Capture time of its frame.
    pub at: SystemTime,
}

/// One step in the life of one object as the answer to one query. For a pair of track and query the steps come as
/// `New`, any number of `Update`, `End`; an object that answers its query again after `End` starts over with `New`.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackEvent {
    /// Which step.
    pub kind: EventKind,
    /// The object: unique on its camera, the same for all queries it answers.
    pub track: u64,
    /// The query, in the revision that was asked.
    pub query: Arc<Query>,
    /// Capture time of the first frame it answered the query on.
    pub first_seen: SystemTime,
    /// Capture time of the latest.
    pub last_seen: SystemTime,
    /// How many analysed frames it answered the query on.
    pub frames: u64,
    /// Where it was last seen.
    pub bbox: BBox,
    /// Its best match so far.
    pub best: Best,
}
