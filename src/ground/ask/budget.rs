//! What the device has time for. Under load the least valuable is left undone first: searching closer (`zoom`), then asking
//! again what was answered before, then queries of low priority. Looking at a camera's picture is never left undone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::types::{QueryId, ShedReason, Worth};

/// Over which time the device's load is judged.
const SPAN: Duration = Duration::from_secs(1);
/// From this part of the time on the device counts as busy.
const BUSY: f32 = 0.9;
/// Time for questions that may be saved up, as a span of which the share is taken.
const SAVED: Duration = Duration::from_millis(500);

/// The purse of a query that does not ask for this long is forgotten; it would be full by then.
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
    /// What its user said it is worth.
    pub worth: &'a Worth,
    /// What it is for.
    pub class: Class,
    /// How long ago it was asked last.
    pub waited: Duration,
    /// How long it will take the device, as far as known.
    pub cost: Duration,
    /// When the pixels arrived.
    pub arrived: Instant,
}

/// Time that comes in steadily, and is spent.
#[derive(Debug, Clone, Copy)]
struct Purse {
    /// Seconds; may be overdrawn by what costs more than was thought.
    seconds: f32,
    at: Instant,
}

impl Purse {
    /// Lets time go on: `part` of it comes in, and at most `most` seconds are kept.
    fn refill(&mut self, part: f32, most: f32, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f32();
        self.seconds = (self.seconds + part * passed).min(most);
        self.at = self.at.max(now);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Budget {
    share: f32,
    /// Part of the time the device was at work lately.
    load: f32,
    ended_at: Option<Instant>,
    /// Time for questions while the device is busy.
    purse: Option<Purse>,
    /// Of the queries that have a budget of their own.
    queries: BTreeMap<QueryId, Purse>,
}

impl Budget {
    /// `share` is the most of a busy device's time that goes to questions.
    pub fn new(share: f32) -> Self {
        Self { share, load: 0.0, ended_at: None, purse: None, queries: BTreeMap::new() }
    }

    /// Whether the device has been at work nearly all the time lately.
    pub fn is_busy(&self) -> bool {
        self.load >= BUSY
    }

    /// The device was at work, whatever on, from `began` to `ended`.
    pub fn worked(&mut self, began: Instant, ended: Instant) {
        let idle_since = self.ended_at.unwrap_or(began).min(began);
        let (whole, work) = (ended.saturating_duration_since(idle_since), ended.saturating_duration_since(began));
        if !whole.is_zero() {
            let keep = (-whole.as_secs_f32() / SPAN.as_secs_f32()).exp();
            self.load = self.load * keep + (1.0 - keep) * work.as_secs_f32() / whole.as_secs_f32();
        }
        self.ended_at = Some(ended);
    }

    /// Which of `items` to ask, in their order; `None` is asked. What is asked counts as spent at once.
    pub fn decide(&mut self, items: &[Item<'_>], now: Instant) -> Vec<Option<ShedReason>> {
        let most = self.share * SAVED.as_secs_f32();
        let (busy, share) = (self.is_busy(), self.share);
        let purse = self.purse.get_or_insert(Purse { seconds: most, at: now });
        if busy {
            purse.refill(share, most, now);
        } else {
            *purse = Purse { seconds: most, at: now };
        }
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|i| {
            let item = &items[*i];
            (item.class, std::cmp::Reverse(item.worth.priority), std::cmp::Reverse(item.waited))
        });
        // Of a query that is gone nothing is kept; one that comes back later begins anew.
        self.queries.retain(|_, purse| now.saturating_duration_since(purse.at) < FORGET);
        let mut verdicts = vec![None; items.len()];
        let mut committed = Duration::ZERO;
        for i in order {
            let item = &items[i];
            verdicts[i] = self.verdict(item, busy, committed, now);
            if verdicts[i].is_none() {
                committed += item.cost;
                self.spend(item, busy);
            }
        }
        verdicts
    }

    fn verdict(&mut self, item: &Item<'_>, busy: bool, committed: Duration, now: Instant) -> Option<ShedReason> {
        if busy && self.purse.is_some_and(|purse| purse.seconds <= 0.0) {
            return Some(ShedReason::Busy);
        }
        if let Some(part) = item.worth.budget {
            let purse = self.queries.entry(item.query.clone()).or_insert(Purse { seconds: part, at: now });
            purse.refill(part, part, now);
            if purse.seconds <= 0.0 {
                return Some(ShedReason::Budget);
            }
        }
        let done = now.saturating_duration_since(item.arrived) + committed + item.cost;
        item.worth.deadline.is_some_and(|deadline| done > deadline).then_some(ShedReason::Deadline)
    }

    fn spend(&mut self, item: &Item<'_>, busy: bool) {
        let cost = item.cost.as_secs_f32();
        if let Some(purse) = self.purse.as_mut().filter(|_| busy) {
            purse.seconds -= cost;
        }
        if let Some(purse) = self.queries.get_mut(item.query).filter(|_| item.worth.budget.is_some()) {
            purse.seconds -= cost;
        }
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
