//! What the publisher's handles and its task both touch: what waits, the connection's state, the counters.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{
    Connection, PublishError, PublishStats, Refused, Sink,
    message::{Delivery, Message},
    outbox::{Outbox, Parcel, Record},
    pending::{Batch, Outcome, Pending},
    states::States,
};
use crate::types::{Reminder, lock};

/// How long a message that must not be dropped waits before it is offered again.
const ROOM: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Shared {
    /// Never held while anything is waited for, a disk least of all.
    waiting: Mutex<Waiting>,
    /// Something is to be written to disk.
    to_disk: Condvar,
    /// The connection, while there is one: live messages go straight to it.
    sink: Mutex<Option<Arc<dyn Sink>>>,
    /// Something new waits.
    pub(super) wake: Notify,
    /// Set once, when the publisher is to stop.
    pub(super) closing: watch::Sender<Option<Closing>>,
    pub(super) connection: watch::Sender<Connection>,
    counters: Counters,
    /// Tells that live messages are larger than the broker takes.
    too_large: Mutex<Reminder>,
    refusals: Mutex<Reminder>,
}

/// By when what waits must be out, and by when the publisher must have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub(super) flush_until: Instant,
    pub(super) until: Instant,
}

struct Waiting {
    states: States,
    /// Topics of earlier starts that nobody has set yet.
    leftovers: BTreeSet<String>,
    outbox: Outbox,
    /// What is not on disk yet; none without a folder.
    pending: Option<Pending>,
    /// Whose turn it is, when both have something to say.
    events_first: bool,
}

impl Waiting {
    fn take_state(&mut self) -> Option<(Item, Message)> {
        let (topic, version, payload) = self.states.take()?;
        let item = Item::State { topic: topic.clone(), version };
        Some((item, Message { topic, payload, delivery: Delivery::State }))
    }
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    sent_live: AtomicU64,
    dropped_live: AtomicU64,
    states_acked: AtomicU64,
    events_acked: AtomicU64,
    events_refused: AtomicU64,
    refused: AtomicU64,
    spool_errors: AtomicU64,
}

/// What was taken to be sent; [`Shared::done`] wants it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// The publisher's own `online` or `offline`.
    Status,
    State {
        topic: String,
        version: u64,
    },
    Event(Parcel),
}

impl Item {
    /// Where it was to go, for people.
    fn place(&self) -> &str {
        match self {
            Self::Status => "the status topic",
            Self::State { topic, .. } => topic,
            Self::Event(_) => "an events topic",
        }
    }
}

/// How much of what waits is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spooled {
    Nowhere,
    /// Not what came last, or since it could be written last.
    InPart,
    Whole,
}

