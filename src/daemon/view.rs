//! What is known of one camera between its frames, and what may be said of who is there.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    track::{TrackConfig, Tracker},
    types::{Ledger, Query, QueryId, Size},
};

/// See the module.
pub(super) struct View {
    pub(super) tracker: Tracker,
    /// What was said of each query that was answered; of others nobody can say that nothing is there.
    pub(super) said: BTreeMap<QueryId, Said>,
    /// The pixels of the latest picture: those that the tracks are in.
    source: Option<Size>,
    /// How long after its arrival the latest frame was delivered. The camera is silent only if nothing came for so much
    /// longer: a slow model is no silence.
    pub(super) delay: Duration,
    /// When that was.
    pub(super) delivered: Instant,
    /// The camera's frames.
    frames: Arc<Ledger>,
}

/// What was said of a query.
pub(super) struct Said {
    /// The revision that it was said of.
    pub(super) rev: u32,
    /// `None` if that was too long ago, or before the camera fell silent: there may be a picture of what was found.
    answered: Option<Answered>,
    /// What the present and count topics say now; `None` is nothing.
    count: Option<usize>,
}

/// That a query was answered.
struct Answered {
    /// When the picture came that it was first answered on, without being forgotten since.
    since: Instant,
    /// When the picture came that it was last answered on.
    at: Instant,
}

/// A query of which something else is to be said than before: how many there were, and are; `None` is nothing.
pub(super) struct Change {
    pub(super) query: QueryId,
    pub(super) before: Option<usize>,
    pub(super) now: Option<usize>,
}

impl View {
    pub(super) fn new(track: &TrackConfig, last_id: u64, frames: Arc<Ledger>) -> Self {
        Self {
            tracker: Tracker::starting_after(track.clone(), last_id),
            said: BTreeMap::new(),
            source: None,
            delay: Duration::ZERO,
            delivered: Instant::now(),
            frames,
        }
    }

    /// A camera may come to send other pixels: what is tracked stays where it is.
    pub(super) fn fit(&mut self, source: Size) {
        if let Some(old) = self.source.replace(source).filter(|old| *old != source) {
            let across = source.width as f32 / old.width as f32;
            self.tracker.rescale([across, source.height as f32 / old.height as f32]);
        }
    }

    /// Whether a picture of the camera waits for the model, is in it, or is on its way from it.
    pub(super) fn has_more(&self) -> bool {
        self.frames.in_flight() > 0
    }

    /// A query was answered about the picture of `at`.
    pub(super) fn answer(&mut self, query: &Query, at: Instant) {
        let new = Said { rev: query.rev, answered: None, count: None };
        let said = self.said.entry(query.id.clone()).or_insert(new);
        let known = said.answered.as_ref().filter(|_| said.rev == query.rev);
        let since = known.map_or(at, |answered| answered.since);
        (said.rev, said.answered) = (query.rev, Some(Answered { since, at }));
    }

    /// Says anew how many answer each query, and returns where that changes something.
    pub(super) fn recount(&mut self) -> Vec<Change> {
        let tracked: BTreeMap<QueryId, Option<usize>> = self.tracker.presence().collect();
        let mut changes = Vec::new();
        for (query, said) in &mut self.said {
            let now = said.now(tracked.get(query).copied().unwrap_or(Some(0)), &self.tracker);
            let before = std::mem::replace(&mut said.count, now);
            if before != now {
                changes.push(Change { query: query.clone(), before, now });
            }
        }
        changes
    }

    /// Sets aside the queries of which nobody can say any more who is there: all of a camera that gives no pictures, and those
    /// that are shed or fail on each.
    pub(super) fn forget(&mut self, now: Instant) {
        let silent = self.tracker.is_silent(now);
        let is_old = |answered: &mut Answered| silent || self.tracker.is_outdated(answered.at, now);
        for said in self.said.values_mut() {
            said.answered.take_if(is_old);
        }
    }
}

impl Said {
    /// What to say where the tracker says `tracked`. What was matched once, and may be the first to be there, is no reason to say that
    /// nothing is, nor to take that back; but if none of it is matched again for long, nothing is there.
    fn now(&self, tracked: Option<usize>, tracker: &Tracker) -> Option<usize> {
        let Answered { since, at } = *self.answered.as_ref()?;
        let in_vain = self.count.is_some() || tracker.is_outdated(since, at);
        tracked.or(in_vain.then_some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Method, Worth};

    #[test]
    fn what_is_matched_once_now_and_then_is_nothing_after_a_while() {
        let (mut view, start) = (View::new(&TrackConfig::default(), 0, Arc::default()), Instant::now());
        let id = QueryId::new("car").unwrap();
        let (text, worth) = ("car".to_owned(), Worth::default());
        let query = Query { id: id.clone(), rev: 1, text, cameras: None, method: Method::Auto, threshold: None, worth };
        let answer = |view: &mut View, ms| view.answer(&query, start + Duration::from_millis(ms));
        let now = |view: &View, tracked| view.said[&id].now(tracked, &view.tracker);
        answer(&mut view, 0);
        assert_eq!((now(&view, None), now(&view, Some(2))), (None, Some(2)));
        answer(&mut view, 8000);
        assert_eq!(now(&view, None), None);
        answer(&mut view, 8001);
        assert_eq!(now(&view, None), Some(0));
        // Once that was said, a first match does not take it back; once it is forgotten, it begins anew.
        assert_eq!(view.recount().len(), 1);
        assert_eq!(now(&view, None), Some(0));
        view.forget(start + Duration::from_mins(1));
        assert_eq!(view.recount().len(), 1);
        answer(&mut view, 61_000);
        assert_eq!(now(&view, None), None);
        // Another revision is another question.
        answer(&mut view, 70_000);
        view.answer(&Query { rev: 2, ..query.clone() }, start + Duration::from_secs(71));
        assert_eq!(now(&view, None), None);
    }
}
