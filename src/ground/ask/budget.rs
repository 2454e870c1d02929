//! What the device has time for. Under load the least valuable is left undone first: searching closer (`zoom`), then asking
//! again what was answered before, then queries of low priority. Looking at a camera's picture is never left undone, be it that
//! the first question about it is the only look a model takes.
//!
//! What is shared out is the time of all models that work at once. All answers of a batch leave together, when the last of
//! them is found: whoever is in a hurry must be so with the batch.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::types::{CameraId, QueryId, ShedReason, Worth};

/// Over which time the device's load is judged.
const SPAN: Duration = Duration::from_secs(1);
/// From this part of the time on the device counts as busy.
const BUSY: f32 = 0.9;
/// Time for questions that may be saved up, as a span of which the share is taken.
const SAVED: Duration = Duration::from_millis(500);

/// Who makes room for others in a hurry for this long has its turn, though they are late then.
const TURN: Duration = Duration::from_secs(1);

/// The purse of a query that does not ask for this long is forgotten, once it has made up for what it was overdrawn by.
const FORGET: Duration = Duration::from_mins(1);

/// What a question is for; the most valuable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// To find out what is not known.
    Ask,
    /// To know better what is known.
    Renew,
    /// To look closer.
    Zoom,
}

/// A question that is due.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Who asks.
    pub query: &'a QueryId,
    /// About whose picture.
    pub camera: &'a CameraId,
    /// What its user said it is worth.
    pub worth: &'a Worth,
    /// What it is for.
    pub class: Class,
    /// How long ago it was asked last.
    pub waited: Duration,
    /// How long it will take the device, as far as known; a pass as a whole.
    pub cost: Duration,
    /// The number of the pass over a picture that answers it together with others, if there is one. Such a pass takes as
    /// long for one question as for all; it is how its model looks at the picture.
    pub pass: Option<usize>,
    /// The number of the picture whose only look such a question is, if its model keeps no looks: the first one about it.
    pub look: Option<usize>,
    /// When the pixels arrived.
    pub arrived: Instant,
}

impl Item<'_> {
    /// How long it may take from now on to answer it; `None` if it is too late already.
    fn left(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.arrived);
        self.worth.deadline.map_or(Some(Duration::MAX), |deadline| deadline.checked_sub(age))
    }

    /// Who has its turn, and who has not.
    fn key(&self) -> (CameraId, QueryId) {
        (self.camera.clone(), self.query.clone())
    }

    /// Whether its pass takes place whoever else is in a hurry.
    fn is_look(&self) -> bool {
        self.pass.is_some() && self.worth.deadline.is_none()
    }
}

/// What is taken on: one batch.
struct Taken {
    /// How long all of it takes.
    time: Duration,
    /// How long that may be at most, so that no answer is late.
    most: Duration,
    /// By pass, the places of the items that share it.
    passes: BTreeMap<usize, Vec<usize>>,
}

impl Taken {
    fn nothing() -> Self {
        Self { time: Duration::ZERO, most: Duration::MAX, passes: BTreeMap::new() }
    }

    /// Takes `item`, the one at `place`, on as well; or says why not. Those worth more must be on it already.
    fn take(&mut self, place: usize, item: &Item<'_>, now: Instant) -> Result<(), ShedReason> {
        let is_paid = item.pass.is_some_and(|pass| self.passes.contains_key(&pass));
        let time = if is_paid { self.time } else { self.time + item.cost };
        let left = item.left(now).filter(|left| time <= *left).ok_or(ShedReason::Deadline)?;
        if time > self.most {
            // Its own answer would be in time, but not one that is worth more.
            return Err(ShedReason::Busy);
        }
        (self.time, self.most) = (time, self.most.min(left));
        if let Some(pass) = item.pass {
            self.passes.entry(pass).or_default().push(place);
        }
        Ok(())
    }
}

/// Time that comes in steadily, and is spent.
#[derive(Debug, Clone, Copy)]
struct Purse {
    /// Seconds; may be overdrawn by what costs more than was thought.
    seconds: f32,
    at: Instant,
    /// Of the time that passes, how much comes in.
    part: f32,
}

impl Purse {
    /// One that holds `most` seconds.
    fn full(part: f32, most: f32, at: Instant) -> Self {
        Self { seconds: most, at, part }
    }

    /// What it holds once it is `now`.
    fn holds(&self, now: Instant) -> f32 {
        self.seconds + self.part * now.saturating_duration_since(self.at).as_secs_f32()
    }

    /// Lets time go on; at most `most` seconds are kept.
    fn refill(&mut self, part: f32, most: f32, now: Instant) {
        self.part = part;
        self.seconds = self.holds(now).min(most);
        self.at = self.at.max(now);
    }

    /// Takes `cost` out. What takes place whatever it holds does not bring it further into debt than by that once.
    fn pay(&mut self, cost: f32) {
        self.seconds = (self.seconds - cost).max(self.seconds.min(-cost));
    }
}

/// See the module.
#[derive(Debug)]
pub struct Budget {
    share: f32,
    /// Models that work at once: as many seconds of work are in a second.
    models: u16,
    /// Part of the time the device was at work lately.
    load: f32,
    ended_at: Option<Instant>,
    /// Time for questions while the device is busy.
    purse: Option<Purse>,
    /// Of the queries that have a budget of their own.
    queries: BTreeMap<QueryId, Purse>,
    /// Queries that made room for others in a hurry, each about a camera's pictures: since when they were not asked, and when they
    /// last wanted to be.
    yielding: BTreeMap<(CameraId, QueryId), (Instant, Instant)>,
}

