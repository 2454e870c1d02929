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
    /// Queries that were answered: of others nobody can say that nothing is there.
    pub(super) answered: BTreeMap<QueryId, Answered>,
    /// Those that were answered too long ago, or before the camera fell silent: there may be pictures of what they found.
    pub(super) before: BTreeMap<QueryId, Answered>,
    /// The pixels of the latest picture: those that the tracks are in.
    source: Option<Size>,
    /// What the present and count topics say now; `None` of a query that has no more than a snapshot.
    pub(super) counts: BTreeMap<QueryId, Option<usize>>,
    /// How long after its arrival the latest frame was delivered. The camera is silent only if nothing came for so much
    /// longer: a slow model is no silence.
    pub(super) delay: Duration,
    /// The camera's frames.
    pub(super) frames: Arc<Ledger>,
}

/// That a query was answered.
#[derive(Clone, Copy)]
pub(super) struct Answered {
    pub(super) rev: u32,
    /// When the picture came that it was first answered on, without being forgotten since.
    since: Instant,
    /// When the picture came that it was last answered on.
    at: Instant,
}

impl View {
    pub(super) fn new(track: &TrackConfig, last_id: u64) -> Self {
        Self {
            tracker: Tracker::starting_after(track.clone(), last_id),
            answered: BTreeMap::new(),
            before: BTreeMap::new(),
            source: None,
            counts: BTreeMap::new(),
            delay: Duration::ZERO,
            frames: Arc::default(),
        }
    }

    /// A camera may come to send other pixels: what is tracked stays where it is.
    pub(super) fn fit(&mut self, source: Size) {
        if let Some(old) = self.source.replace(source).filter(|old| *old != source) {
            let across = source.width as f32 / old.width as f32;
            self.tracker.rescale([across, source.height as f32 / old.height as f32]);
        }
    }

    /// The queries of which something was said, each in the revision that it was said of.
    pub(super) fn revisions(&self) -> impl Iterator<Item = (&QueryId, u32)> {
        self.answered.iter().chain(&self.before).map(|(query, answered)| (query, answered.rev))
    }

    /// A query was answered about the picture of `at`.
    pub(super) fn answer(&mut self, query: &Query, at: Instant) {
        let answered = self.answered.entry(query.id.clone()).or_insert(Answered { rev: query.rev, since: at, at });
        let since = if answered.rev == query.rev { answered.since } else { at };
        *answered = Answered { rev: query.rev, since, at };
    }

    /// What to say of a query of which the tracker says this. What was matched once, and may be the first to be there, is no reason to
    /// say that nothing is, nor to take that back; but if none of it is matched again for long, nothing is there.
    pub(super) fn count(&self, query: &QueryId, tracked: Option<usize>) -> Option<usize> {
        let said = self.counts.get(query).copied().flatten().map(|_| 0);
        let in_vain = |answered: &Answered| self.tracker.is_outdated(answered.since, answered.at).then_some(0);
        tracked.or(said).or_else(|| self.answered.get(query).and_then(in_vain))
    }

    /// Sets aside the queries of which nobody can say any more who is there: all of a camera that gives no pictures, and those
    /// that are shed or fail on each.
    pub(super) fn forget(&mut self, now: Instant) {
        let silent = self.tracker.is_silent(now);
        let is_old = |answered: &Answered| silent || self.tracker.is_outdated(answered.at, now);
        let old = self.answered.extract_if(.., |_, answered| is_old(answered)).collect::<Vec<_>>();
        self.before.extend(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Method, Worth};

    #[test]
    fn what_is_matched_once_now_and_then_is_nothing_after_a_while() {
        let (mut view, start) = (View::new(&TrackConfig::default(), 0), Instant::now());
        let id = QueryId::new("car").unwrap();
        let (text, worth) = ("car".to_owned(), Worth::default());
        let query = Query { id: id.clone(), rev: 1, text, cameras: None, method: Method::Auto, threshold: None, worth };
        let answer = |view: &mut View, ms| view.answer(&query, start + Duration::from_millis(ms));
        answer(&mut view, 0);
        assert_eq!((view.count(&id, None), view.count(&id, Some(2))), (None, Some(2)));
        answer(&mut view, 8000);
        assert_eq!(view.count(&id, None), None);
        answer(&mut view, 8001);
        assert_eq!(view.count(&id, None), Some(0));
        // Once that was said, a first match does not take it back; once it is forgotten, it begins anew.
        view.counts.insert(id.clone(), Some(0));
        assert_eq!(view.count(&id, None), Some(0));
        view.counts.clear();
        view.forget(start + Duration::from_mins(1));
        answer(&mut view, 61_000);
        assert_eq!(view.count(&id, None), None);
        // Another revision is another question.
        answer(&mut view, 70_000);
        view.answer(&Query { rev: 2, ..query.clone() }, start + Duration::from_secs(71));
        assert_eq!(view.count(&id, None), None);
    }
}
