//! One object as the answer to one query, from the first match to the end. Pure state.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::TrackConfig;
use crate::types::{BBox, Best, EventKind, Match, Query, TrackEvent, seconds};

/// A query that is shed says nothing about its objects, but after this many times the time without frames that makes a
/// camera silent nobody should believe in them any more.
pub(super) const SHED_PATIENCE: u32 = 4;

/// A clock that is behind what it said before by more than this was set back; by less, two clocks differ.
const SET_BACK: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) query: Arc<Query>,
    /// Subscribers were told.
    pub(super) announced: bool,
    pub(super) seen_at: Instant,
    /// The query was answered since, completely, and without it.
    pub(super) missed: bool,
    told_at: Instant,
    first_seen: SystemTime,
    last_seen: SystemTime,
    frames: u64,
    pub(super) bbox: BBox,
    best: Best,
}

impl Link {
    pub(super) fn new(query: &Arc<Query>, found: &Match, now: Instant, captured: SystemTime) -> Self {
        Self {
            query: Arc::clone(query),
            announced: false,
            seen_at: now,
            missed: false,
            told_at: now,
            first_seen: captured,
            last_seen: captured,
            frames: 1,
            bbox: found.bbox,
            best: Best { found: found.clone(), at: captured },
        }
    }

    /// It was matched again.
    pub(super) fn see(&mut self, found: &Match, now: Instant, captured: SystemTime) {
        // A camera's own clock may come to be known, or doubted, only after it was first seen.
        self.last_seen = if self.is_from_ahead(captured) { captured } else { captured.max(self.last_seen) };
        self.first_seen = self.first_seen.min(self.last_seen);
        self.best.at = self.best.at.min(self.last_seen);
        (self.seen_at, self.bbox) = (now, found.bbox);
        (self.missed, self.frames) = (false, self.frames + 1);
        // A score that is no number never wins, and never stays.
        let best = self.best.found.score;
        if found.score > best || (best.is_nan() && !found.score.is_nan()) {
            self.best = Best { found: found.clone(), at: captured };
        }
    }

    /// Whether the clock was ahead when it was seen before, and has been set back since.
    fn is_from_ahead(&self, captured: SystemTime) -> bool {
        self.last_seen.duration_since(captured).is_ok_and(|ahead| ahead > SET_BACK)
    }

    /// See [`super::Tracker::rescale`].
    pub(super) fn rescale(&mut self, by: [f32; 2]) {
        self.bbox = self.bbox.scaled(by);
        let best = &mut self.best.found;
        best.bbox = best.bbox.scaled(by);
        best.via.crop = best.via.crop.map(|crop| crop.scaled(by));
    }

    /// What there is to tell now that it was seen.
    pub(super) fn step(&mut self, track: u64, config: &TrackConfig, now: Instant) -> Option<TrackEvent> {
        let kind = if !self.announced && self.frames >= u64::from(config.confirm_frames) {
            EventKind::New
        } else if self.announced && now.saturating_duration_since(self.told_at) >= seconds(config.update_seconds) {
            EventKind::Update
        } else {
            return None;
        };
        (self.announced, self.told_at) = (true, now);
        Some(self.event(kind, track))
    }

    /// Whether it is gone: not seen for `lost` although it was looked for until then, by `looked` at the latest; or although
    /// nothing comes at all (`silent`, after `quiet`).
    pub(super) fn is_lost(
        &self,
        now: Instant,
        looked: Instant,
        (lost, quiet): (Duration, Duration),
        silent: bool,
    ) -> bool {
        let unseen = now.saturating_duration_since(self.seen_at);
        let in_vain = self.missed && looked.saturating_duration_since(self.seen_at) > lost;
        in_vain || (unseen > lost && (silent || unseen > quiet.saturating_mul(SHED_PATIENCE)))
    }

    pub(super) fn event(&self, kind: EventKind, track: u64) -> TrackEvent {
        TrackEvent {
            kind,
            track,
            query: Arc::clone(&self.query),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            frames: self.frames,
            bbox: self.bbox,
            best: self.best.clone(),
        }
    }
}
