//! One camera's objects: which box of this frame is which object of the last, for all queries together.
//!
//! After `ByteTrack`: a motion model predicts each object, sure boxes choose first by overlap, unsure ones take what is
//! left. Two things differ because frames come rarely and unevenly. What overlaps nothing may still be a nearby object
//! that moved, so a last round goes by distance, the further the longer ago the object was seen. And boxes here have
//! passed their query's threshold already, so an unsure one may also begin an object; it is believed once it was seen
//! often enough.
//!
//! When nothing comes from a camera any more its objects end, as nobody can say they are there; but if it comes back soon,
//! what stands where an object stood is that object, by its old id. Unless it is back already and nothing stood there: what
//! comes then is something else.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    TrackConfig,
    asleep::{Asleep, Sleeper},
    assign::assign,
    link::{Link, SHED_PATIENCE},
    motion::Motion,
    objects::{Object, closeness, objects, tells_absence},
};
use crate::types::{Answer, BBox, EventKind, Match, Query, QueryId, Status, TrackEvent, seconds};

/// A box that overlaps this much what a track has for its query is what that track has lost.
const MET: f32 = 0.5;
/// An object and its prediction overlap at least this much.
const OVERLAP: f32 = 0.2;
/// The same where box and object have no query in common: a bicycle is not its rider.
const OVERLAP_OTHER_QUERY: f32 = 0.6;
/// Tracks in memory, beyond which boxes stay without one.
pub(super) const MAX_TRACKS: usize = 512;
/// A longer time between two frames is an outage, not the camera's rate.
const LONGEST_GAP: Duration = Duration::from_mins(1);

/// See the module. One a camera.
#[derive(Debug)]
pub struct Tracker {
    config: TrackConfig,
    last_id: u64,
    tracks: Vec<Track>,
    /// What ended because nothing came any more.
    asleep: Asleep,
    /// The queries of the latest frame.
    queries: Vec<QueryId>,
    updated: Option<Instant>,
    /// From one frame to the next, as it was last.
    gap: Duration,
    /// The latest frame came later than that lets expect: an outage, unless the next one does, too.
    late: bool,
}

#[derive(Debug)]
struct Track {
    id: u64,
    motion: Motion,
    links: BTreeMap<QueryId, Link>,
}

impl Tracker {
    /// A tracker without objects; the first gets the id 1.
    pub fn new(config: TrackConfig) -> Self {
        Self::starting_after(config, 0)
    }

    /// A tracker without objects; the first gets the id after `last_id`. For a camera that was here before: who heard of its
    /// objects must not take a new one for one of those.
    pub fn starting_after(config: TrackConfig, last_id: u64) -> Self {
        Self {
            config,
            last_id,
            tracks: Vec::new(),
            asleep: Asleep::default(),
            queries: Vec::new(),
            updated: None,
            gap: Duration::ZERO,
            late: false,
        }
    }

    /// The highest id that an object has got; that of [`Tracker::starting_after`] where none has got one.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Takes one frame's answers, all queries of the camera in them, writes the tracks into their matches, and says what
    /// changed. `now` is when the frame was taken (or arrived) on the monotonic clock, `captured` on the wall clock. A
    /// query that is missing, or has a new revision, ends what was open under it; one that was shed changes nothing: what is
    /// remembered of it is told which track it is, but is no sign that the thing is still there. What is not in an incomplete
    /// answer may be there all the same.
    pub fn update(&mut self, answers: &mut [Answer], now: Instant, captured: SystemTime) -> Vec<TrackEvent> {
        let before = self.updated.unwrap_or(now);
        let now = before.max(now);
        self.updated = Some(now);
        self.pace(now - before);
        self.asleep.forget(now);
        let mut events = self.drop_queries(answers);
        let objects = objects(answers);
        let owners = self.associate(&objects, answers, now);
        for (object, owner) in objects.iter().zip(&owners) {
            let sighted = object.members.iter().any(|(answer, _)| answers[*answer].status == Status::Ok);
            let begin = || sighted.then(|| self.begin(object, answers, now)).flatten();
            let Some(index) = owner.or_else(begin) else { continue };
            events.extend(self.merge(index, object, answers, &owners, now));
            let track = &mut self.tracks[index];
            track.motion.correct(object.bbox, now);
            for (answer, place) in &object.members {
                let Answer { query, status, matches, .. } = &mut answers[*answer];
                let found = &mut matches[*place];
                found.track = Some(track.id);
                if *status == Status::Ok {
                    track.see(query, found, now, captured);
                }
            }
        }
        self.asleep.miss(answers, seconds(self.config.lost_seconds), now);
        for answer in answers.iter().filter(|answer| tells_absence(answer)) {
            for link in self.tracks.iter_mut().filter_map(|t| t.links.get_mut(&answer.query.id)) {
                link.missed = link.seen_at < now;
            }
        }
        for track in &mut self.tracks {
            for link in track.links.values_mut().filter(|link| link.seen_at == now) {
                events.extend(link.step(track.id, &self.config, now));
            }
        }
        self.sweep(now, &mut events);
        events
    }

