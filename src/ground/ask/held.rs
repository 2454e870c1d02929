//! Answers of methods that know no regions: they hold as long as the picture does, and not for ever.

use std::time::{Duration, Instant};

use crate::ground::methods::Hit;

/// What is known of one query on one camera.
#[derive(Debug, Default)]
pub struct Held {
    answer: Option<(Vec<Hit>, Instant)>,
    /// The picture has changed since.
    outdated: bool,
}

impl Held {
    /// The picture has changed.
    pub fn outdate(&mut self) {
        self.outdated = true;
    }

    /// The answer, whether or not it still holds.
    pub fn hits(&self) -> Option<&Vec<Hit>> {
        self.answer.as_ref().map(|(hits, _)| hits)
    }

    /// Whether it must be asked because nothing is known of this picture.
    pub fn is_missing(&self) -> bool {
        self.outdated || self.answer.is_none()
    }

    /// Whether an answer about a picture that has not changed is older than it may be.
    pub fn is_old(&self, matched: Duration, missed: Duration, now: Instant) -> bool {
        self.answer.as_ref().is_some_and(|(hits, at)| {
            let life = if hits.is_empty() { missed } else { matched };
            now.saturating_duration_since(*at) >= life
        })
    }

    /// When it was asked last.
    pub fn asked_at(&self) -> Option<Instant> {
        self.answer.as_ref().map(|(_, at)| *at)
    }

    /// Enters an answer.
    pub fn hold(&mut self, hits: Vec<Hit>, now: Instant) {
        *self = Self { answer: Some((hits, now)), outdated: false };
    }
}
