//! One camera between its pictures: what is remembered, and which queries are due.

use std::{
    cell::OnceCell,
    cmp::Reverse,
    time::{Duration, Instant},
};

use super::{
    AskConfig,
    budget::Class,
    expect::Experience,
    gate::{Gate, Look},
    held::Held,
    regions::{Proposed, Region, Regions},
};
use crate::{
    ground::methods::regions::Bar,
    types::{QueryId, Rgb, seconds},
};

/// A new or changed region is asked about by itself only from this objectness on: fainter ones come and go, and are asked
/// about as often as a clear miss is.
const SURE: f32 = 0.35;
/// And only once it was seen on this many pictures, unless they come seldom.
const PICTURES: u32 = 2;
/// A query that a new region is not expected to match is asked all the same once the region is this old.
const SETTLED: Duration = Duration::from_millis(400);
/// A score from which a match is possible, where the threshold is not lower.
const POSSIBLE: f32 = 0.3;
/// An answer this far from the threshold is clear, or as far as one can be.
const CLEAR: f32 = 0.35;
/// An answer at the threshold is asked again after this long.
const UNCLEAR: Duration = Duration::from_millis(300);
/// Questions that may be asked at once after a time without any, for each query.
const BURST: f32 = 2.0;
/// A query that has something to ask and was not asked for this long has its turn, whatever its priority: or one that always
/// has something to ask would leave nothing to the others.
const TURN: Duration = Duration::from_secs(1);

/// A query on this camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The query.
    pub id: QueryId,
    /// The revision that is asked.
    pub rev: u32,
}

/// A query that is answered by regions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// Its place among the scene's queries.
    pub query: usize,
    /// Least score of a match.
    pub threshold: f32,
    /// Those of higher priority are asked first.
    pub priority: i32,
}

/// Such a query that should be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// Its place among the scene's queries.
    pub query: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a query should be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// What for.
    pub class: Class,
    /// How urgent it is among those of this camera.
    pub urgency: f32,
    /// Whether something has changed since it was answered: what was said of it may be wrong by now.
    pub changed: bool,
}

impl Reason {
    fn new(class: Class, urgency: f32) -> Self {
        Self { class, urgency, changed: false }
    }

    /// One question is for several reasons.
    fn and(self, other: Self) -> Self {
        Self {
            class: self.class.min(other.class),
            urgency: self.urgency.max(other.urgency),
            changed: self.changed || other.changed,
        }
    }
}

/// A region on the picture, and what to expect of it once somebody wants to know.
type Guessed<'a> = (&'a Region, OnceCell<Vec<f32>>);

/// See the module.
#[derive(Debug)]
pub struct Scene {
    gate: Gate,
    regions: Regions,
    experience: Experience,
    queries: Vec<Key>,
    held: Vec<Held>,
    asked_at: Vec<Option<Instant>>,
    /// Questions that may be asked, and when that was reckoned.
    allowance: f32,
    reckoned_at: Option<Instant>,
}

impl Scene {
    /// A camera nothing is known of.
    pub fn new() -> Self {
        Self {
            gate: Gate::default(),
            regions: Regions::default(),
            experience: Experience::default(),
            queries: Vec::new(),
            held: Vec::new(),
            asked_at: Vec::new(),
            allowance: 0.0,
            reckoned_at: None,
        }
    }

    /// These are the queries from now on; what is remembered of those that stay, stays.
    pub fn set_queries(&mut self, queries: Vec<Key>) {
        if self.queries == queries {
            return;
        }
        let from: Vec<Option<usize>> =
            queries.iter().map(|query| self.queries.iter().position(|known| known == query)).collect();
        self.regions.set_queries(&from);
        self.experience.clear();
        let mut held: Vec<Option<Held>> = std::mem::take(&mut self.held).into_iter().map(Some).collect();
        self.held = from.iter().map(|place| place.and_then(|p| held[p].take()).unwrap_or_default()).collect();
        self.asked_at = from.iter().map(|place| place.and_then(|p| self.asked_at[p])).collect();
        self.queries = queries;
    }

    /// The place of a query among those that were set.
    pub fn place(&self, id: &QueryId) -> Option<usize> {
        self.queries.iter().position(|key| key.id == *id)
    }

