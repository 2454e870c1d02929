//! Objects from before a silence.

use std::time::{Duration, Instant};

use super::{
    objects::{Object, tells_absence},
    tracker::MAX_TRACKS,
};
use crate::types::{Answer, BBox, QueryId};

/// A camera that was silent for longer than this shows other things when it comes back.
const RETURN: Duration = Duration::from_mins(1);
/// What overlaps an object from before the silence this much is it.
const STOOD: f32 = 0.5;

/// What ended because nothing came any more.
#[derive(Debug, Default)]
pub(super) struct Asleep(Vec<Sleeper>);

/// One object of those.
#[derive(Debug)]
pub(super) struct Sleeper {
    pub(super) id: u64,
    pub(super) bbox: BBox,
    pub(super) queries: Vec<QueryId>,
    pub(super) seen_at: Instant,
    /// When it was first looked for, and not found, after the silence.
    pub(super) missed_since: Option<Instant>,
}

impl Asleep {
    /// Forgets what was seen too long ago.
    pub(super) fn forget(&mut self, now: Instant) {
        self.0.retain(|asleep| now.saturating_duration_since(asleep.seen_at) <= RETURN);
    }

    /// Takes in what ends in a silence, in which nobody looks for anything.
    pub(super) fn add(&mut self, ending: impl Iterator<Item = Sleeper>) {
        self.0.iter_mut().for_each(|asleep| asleep.missed_since = None);
        self.0.extend(ending);
        let extra = self.0.len().saturating_sub(MAX_TRACKS);
        self.0.drain(..extra);
    }

    /// Forgets what does not stand where it stood before the silence, after it was looked for as long as it takes to be `lost`.
    pub(super) fn miss(&mut self, answers: &[Answer], lost: Duration, now: Instant) {
        let asked = |id: &QueryId| answers.iter().any(|answer| answer.query.id == *id && tells_absence(answer));
        self.0.retain_mut(|asleep| {
            if !asleep.queries.iter().any(asked) {
                return true;
            }
            let since = *asleep.missed_since.get_or_insert(now);
            now.saturating_duration_since(since) <= lost
        });
    }

    /// The id that an object had before its camera was silent.
    pub(super) fn wake(&mut self, object: &Object, answers: &[Answer]) -> Option<u64> {
        let asks = |id: &QueryId| object.members.iter().any(|(answer, _)| answers[*answer].query.id == *id);
        let overlaps = self.0.iter().enumerate().map(|(place, asleep)| (asleep.bbox.iou(&object.bbox), place));
        let same = overlaps.filter(|(iou, place)| *iou >= STOOD && self.0[*place].queries.iter().any(asks));
        let (_, place) = same.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(self.0.swap_remove(place).id)
    }

    /// See [`super::Tracker::rescale`].
    pub(super) fn rescale(&mut self, by: [f32; 2]) {
        for asleep in &mut self.0 {
            asleep.bbox = asleep.bbox.scaled(by);
        }
    }
}