impl Shared {
    /// `pending` is where there is somebody to write it.
    pub(super) fn new(outbox: Outbox, pending: Option<Pending>) -> Self {
        let leftovers = pending.as_ref().and_then(Pending::topics).cloned().unwrap_or_default();
        let waiting = Waiting { states: States::default(), leftovers, outbox, pending, events_first: false };
        let connection =
            Connection { up: false, since: SystemTime::now(), reason: Some("not connected yet".into()), reconnects: 0 };
        Self {
            waiting: Mutex::new(waiting),
            to_disk: Condvar::new(),
            sink: Mutex::default(),
            wake: Notify::new(),
            closing: watch::Sender::new(None),
            connection: watch::Sender::new(connection),
            counters: Counters::default(),
            too_large: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    pub(super) fn live(&self, message: &Message) -> Result<(), Refused> {
        self.count(message, self.offer(message))
    }

    /// Tries until the connection takes it.
    pub(super) async fn live_in_time(&self, message: &Message) -> Result<(), Refused> {
        let mut connection = self.connection.subscribe();
        loop {
            match self.offer(message) {
                // The sender lives in `self`, so waiting cannot fail.
                Err(Refused::Offline) => drop(connection.wait_for(|connection| connection.up).await),
                Err(Refused::Backlogged) => {}
                result => return self.count(message, result),
            }
            sleep(ROOM).await;
        }
    }

    fn offer(&self, message: &Message) -> Result<(), Refused> {
        let sink = lock(&self.sink).clone();
        sink.map_or(Err(Refused::Offline), |sink| sink.offer(message))
    }

    fn count(&self, message: &Message, result: Result<(), Refused>) -> Result<(), Refused> {
        if let Err(Refused::TooLarge { size, limit }) = result
            && lock(&self.too_large).is_due(Instant::now().into_std())
        {
            tracing::warn!(
                "a message on {} has {size} bytes and is not published: the broker takes {limit} at most; raise its limit (`max_packet_size` \
                 of mosquitto), or ask the camera fewer queries",
                message.topic
            );
        }
        let counter = if result.is_ok() { &self.counters.sent_live } else { &self.counters.dropped_live };
        counter.fetch_add(1, Relaxed);
        result
    }

    pub(super) fn state(&self, topic: String, payload: Bytes) {
        let mut waiting = lock(&self.waiting);
        if !payload.is_empty() {
            waiting.leftovers.remove(&topic);
            self.note(&mut waiting, &topic, true);
        }
        waiting.states.set(topic, payload);
        drop(waiting);
        self.wake.notify_one();
    }

    /// Clears what earlier starts left at the broker and this one has not set, but for what is to be kept for now.
    pub(super) fn take_back(&self, stays: impl Fn(&str) -> bool) {
        let mut waiting = lock(&self.waiting);
        let (kept, gone): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut waiting.leftovers).into_iter().partition(|topic| stays(topic));
        waiting.leftovers = kept;
        if !gone.is_empty() {
            tracing::info!(topics = gone.len(), "taking back what an earlier start told and this one does not");
        }
        for topic in gone {
            waiting.states.set(topic, Bytes::new());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(super) fn event(&self, topic: String, payload: Bytes, now: SystemTime) {
        let mut waiting = lock(&self.waiting);
        let records = waiting.outbox.push(topic, payload, now);
        self.journal(&mut waiting, records);
        drop(waiting);
        self.wake.notify_one();
    }

    /// The next thing to send. States and events take turns, so that neither can keep the other waiting.
    pub(super) fn take(&self) -> Option<(Item, Message)> {
        let mut waiting = lock(&self.waiting);
        waiting.events_first = !waiting.events_first;
        let event = |waiting: &mut Waiting| {
            let (parcel, topic, payload) = waiting.outbox.take()?;
            Some((Item::Event(parcel), Message { topic, payload, delivery: Delivery::Event }))
        };
        if waiting.events_first {
            event(&mut waiting).or_else(|| waiting.take_state())
        } else {
            waiting.take_state().or_else(|| event(&mut waiting))
        }
    }

    /// The next state to send, whoever's turn it is.
    pub(super) fn take_state(&self) -> Option<(Item, Message)> {
        lock(&self.waiting).take_state()
    }

    /// The broker has `item`, or (`refusal`) will never take it.
    pub(super) fn done(&self, item: &Item, refusal: Option<&str>) {
        if let Some(why) = refusal {
            let before = self.counters.refused.fetch_add(1, Relaxed);
            // The first refusals say what is wrong, and then one a minute; a broker that refuses everything must not fill the log.
            if before < 10 || lock(&self.refusals).is_due(Instant::now().into_std()) {
                tracing::warn!("the broker refused a message on {}, which is dropped: {why}", item.place());
            }
        }
        let mut waiting = lock(&self.waiting);
        match item {
            Item::Status => {}
            Item::State { topic, version } => {
                waiting.states.done(topic, *version);
                if !waiting.states.knows(topic) {
                    self.note(&mut waiting, topic, false);
                }
                self.counters.states_acked.fetch_add(u64::from(refusal.is_none()), Relaxed);
            }
            Item::Event(parcel) => {
                let record = waiting.outbox.done(parcel);
                self.journal(&mut waiting, record);
                let Counters { events_acked, events_refused, .. } = &self.counters;
                let counter = if refusal.is_none() { events_acked } else { events_refused };
                // What tells of a gap is no event.
                counter.fetch_add(u64::from(matches!(parcel, Parcel::Event(_))), Relaxed);
            }
        }
    }

    /// `item` broke the connection, repeatedly: it is not sent again.
    pub(super) fn give_up(&self, item: &Item, why: &str) {
        if let Item::State { topic, version } = item {
            lock(&self.waiting).states.forget(topic, *version);
        }
        self.done(item, Some(why));
    }

    /// Whether events that wait outlive the process.
    pub(super) fn spooled(&self) -> Spooled {
        match &lock(&self.waiting).pending {
            None => Spooled::Nowhere,
            Some(pending) if pending.is_written() => Spooled::Whole,
            Some(_) => Spooled::InPart,
        }
    }

    /// Whether nothing waits and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.outbox.is_empty() && waiting.states.is_empty()
    }

    /// There is a connection, whose broker knows nothing. Returns how many states it is to be told.
    pub(super) fn up(&self, sink: Arc<dyn Sink>) -> usize {
        let states = {
            let mut waiting = lock(&self.waiting);
            waiting.outbox.rewind();
            waiting.states.rewind();
            waiting.states.waiting()
        };
        *lock(&self.sink) = Some(sink);
        self.connection.send_modify(|c| {
            c.reconnects = self.counters.connections.fetch_add(1, Relaxed);
            (c.up, c.since, c.reason) = (true, SystemTime::now(), None);
        });
        states
    }

    /// Says once what is wrong, not at every attempt.
    pub(super) fn down(&self, error: &PublishError) {
        *lock(&self.sink) = None;
        let reason = error.to_string();
        self.connection.send_if_modified(|c| {
            if !c.up && c.reason.as_deref() == Some(&reason) {
                return false;
            }
            tracing::warn!("{reason}");
            if c.up {
                (c.up, c.since) = (false, SystemTime::now());
            }
            c.reason = Some(reason);
            true
        });
    }

    /// The publisher was closed.
    pub(super) fn gone(&self) {
        *lock(&self.sink) = None;
        self.connection.send_modify(|c| {
            (c.up, c.since, c.reason) = (false, SystemTime::now(), Some("closed".to_owned()));
        });
    }

    pub(super) fn stats(&self) -> PublishStats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let (up, reconnects) = {
            let connection = self.connection.borrow();
            (connection.up, connection.reconnects)
        };
        let c = &self.counters;
        let waiting = lock(&self.waiting);
        PublishStats {
            up,
            reconnects,
            connects: get(&c.connections),
            sent_live: get(&c.sent_live),
            dropped_live: get(&c.dropped_live),
            states_acked: get(&c.states_acked),
            states_waiting: waiting.states.waiting() as u64,
            events_acked: get(&c.events_acked),
            events_waiting: waiting.outbox.waiting() as u64,
            events_lost: waiting.outbox.lost(),
            events_refused: get(&c.events_refused),
            refused: get(&c.refused),
            spool_errors: get(&c.spool_errors),
        }
    }

    fn journal(&self, waiting: &mut Waiting, records: impl IntoIterator<Item = Record>) {
        let Some(pending) = &mut waiting.pending else { return };
        pending.push(records);
        self.to_disk.notify_one();
    }

    fn note(&self, waiting: &mut Waiting, topic: &str, value: bool) {
        let Some(pending) = &mut waiting.pending else { return };
        // Values change all the time, topics hardly ever.
        if pending.note(topic, value) {
            self.to_disk.notify_one();
        }
    }

    /// Waits until something is to be written to disk, and takes it; `None` once no more comes. `is_stale` says of the bytes that
    /// the outbox would take whether the file should be written anew.
    pub(super) fn to_write(&self, is_stale: impl Fn(usize) -> bool) -> Option<Batch> {
        let mut waiting = lock(&self.waiting);
        loop {
            let Waiting { outbox, pending, .. } = &mut *waiting;
            let (pending, now) = (pending.as_mut().filter(|pending| !pending.is_over())?, Instant::now().into_std());
            waiting = match pending.wait(now) {
                Some(Duration::ZERO) => return Some(pending.take(outbox, is_stale(outbox.bytes()), now)),
                Some(limit) => self.to_disk.wait_timeout(waiting, limit).unwrap_or_else(PoisonError::into_inner).0,
                None => self.to_disk.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// How that went.
    pub(super) fn wrote(&self, outcome: &Outcome) {
        self.counters.spool_errors.fetch_add(u64::from(outcome.spool.is_err()), Relaxed);
        if let Some(pending) = &mut lock(&self.waiting).pending {
            pending.wrote(outcome, Instant::now().into_std());
        }
    }

    /// Nothing more comes that is to be written: what is pending is tried once more.
    pub(super) fn end_writing(&self) {
        if let Some(pending) = &mut lock(&self.waiting).pending {
            pending.end();
        }
        self.to_disk.notify_one();
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
