//! One camera between its pictures: what is remembered, and which queries are due.

use std::time::{Duration, Instant};

use super::{
    AskConfig,
    budget::Class,
    expect::Experience,
    gate::{Gate, Look},
    held::Held,
    regions::{Proposed, Region, Regions},
    seconds,
};
use crate::types::{QueryId, Rgb};

/// A new or changed region is asked about by itself only from this objectness on: fainter ones come and go, and are asked
/// about as often as a clear miss is.
const SURE: f32 = 0.35;
/// And only once it was seen on this many pictures.
const PICTURES: u32 = 2;
/// A query that a new region is not expected to match is asked all the same once the region is this old.
const SETTLED: Duration = Duration::from_millis(400);
/// A score from which a match is possible.
const POSSIBLE: f32 = 0.3;
/// An answer this far from the threshold is clear.
const CLEAR: f32 = 0.35;
/// An answer at the threshold is asked again after this long.
const UNCLEAR: Duration = Duration::from_millis(300);
/// Questions that may be asked at once after a time without any, for each query.
const BURST: f32 = 2.0;

/// A query on this camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The query.
    pub id: QueryId,
    /// The revision that is asked.
    pub rev: u32,
}

/// A query that should be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// Its place among the scene's queries.
    pub query: usize,
    /// What it is worth.
    pub class: Class,
    /// How urgent it is among those of this camera.
    pub urgency: f32,
}

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
        if look == Look::Changed {
            self.held.iter_mut().for_each(Held::outdate);
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

    /// What the proposal network said of the picture could not be had: it is as if the picture had not been looked at.
    pub fn overlook(&mut self) {
        self.gate.reset();
    }

    /// Takes in what the proposal network says of the picture.
    pub fn observe(&mut self, proposed: Proposed<'_>, least: f32, now: Instant) {
        self.regions.observe(proposed, least, self.queries.len(), now);
    }

    /// The queries about regions that are due, the most urgent first, no more than may be asked. `asked` names those
    /// that are answered by regions, each with its threshold. With `kept` the picture was not looked at, so that asking again
    /// what was answered would only repeat the answer.
    pub fn due(&self, asked: &[(usize, f32)], kept: bool, config: &AskConfig, now: Instant) -> Vec<Due> {
        let standing = |(query, threshold): &(usize, f32)| self.standing(*query, *threshold, kept, config, now);
        let mut due: Vec<Due> = asked.iter().filter_map(standing).collect();
        due.sort_by(|a, b| b.urgency.total_cmp(&a.urgency));
        let mut left = self.allowance;
        due.retain(|due| {
            // What was never asked is not a repetition, and what is always asked needs no leave.
            let free = !config.once || self.asked_at[due.query].is_none();
            left -= if free { 0.0 } else { 1.0 };
            free || left >= 0.0
        });
        due
    }

    fn standing(&self, query: usize, threshold: f32, kept: bool, config: &AskConfig, now: Instant) -> Option<Due> {
        let first = self.asked_at[query].is_none();
        let waited = self.asked_at[query].map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let mut most: Option<(Class, f32)> = None;
        for region in self.regions.present() {
            let found = if first || !config.once {
                Some((Class::Ask, 9.0))
            } else {
                self.reason(region, (query, threshold), waited, config, now)
            };
            if let Some((class, urgency)) = found.filter(|(class, _)| !kept || *class == Class::Ask)
                && most.is_none_or(|(_, before)| urgency > before)
            {
                most = Some((class, urgency));
            }
        }
        let (class, urgency) = most?;
        Some(Due { query, class, urgency: urgency + 0.2 * waited.as_secs_f32().min(5.0) })
    }

    /// Why a query should be asked because of one region, and how urgently.
    fn reason(
        &self,
        region: &Region,
        (query, threshold): (usize, f32),
        waited: Duration,
        config: &AskConfig,
        now: Instant,
    ) -> Option<(Class, f32)> {
        let counts = region.objectness >= SURE && region.pictures >= PICTURES;
        let expected = || self.experience.expect(&region.look, self.queries.len()).get(query).copied().unwrap_or(1.0);
        let Some(answer) = region.answer(query) else {
            let settled = now.saturating_duration_since(region.born) >= SETTLED;
            return match counts.then(expected) {
                Some(expected) if expected >= POSSIBLE => Some((Class::Ask, 2.0 + expected)),
                Some(_) => settled.then_some((Class::Ask, 1.0)),
                // It may be nothing, but until somebody has asked, nobody can say that nothing is there.
                None => (waited >= seconds(config.miss_seconds)).then_some((Class::Ask, 0.5)),
            };
        };
        if counts && region.changed_since(answer) && answer.score.max(expected()) >= POSSIBLE {
            return Some((Class::Renew, 1.5));
        }
        // Asked once more about the very same, the model would say the same.
        let clear = if region.equals(answer) { 1.0 } else { ((answer.score - threshold).abs() / CLEAR).min(1.0) };
        let most = if answer.score >= threshold { config.match_seconds } else { config.miss_seconds };
        let life = UNCLEAR.mul_f32(1.0 - clear) + seconds(most).mul_f32(clear);
        (now.saturating_duration_since(answer.at) >= life).then_some((Class::Renew, 2.0 - clear))
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
            let scores = (0..self.queries.len()).map(|query| region.answer(query).map(|answer| answer.score));
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
        let old = held.is_old(seconds(config.match_seconds), seconds(config.miss_seconds), now);
        old.then_some(Class::Renew)
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