    /// Whether a picture is to be analysed. Reckons what may be asked about it.
    pub fn look(&mut self, picture: &Rgb, config: &AskConfig, now: Instant) -> Look {
        let change = if config.once { config.change } else { 0.0 };
        let look = self.gate.look(picture, change, seconds(config.look_seconds), now);
        match look {
            Look::Changed => self.held.iter_mut().for_each(Held::outdate),
            Look::Again | Look::Same => self.regions.still(now),
        }
        let queries = self.queries.len() as f32;
        let since = self.reckoned_at.map(|at| now.saturating_duration_since(at).as_secs_f32());
        let earned = since.map_or(BURST, |since| config.rate.max(since));
        self.allowance = (self.allowance + earned * queries).min(BURST * queries);
        self.reckoned_at = Some(now);
        look
    }

    /// The picture is analysed although it looks the same.
    pub fn look_all_the_same(&mut self, now: Instant) {
        self.gate.adopt(now);
    }

    /// It is as if the picture had not been looked at: the next one is another, whatever it looks like.
    pub fn overlook(&mut self) {
        self.gate.reset();
    }

    /// Takes in what the proposal network says of the picture.
    pub fn observe(&mut self, proposed: Proposed<'_>, bar: Bar, now: Instant) {
        self.regions.observe(proposed, bar, self.queries.len(), now);
    }

    /// The queries about regions that are due, those that go first in front; and those that are, too, but may not be asked
    /// so soon. With `kept` the picture was not looked at, so that asking again what was answered about the look that is
    /// kept would only repeat the answer.
    pub fn due(&self, wanted: &[Wanted], kept: bool, config: &AskConfig, now: Instant) -> (Vec<Due>, Vec<Due>) {
        // What to expect of a region is the same work for one query and for all.
        let present: Vec<_> = self.regions.present().map(|region| (region, OnceCell::new())).collect();
        let due = |wanted: &Wanted| {
            let reason = self.reason(&present, wanted, kept, config, now)?;
            let turn = self.asked_at[wanted.query].is_none_or(|at| now.saturating_duration_since(at) >= TURN);
            // Less comes first.
            let worth = (!turn, reason.class, Reverse(wanted.priority));
            Some((worth, Due { query: wanted.query, reason }))
        };
        let mut all: Vec<_> = wanted.iter().filter_map(due).collect();
        all.sort_by(|(a_worth, a), (b_worth, b)| {
            a_worth.cmp(b_worth).then(b.reason.urgency.total_cmp(&a.reason.urgency))
        });
        let mut left = self.allowance;
        all.into_iter().map(|(_, due)| due).partition(|due| {
            // What was never asked is not a repetition, and what is always asked needs no leave.
            let free = !config.once || self.asked_at[due.query].is_none();
            left -= if free { 0.0 } else { 1.0 };
            free || left >= 0.0
        })
    }

    fn reason(
        &self,
        present: &[Guessed<'_>],
        wanted: &Wanted,
        kept: bool,
        config: &AskConfig,
        now: Instant,
    ) -> Option<Reason> {
        let asked_at = self.asked_at[wanted.query];
        let always = asked_at.is_none() || !config.once;
        let waited = asked_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let of_region = |guessed: &Guessed<'_>| {
            if always {
                Some(Reason::new(Class::Ask, 9.0))
            } else {
                self.reason_of(guessed, wanted, waited, config, now)
            }
        };
        let reasons = present.iter().filter_map(of_region);
        // What has changed was not asked about on the look that is kept, or it would not have changed since.
        let worthwhile = reasons.filter(|reason| !kept || reason.class == Class::Ask || reason.changed);
        let all = worthwhile.reduce(Reason::and)?;
        Some(Reason { urgency: all.urgency + 0.2 * waited.as_secs_f32().min(5.0), ..all })
    }