impl Budget {
    /// `share` is the most of a busy device's time that goes to questions.
    pub fn new(share: f32) -> Self {
        let (queries, yielding) = (BTreeMap::new(), BTreeMap::new());
        Self { share, models: 1, load: 0.0, ended_at: None, purse: None, queries, yielding }
    }

    /// One more model works at once with those there are.
    pub fn another(&mut self) {
        self.models = self.models.saturating_add(1);
    }

    /// Whether the device has been at work nearly all the time lately.
    pub fn is_busy(&self) -> bool {
        self.load >= BUSY
    }

    /// One of the models was at work, whatever on, from `began` to `ended`.
    pub fn worked(&mut self, began: Instant, ended: Instant) {
        // Since any of them ended last; this one may have begun before that.
        let since = self.ended_at.unwrap_or(began);
        let passed = ended.saturating_duration_since(since).as_secs_f32();
        let work = ended.saturating_duration_since(began).as_secs_f32() / f32::from(self.models);
        // What is forgotten of the load meanwhile. `exp_m1` as two may end within nanoseconds: 1 - exp would be 0 then.
        let gone = -(-passed / SPAN.as_secs_f32()).exp_m1();
        // A second's worth of work in no time counts for 1 / SPAN.
        let part = if passed > 0.0 { gone / passed } else { SPAN.as_secs_f32().recip() };
        self.load = (self.load * (1.0 - gone) + part * work).min(1.0);
        self.ended_at = Some(since.max(ended));
    }

    /// Which of `items` to ask, in their order; `None` is asked. What is asked counts as spent at once.
    pub fn decide(&mut self, items: &[Item<'_>], now: Instant) -> Vec<Option<ShedReason>> {
        let busy = self.is_busy();
        self.refill(busy, now);
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_cached_key(|i| {
            let item = &items[*i];
            let since = self.yielding.get(&item.key()).map(|(since, _)| now.saturating_duration_since(*since));
            let turn = since.is_some_and(|since| since >= TURN);
            // What takes place anyway comes first: whoever is in a hurry must know of it.
            (!item.is_look(), !turn, item.class, Reverse(item.worth.priority), Reverse(item.waited))
        });
        let mut verdicts = vec![None; items.len()];
        let (mut taken, mut looked) = (Taken::nothing(), BTreeSet::new());
        for i in order {
            let item = &items[i];
            // What is one question more: neither part of a look at the picture, nor such a look itself.
            let more = item.pass.is_none() && item.look.is_none_or(|picture| looked.contains(&picture));
            verdicts[i] = self.lacks(item, busy && more, now);
            if verdicts[i].is_none() {
                verdicts[i] = taken.take(i, item, now).err();
                self.note(item, verdicts[i], now);
            }
            if verdicts[i].is_none() && item.pass.is_none() {
                // A search is far more than a look.
                self.spend(item, item.cost, busy && (more || item.class == Class::Zoom));
                looked.extend(item.look);
            }
        }
        for sharers in taken.passes.values() {
            // In equal parts: without any one of them the pass would have been no shorter. Only now it is known how many
            // there are; what a purse is overdrawn by, it makes up for later.
            for item in sharers.iter().map(|i| &items[*i]) {
                self.spend(item, item.cost.div_f32(sharers.len() as f32), false);
            }
        }
        verdicts
    }

    fn refill(&mut self, busy: bool, now: Instant) {
        let share = self.share * f32::from(self.models);
        let most = share * SAVED.as_secs_f32();
        let purse = self.purse.get_or_insert(Purse::full(share, most, now));
        if busy {
            purse.refill(share, most, now);
        } else {
            *purse = Purse::full(share, most, now);
        }
        // Of a query that is gone nothing is kept; one that comes back later begins anew.
        let lately = |at: Instant| now.saturating_duration_since(at) < FORGET;
        self.queries.retain(|_, purse| lately(purse.at) || purse.holds(now) < 0.0);
        self.yielding.retain(|_, (_, wanted)| lately(*wanted));
    }

    /// Whose time is used up that `item` would need, if any is; `of_all` also takes that of all questions.
    fn lacks(&mut self, item: &Item<'_>, of_all: bool, now: Instant) -> Option<ShedReason> {
        if of_all && self.purse.is_some_and(|purse| purse.seconds <= 0.0) {
            return Some(ShedReason::Busy);
        }
        let part = item.worth.budget? * f32::from(self.models);
        let purse = self.queries.entry(item.query.clone()).or_insert(Purse::full(part, part, now));
        purse.refill(part, part, now);
        (purse.seconds <= 0.0).then_some(ShedReason::Budget)
    }

    /// Remembers who makes room for others in a hurry, so that it has its turn.
    fn note(&mut self, item: &Item<'_>, verdict: Option<ShedReason>, now: Instant) {
        match verdict {
            None => drop(self.yielding.remove(&item.key())),
            Some(ShedReason::Busy) => self.yielding.entry(item.key()).or_insert((now, now)).1 = now,
            Some(_) => {}
        }
    }

    /// Takes `cost` out of the purse of the query that asks, if it has one; `of_all` also out of that of all questions.
    fn spend(&mut self, item: &Item<'_>, cost: Duration, of_all: bool) {
        let cost = cost.as_secs_f32();
        if let Some(purse) = self.purse.as_mut().filter(|_| of_all) {
            purse.pay(cost);
        }
        if let Some(purse) = self.queries.get_mut(item.query).filter(|_| item.worth.budget.is_some()) {
            purse.seconds -= cost;
        }
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
