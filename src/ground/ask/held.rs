//! Answers of methods that know no regions: they hold as long as the picture does, and not for ever.

use std::time::{Duration, Instant};

use crate::ground::methods::Finds;

/// What is known of one query on one camera.
#[derive(Debug, Default)]
pub struct Held {
    answer: Option<(Finds, Instant)>,
    /// The picture has changed since.
    outdated: bool,
    /// When it was asked last, whether or not there was an answer.
    asked_at: Option<Instant>,
    /// It was due last, and there was no time for it.
    shed: bool,
}

impl Held {
    /// What is known says nothing of the picture any more.
    pub fn outdate(&mut self) {
        self.outdated = true;
    }

    /// There was no answer. What was known before was in doubt, or nobody would have asked.
    pub fn asked_in_vain(&mut self, now: Instant) {
        (self.outdated, self.asked_at, self.shed) = (true, Some(now), false);
    }

    /// It was due, and there was no time to ask.
    pub fn shed(&mut self) {
        self.shed = true;
    }

    /// The answer, whether or not it still holds.
    pub fn finds(&self) -> Option<&Finds> {
        self.answer.as_ref().map(|(finds, _)| finds)
    }

    /// Whether there was no time to look wherever it was before.
    pub fn is_partial(&self) -> bool {
        self.finds().is_some_and(|finds| !finds.complete)
    }

    /// Whether it must be asked because nothing is known of this picture.
    pub fn is_missing(&self) -> bool {
        self.outdated || self.answer.is_none()
    }

    /// Whether it is worth a look at a picture for its own sake: not while nobody may ask about that.
    pub fn is_wanted(&self) -> bool {
        self.is_missing() && !self.shed
    }

    /// Whether an answer about a picture that has not changed is older than it may be.
    pub fn is_old(&self, matched: Duration, missed: Duration, now: Instant) -> bool {
        self.answer.as_ref().is_some_and(|(finds, at)| {
            let life = if finds.hits.is_empty() { missed } else { matched };
            now.saturating_duration_since(*at) >= life
        })
    }

    /// When it was asked last.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// Enters an answer.
    pub fn hold(&mut self, finds: Finds, now: Instant) {
        *self = Self { answer: Some((finds, now)), outdated: false, asked_at: Some(now), shed: false };
    }
}
