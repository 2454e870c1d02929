//! `zoom`: look closer where the whole picture does not tell, locate there, and map back.
//!
//! Where to look is the search's business ([`crate::ground::zoom`]); here it meets frames and models. [`crops`] is for
//! models with a canvas of their own, for which one look at a crop says both whether the thing is there and where:
//! everything that was looked at counts. [`views`] is for models that are asked in words whether it is there: they
//! locate, by their own method, in what the search found.
//!
//! nano answers from the whole picture first, a model that is asked in words where nothing is located closer. Both stop when a
//! frame's budget is spent, and go on with the next frame; until all was looked at, that nothing was found is no answer, nor if
//! that took so long that the first looks say nothing of this picture ([`Trail::lay_down`]).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{Unanswered, regions::Pick, retrieve::Ask};
use crate::{
    ground::{
        GroundError,
        zoom::{
            Budget, Meter,
            memory::{MOST_SEEDS, Memory, Seed, Trail},
        },
    },
    types::{BBox, CameraId, Followed, Frame},
};

mod cover;
pub mod crops;
mod look;
pub mod merge;
pub mod views;

/// A tracked object that overlaps a find this much is that find.
const SAME_SEED: f32 = 0.3;

/// The `[model.zoom]` table: what a search may take. For one query on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZoomConfig {
    /// Passes of the model beyond the whole picture's: crops for a model with a canvas, questions for one that is asked.
    pub passes: usize,
    /// Time, in milliseconds. The first pass is made however long it takes.
    pub milliseconds: u64,
    /// Looks at every area, as the search was published: without these limits, and without sparing areas that coarser
    /// looks say are not worth it.
    pub exhaustive: bool,
}

impl ZoomConfig {
    /// As `milliseconds`: no limit, and nothing depends on the clock. What is remembered ages by the frames' presentation times.
    pub const TIMELESS: u64 = u64::MAX;
    /// As `milliseconds`: a day, which is no limit, while what is remembered ages by the clock.
    pub const PATIENT: u64 = 86_400_000;
}

impl Default for ZoomConfig {
    fn default() -> Self {
        Self { passes: 4, milliseconds: 400, exhaustive: false }
    }
}

/// What searches share: their budget, and what they remember from one frame to the next.
#[derive(Debug)]
pub struct Zoom {
    budget: Budget,
    exhaustive: bool,
    /// Most pictures in one run of the model.
    batch: usize,
    /// How many times its usual number of pixels the model looks at.
    detail: f32,
    memory: Memory,
    /// What all that search remember of cameras whose pictures none of them has just now.
    common: Arc<Mutex<Memory>>,
    /// Where tracked objects are.
    followed: Arc<Followed>,
    /// Where stream time 0 lies, if what is remembered ages by the stream rather than by the clock.
    stream_start: Option<Instant>,
    /// Reads the clock.
    now: fn() -> Instant,
}

impl Zoom {
    /// A fresh memory, and the budget of each search; `batch` pictures fit into one run of the model.
    pub fn new(config: ZoomConfig, batch: usize) -> Self {
        let budget = Budget { passes: config.passes, time: Duration::from_millis(config.milliseconds) };
        Self {
            budget,
            exhaustive: config.exhaustive,
            batch: batch.max(1),
            detail: 1.0,
            memory: Memory::default(),
            common: Arc::default(),
            followed: Arc::default(),
            stream_start: (config.milliseconds == ZoomConfig::TIMELESS).then(Instant::now),
            now: Instant::now,
        }
    }

    /// For a model that looks at `detail` times its usual number of pixels.
    #[must_use]
    pub fn with_detail(self, detail: f32) -> Self {
        Self { detail, ..self }
    }

    /// Another one, for a model beside this one's. What is remembered of a camera is with the one that has its picture.
    #[must_use]
    pub fn another(&self) -> Self {
        let (common, followed) = (Arc::clone(&self.common), Arc::clone(&self.followed));
        Self { memory: Memory::default(), common, followed, ..*self }
    }