    /// Ends what was not seen for too long. Frames that come do this too: this is for cameras that went silent, and may
    /// be called at any time.
    pub fn expire(&mut self, now: Instant) -> Vec<TrackEvent> {
        let mut events = Vec::new();
        self.sweep(now, &mut events);
        events
    }

    /// Whether nothing has come for so long that nobody can say who is there.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.updated.is_none_or(|at| now.saturating_duration_since(at) > self.quiet())
    }

    /// Whether what was last answered about the picture of `at` says nothing of now: a query may be shed, or fail, on every
    /// picture since. As long as that, links outlive it.
    pub fn is_outdated(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) > self.quiet().saturating_mul(SHED_PATIENCE)
    }

    /// Learns how often frames come. One that is late tells of an outage, two of a camera that has become slow.
    fn pace(&mut self, gap: Duration) {
        self.late = !self.gap.is_zero() && gap > self.quiet() && !self.late;
        if !self.late {
            self.gap = gap.min(LONGEST_GAP);
        }
    }

    /// How long nothing may come. Where frames come more rarely than objects are lost, their absence says nothing until one is
    /// overdue.
    fn quiet(&self) -> Duration {
        seconds(self.config.lost_seconds).max(self.gap * 2)
    }

    /// How many objects answer each query of the latest frame now, none included; `None` where there may be a first one, which was not
    /// matched often enough to be told of.
    pub fn presence(&self) -> impl Iterator<Item = (QueryId, Option<usize>)> {
        self.queries.iter().map(|id| {
            let links = || self.tracks.iter().filter_map(|track| track.links.get(id));
            let told = links().filter(|link| link.announced).count();
            (id.clone(), (told > 0 || links().next().is_none()).then_some(told))
        })
    }

    /// The picture has other pixels from now on: one of the old ones is so many of the new, across and down.
    pub fn rescale(&mut self, by: [f32; 2]) {
        for track in &mut self.tracks {
            track.motion.rescale(by);
            track.links.values_mut().for_each(|link| link.rescale(by));
        }
        self.asleep.rescale(by);
    }

    /// Where every object should be at `now`, once for each query it answers.
    pub fn predicted(&self, now: Instant) -> Vec<(QueryId, BBox)> {
        let of = |track: &Track| {
            let bbox = track.motion.predict(now);
            track.links.keys().map(move |query| (query.clone(), bbox)).collect::<Vec<_>>()
        };
        self.tracks.iter().flat_map(of).collect()
    }

    fn drop_queries(&mut self, answers: &[Answer]) -> Vec<TrackEvent> {
        self.queries = answers.iter().map(|a| a.query.id.clone()).collect();
        let asked: BTreeMap<&QueryId, &Arc<Query>> = answers.iter().map(|a| (&a.query.id, &a.query)).collect();
        self.end(|link| asked.get(&link.query.id).is_none_or(|query| query.rev != link.query.rev))
    }

    /// Ends every link that `gone` names, and with its last link the track.
    fn end(&mut self, gone: impl Fn(&Link) -> bool) -> Vec<TrackEvent> {
        let mut events = Vec::new();
        for track in &mut self.tracks {
            let ended = track.links.extract_if(.., |_, link| gone(link));
            events.extend(ended.filter(|(_, link)| link.announced).map(|(_, l)| l.event(EventKind::End, track.id)));
        }
        self.tracks.retain(|track| !track.links.is_empty());
        events
    }

    fn sweep(&mut self, now: Instant, events: &mut Vec<TrackEvent>) {
        let (lost, quiet, silent) = (seconds(self.config.lost_seconds), self.quiet(), self.is_silent(now));
        let looked = self.updated.unwrap_or(now);
        let is_lost = |link: &Link| link.is_lost(now, looked, (lost, quiet), silent);
        if silent {
            let ending = self.tracks.iter().filter(|track| track.links.values().all(is_lost));
            self.asleep.add(ending.filter_map(Track::asleep));
        }
        events.extend(self.end(is_lost));
    }

    /// Which track each object belongs to.
    fn associate(&self, objects: &[Object], answers: &[Answer], now: Instant) -> Vec<Option<usize>> {
        let predicted: Vec<BBox> = self.tracks.iter().map(|t| t.motion.predict(now)).collect();
        let related = |object: &Object, track: &Track| {
            object.members.iter().any(|(answer, _)| track.links.contains_key(&answers[*answer].query.id))
        };
        let overlap = |object: &Object, track: usize| {
            let (iou, other) = (object.bbox.iou(&predicted[track]), !related(object, &self.tracks[track]));
            // Of two tracks that overlap alike, the one that answers the same query.
            let least = if other { OVERLAP_OTHER_QUERY } else { OVERLAP };
            (iou >= least).then_some(if other { iou * 0.7 } else { iou })
        };
        let near = |object: &Object, track: usize| {
            let candidate = &self.tracks[track];
            related(object, candidate)
                .then(|| closeness(&object.bbox, &predicted[track], candidate.motion.step(now)))
                .flatten()
        };
        let mut owners = vec![None; objects.len()];
        let mut free: Vec<usize> = (0..self.tracks.len()).collect();
        let mut round = |eligible: &dyn Fn(&Object) -> bool, score: &dyn Fn(&Object, usize) -> Option<f32>| {
            let open: Vec<usize> =
                (0..objects.len()).filter(|o| owners[*o].is_none() && eligible(&objects[*o])).collect();
            let pairs = assign(open.len(), free.len(), |o, t| score(&objects[open[o]], free[t]));
            for (o, t) in &pairs {
                owners[open[*o]] = Some(free[*t]);
            }
            free.retain(|t| !pairs.iter().any(|(o, _)| owners[open[*o]] == Some(*t)));
        };
        round(&|object| object.sure, &overlap);
        round(&|object| !object.sure, &overlap);
        round(&|_| true, &near);
        owners
    }

    /// Gives the track at `index` what others still hold of its object: boxes of two queries that were taken for two
    /// objects may come to lie on each other, and then one thing would count twice until the other track is lost.
    fn merge(
        &mut self,
        index: usize,
        object: &Object,
        answers: &[Answer],
        owners: &[Option<usize>],
        now: Instant,
    ) -> Vec<TrackEvent> {
        let mut events = Vec::new();
        for (answer, place) in object.members.iter().filter(|(answer, _)| answers[*answer].status == Status::Ok) {
            let (query, bbox) = (&answers[*answer].query.id, &answers[*answer].matches[*place].bbox);
            if self.tracks[index].links.contains_key(query) {
                continue;
            }
            let holds = |(other, track): &(usize, &mut Track)| {
                !owners.contains(&Some(*other))
                    && track.links.get(query).is_some_and(|link| link.seen_at < now)
                    && track.motion.predict(now).iou(bbox) >= MET
            };
            let held = self.tracks.iter_mut().enumerate().find(holds);
            if let Some((track, mut link)) = held.and_then(|(_, track)| Some((track.id, track.links.remove(query)?))) {
                events.extend(link.announced.then(|| link.event(EventKind::End, track)));
                link.announced = false;
                self.tracks[index].links.insert(query.clone(), link);
            }
        }
        events
    }

    /// Begins a track; `None` if there are too many.
    fn begin(&mut self, object: &Object, answers: &[Answer], now: Instant) -> Option<usize> {
        if self.tracks.len() >= MAX_TRACKS {
            return None;
        }
        let id = self.asleep.wake(object, answers).unwrap_or_else(|| {
            self.last_id += 1;
            self.last_id
        });
        let motion = Motion::new(object.bbox, now);
        self.tracks.push(Track { id, motion, links: BTreeMap::new() });
        Some(self.tracks.len() - 1)
    }
}

impl Track {
    /// What is remembered of it; `None` if nobody was ever told of it.
    fn asleep(&self) -> Option<Sleeper> {
        let last = self.links.values().filter(|link| link.announced).max_by_key(|link| link.seen_at)?;
        let queries = self.links.keys().cloned().collect();
        Some(Sleeper { id: self.id, bbox: last.bbox, queries, seen_at: last.seen_at, missed_since: None })
    }

    fn see(&mut self, query: &Arc<Query>, found: &Match, now: Instant, captured: SystemTime) {
        match self.links.get_mut(&query.id) {
            Some(link) => link.see(found, now, captured),
            None => drop(self.links.insert(query.id.clone(), Link::new(query, found, now, captured))),
        }
    }
}