    /// Why a query should be asked because of one region.
    fn reason_of(
        &self,
        (region, expectations): &Guessed<'_>,
        &Wanted { query, threshold, .. }: &Wanted,
        waited: Duration,
        config: &AskConfig,
        now: Instant,
    ) -> Option<Reason> {
        let lasts = region.pictures >= PICTURES || self.regions.come_seldom();
        let (counts, possible) = (region.objectness >= SURE && lasts, POSSIBLE.min(threshold));
        let expect = || self.experience.expect(&region.look, self.queries.len());
        let expected = || expectations.get_or_init(expect).get(query).copied().unwrap_or(1.0);
        let Some(answer) = region.answer(query) else {
            let settled = now.saturating_duration_since(region.born) >= SETTLED;
            return match counts.then(expected) {
                Some(expected) if expected >= possible => Some(Reason::new(Class::Ask, 2.0 + expected)),
                Some(_) => settled.then_some(Reason::new(Class::Ask, 1.0)),
                // It may be nothing, but until somebody has asked, nobody can say that nothing is there.
                None => (waited >= seconds(config.miss_seconds)).then_some(Reason::new(Class::Ask, 0.5)),
            };
        };
        if counts && region.changed_since(answer) && answer.score.max(expected()) >= possible {
            return Some(Reason { changed: true, ..Reason::new(Class::Renew, 1.5) });
        }
        let matched = answer.score >= threshold;
        // As far from the threshold as can be is clear.
        let furthest = CLEAR.min(if matched { 1.0 - threshold } else { threshold });
        let distance = if furthest > 0.0 { (answer.score - threshold).abs() / furthest } else { 1.0 };
        // Asked once more about the very same, the model would say the same.
        let clear = if region.equals(answer) { 1.0 } else { distance.min(1.0) };
        let most = if matched { config.match_seconds } else { config.miss_seconds };
        let life = UNCLEAR.mul_f32(1.0 - clear) + seconds(most).mul_f32(clear);
        (now.saturating_duration_since(answer.at) >= life).then_some(Reason::new(Class::Renew, 2.0 - clear))
    }

    /// Enters the answers to a query about regions: a score for every proposal of the picture looked at last.
    pub fn answered(&mut self, query: usize, scores: &[f32], now: Instant) {
        self.regions.answered(query, scores, now);
        if self.asked_at[query].replace(now).is_some() {
            self.allowance -= 1.0;
        }
    }

    /// Learns from what is known by now of the regions on the picture. To be called once all of its queries are answered.
    pub fn learn(&mut self) {
        for region in self.regions.present() {
            let scores = (0..self.queries.len()).map(|query| match region.answer(query) {
                // By a method that knows no regions, or not asked yet: nothing tells what to expect.
                None if self.asked_at[query].is_none() => Some(1.0),
                answer => answer.map(|answer| answer.score),
            });
            if let Some(scores) = scores.collect() {
                self.experience.add(&region.look, scores);
            }
        }
    }

    /// What is remembered about a query, as scores of the proposals of the picture looked at last.
    pub fn remembered(&self, query: usize) -> Vec<f32> {
        self.regions.remembered(query)
    }

    /// Where that was found, as corners of the same proposals.
    pub fn places(&self, query: usize) -> Vec<[f32; 4]> {
        self.regions.places(query)
    }

    /// Whether something is on the picture looked at last that the query was never asked about.
    pub fn is_open(&self, query: usize) -> bool {
        self.regions.is_open(query)
    }

    /// How long ago a query was asked; the longest time if never.
    pub fn waited(&self, query: usize, now: Instant) -> Duration {
        let at = self.asked_at[query].or_else(|| self.held[query].asked_at());
        at.map_or(Duration::MAX, |at| now.saturating_duration_since(at))
    }

    /// Whether a query that knows no regions is due.
    pub fn due_whole(&self, query: usize, config: &AskConfig, now: Instant) -> Option<Class> {
        let held = &self.held[query];
        if held.is_missing() || !config.once {
            return Some(Class::Ask);
        }
        let old = |matched, missed| held.is_old(seconds(matched), seconds(missed), now);
        // A search that had too little time goes on with the next look, of models that keep no looks as well.
        let goes_on = held.is_partial() && old(config.look_seconds, config.look_seconds);
        (goes_on || old(config.match_seconds, config.miss_seconds)).then_some(Class::Renew)
    }

    /// What is known of a query that knows no regions.
    pub fn held(&mut self, query: usize) -> &mut Held {
        &mut self.held[query]
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "scene_tests.rs"]
mod tests;