    /// From now on what is remembered of these cameras is here.
    pub fn fetch(&mut self, cameras: &[&CameraId]) {
        let lent = self.common.lock().unwrap_or_else(PoisonError::into_inner).lend(cameras);
        self.memory.take_back(lent);
    }

    /// And from now on it may be fetched by others.
    pub fn put_back(&mut self) {
        let lent = std::mem::take(&mut self.memory);
        self.common.lock().unwrap_or_else(PoisonError::into_inner).take_back(lent);
    }

    /// Looks first where `followed` says that tracked objects are, from now on.
    pub fn follow(&mut self, followed: Arc<Followed>) {
        self.followed = followed;
    }

    /// When a frame's pixels came, on the clock that memories age by.
    fn seen_at(&self, frame: &Frame) -> Instant {
        self.stream_start.map_or_else(|| frame.arrived_at(), |start| start + frame.pts)
    }

    /// What is kept for a question.
    fn trail(&mut self, ask: &Ask<'_>) -> &mut Trail {
        let Ask { frame, query } = *ask;
        let seen_at = self.seen_at(frame);
        self.memory.trail(&frame.camera, query, (frame.origin, frame.source()), seen_at)
    }

    /// Where a query is looked for first: where it was found last, and where objects that answered it should be by now.
    /// Where something answers that was `reported` anyhow, or where nothing was a moment ago, no look is spent.
    fn seeds(&mut self, ask: &Ask<'_>, reported: &[Pick]) -> Vec<Seed> {
        let Ask { frame, query } = *ask;
        // As published, each picture is searched for itself.
        if self.exhaustive {
            return Vec::new();
        }
        let seen_at = self.seen_at(frame);
        let trail = self.trail(ask);
        let (mut seeds, vain) = (trail.seeds(seen_at), trail.vain(seen_at).copied().collect::<Vec<_>>());
        let spared = |bbox: &BBox| {
            let mut known = vain.iter().chain(reported.iter().map(|pick| &pick.bbox));
            known.any(|known| known.iou(bbox) >= SAME_SEED)
        };
        for bbox in self.followed.of(&frame.camera, &query.id) {
            let Some(bbox) = bbox.clipped(frame.source()) else { continue };
            // What is followed has moved on since it was found.
            let overlaps = seeds.iter().map(|seed| seed.bbox.iou(&bbox)).enumerate();
            match overlaps.max_by(|a, b| a.1.total_cmp(&b.1)) {
                Some((at, overlap)) if overlap >= SAME_SEED => seeds[at].bbox = bbox,
                _ if seeds.len() < MOST_SEEDS && !spared(&bbox) => seeds.push(Seed::at(bbox)),
                _ => {}
            }
        }
        seeds
    }

    fn meter(&self) -> Meter {
        if self.exhaustive {
            return Meter::unlimited();
        }
        Meter::new(self.budget, (self.now)(), self.memory.pace)
    }

    /// What a search that is over teaches the next.
    fn remember(&mut self, meter: &Meter) {
        self.memory.pace = meter.pace().or(self.memory.pace);
    }
}

/// Why a search stopped before its end.
#[derive(Debug)]
enum Stop {
    /// The model failed: so does the batch.
    Model(GroundError),
    /// The picture could not be cut; says why, for people.
    Picture(String),
    /// The budget was spent, or the search took too long to say so, and nothing found.
    Unfinished,
}

impl From<GroundError> for Stop {
    fn from(error: GroundError) -> Self {
        match error {
            GroundError::Picture(reason) => Self::Picture(reason.to_string()),
            other => Self::Model(other),
        }
    }
}

impl Stop {
    /// A picture's trouble is its query's alone.
    fn told<T>(self) -> Result<Result<T, Unanswered>, GroundError> {
        match self {
            Self::Model(error) => Err(error),
            Self::Picture(reason) => Ok(Err(Unanswered::Refused(reason))),
            Self::Unfinished => Ok(Err(Unanswered::Unfinished)),
        }
    }
}
