//! Events that wait for the broker: first in, first out, at least once, bounded. Pure state: it takes `now`, and every
//! change comes back as a [`Record`], so that a journal of records is the outbox itself. Knows no files and no broker.
//!
//! Full means that the oldest event goes that is not on its way already. It is counted, and a marker takes its place
//! for the subscribers of its topic, sent before the next event.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::payload;

/// Bytes a record takes beside its topic and payload.
const RECORD_OVERHEAD: usize = 32;

/// One change of the outbox, as the journal keeps it. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// An event came in.
    Event { seq: u64, at: u64, topic: String, payload: Bytes },
    /// An event need not be sent any more; `lost` if it was dropped.
    Done { seq: u64, lost: bool },
    /// What subscribers of a topic still have to be told they missed; replaces what was said before, 0 is nothing.
    Gap { topic: String, gap: Gap },
}

impl Record {
    /// About how many bytes it takes in a journal.
    pub(super) fn size(&self) -> usize {
        let said = match self {
            Self::Event { topic, payload, .. } => topic.len() + payload.len(),
            Self::Done { .. } => 0,
            Self::Gap { topic, .. } => topic.len(),
        };
        RECORD_OVERHEAD + said
    }
}

/// Events that were dropped and not yet announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) lost: u64,
    pub(super) since: u64,
    pub(super) until: u64,
}

/// What was taken from the outbox to be sent; [`Outbox::done`] wants it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parcel {
    Event(u64),
    Gap(String),
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    at: u64,
    topic: String,
    payload: Bytes,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    capacity: usize,
    queue: VecDeque<Entry>,
    /// How many events at the front of the queue are on their way.
    sent: usize,
    gaps: BTreeMap<String, Gap>,
    /// Gap markers on their way, as they were announced.
    announced: BTreeMap<String, Gap>,
    next_seq: u64,
    bytes: usize,
    lost: u64,
}

impl Outbox {
    /// An empty outbox for `capacity` events, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            queue: VecDeque::new(),
            sent: 0,
            gaps: BTreeMap::new(),
            announced: BTreeMap::new(),
            next_seq: 0,
            bytes: 0,
            lost: 0,
        }
    }

    /// The outbox that `records` describe. May hold more than its capacity; the next event settles that.
    pub(super) fn replay(capacity: usize, records: impl IntoIterator<Item = Record>) -> Self {
        let mut outbox = Self::new(capacity);
        records.into_iter().for_each(|record| outbox.apply(record));
        outbox.lost = 0;
        outbox
    }

    /// Takes one more event in. The records say what changed.
    pub(super) fn push(&mut self, topic: String, payload: Bytes, now: SystemTime) -> Vec<Record> {
        let event = Record::Event { seq: self.next_seq, at: millis(now), topic, payload };
        let mut records = vec![event.clone()];
        self.apply(event);
        while self.queue.len() > self.capacity
            && let Some(entry) = self.queue.get(self.sent)
        {
            let lost = Record::Done { seq: entry.seq, lost: true };
            self.apply(lost.clone());
            records.push(lost);
        }
        records
    }

    /// The next thing to send, which then counts as on its way: gap markers before events.
    pub(super) fn take(&mut self) -> Option<(Parcel, String, Bytes)> {
        if let Some((topic, gap)) = self.gaps.iter().find(|(topic, _)| !self.announced.contains_key(*topic)) {
            let (topic, gap) = (topic.clone(), *gap);
            self.announced.insert(topic.clone(), gap);
            let marker = payload::gap(gap.lost, time(gap.since), time(gap.until));
            return Some((Parcel::Gap(topic.clone()), topic, marker));
        }
        let entry = self.queue.get(self.sent)?;
        self.sent += 1;
        Some((Parcel::Event(entry.seq), entry.topic.clone(), entry.payload.clone()))
    }

    /// `parcel` has arrived, or will never be accepted.
    pub(super) fn done(&mut self, parcel: &Parcel) -> Option<Record> {
        let record = match parcel {
            Parcel::Event(seq) => Record::Done { seq: *seq, lost: false },
            Parcel::Gap(topic) => {
                let (told, gap) = (self.announced.remove(topic)?, self.gaps.get(topic)?);
                let rest = Gap { lost: gap.lost.saturating_sub(told.lost), since: told.until, until: gap.until };
                Record::Gap { topic: topic.clone(), gap: rest }
            }
        };
        self.apply(record.clone());
        Some(record)
    }

    /// The connection is gone: nothing is on its way any more.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.announced.clear();
    }

    /// The shortest journal that leads to this outbox.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = Record> {
        let gaps = self.gaps.iter().map(|(topic, gap)| Record::Gap { topic: topic.clone(), gap: *gap });
        let event =
            |e: &Entry| Record::Event { seq: e.seq, at: e.at, topic: e.topic.clone(), payload: e.payload.clone() };
        gaps.chain(self.queue.iter().map(event))
    }

    /// Events that wait or are on their way.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits, gap markers included.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.gaps.is_empty()
    }

    /// About how many bytes its shortest journal has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.queue.len() * RECORD_OVERHEAD
    }

    /// Events dropped since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn apply(&mut self, record: Record) {
        match record {
            // A journal cannot go backwards; a damaged one that seems to is not believed.
            Record::Event { seq, at, topic, payload } if seq >= self.next_seq => {
                self.next_seq = seq.saturating_add(1);
                self.bytes += topic.len() + payload.len();
                self.queue.push_back(Entry { seq, at, topic, payload });
            }
            Record::Event { .. } => {}
            Record::Done { seq, lost } => self.remove(seq, lost),
            Record::Gap { topic, gap } if gap.lost == 0 => drop(self.gaps.remove(&topic)),
            Record::Gap { topic, gap } => drop(self.gaps.insert(topic, gap)),
        }
    }

    fn remove(&mut self, seq: u64, lost: bool) {
        let Ok(index) = self.queue.binary_search_by_key(&seq, |e| e.seq) else { return };
        let Some(entry) = self.queue.remove(index) else { return };
        self.bytes -= entry.topic.len() + entry.payload.len();
        if index < self.sent {
            self.sent -= 1;
        }
        if lost {
            self.lost += 1;
            let gap = self.gaps.entry(entry.topic).or_insert(Gap { lost: 0, since: entry.at, until: entry.at });
            gap.lost += 1;
            gap.until = gap.until.max(entry.at);
        }
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a test does to the outbox.
    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Take,
        Ack,
        Rewind,
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u8..3).prop_map(Step::Push),
            3 => Just(Step::Take),
            3 => Just(Step::Ack),
            1 => Just(Step::Rewind),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 0..300)
    }

    /// Everything a subscriber got, with the journal that was written on the way.
    #[derive(Default)]
    struct World {
        journal: Vec<Record>,
        flight: VecDeque<(Parcel, String, Bytes)>,
        /// Events in the order they were sent, re-sends included.
        sent: Vec<u64>,
        acked: Vec<u64>,
        told: BTreeMap<String, u64>,
        pushed: u64,
        lost_before_restart: u64,
    }

    fn number(payload: &Bytes) -> u64 {
        std::str::from_utf8(payload).unwrap().parse().unwrap()
    }

    impl World {
        fn step(&mut self, outbox: &mut Outbox, step: &Step, capacity: usize) {
            match step {
                Step::Push(topic) => {
                    let payload = Bytes::from(self.pushed.to_string());
                    self.journal.extend(outbox.push(format!("t{topic}"), payload, time(self.pushed)));
                    self.pushed += 1;
                }
                Step::Take => {
                    if let Some(parcel) = outbox.take() {
                        if let (Parcel::Event(_), _, payload) = &parcel {
                            self.sent.push(number(payload));
                        }
                        self.flight.push_back(parcel);
                    }
                }
                Step::Ack => {
                    if let Some((parcel, topic, payload)) = self.flight.pop_front() {
                        self.journal.extend(outbox.done(&parcel));
                        match parcel {
                            Parcel::Event(_) => self.acked.push(number(&payload)),
                            Parcel::Gap(_) => {
                                let marker: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                                *self.told.entry(topic).or_default() += marker["lost"].as_u64().unwrap();
                            }
                        }
                    }
                }
                Step::Rewind => {
                    outbox.rewind();
                    self.flight.clear();
                }
                Step::Restart => {
                    self.lost_before_restart += outbox.lost();
                    *outbox = Outbox::replay(capacity, self.journal.clone());
                    self.flight.clear();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_event_is_acknowledged_in_order_or_counted_and_announced(
            steps in steps(), capacity in 1usize..12,
        ) {
            let (mut outbox, mut world) = (Outbox::new(capacity), World::default());
            for step in &steps {
                world.step(&mut outbox, step, capacity);
                prop_assert!(outbox.waiting() <= capacity);
                prop_assert!(outbox.sent <= outbox.queue.len());
            }
            // The broker comes back for good: everything must drain.
            world.step(&mut outbox, &Step::Rewind, capacity);
            while !outbox.is_empty() {
                world.step(&mut outbox, &Step::Take, capacity);
                world.step(&mut outbox, &Step::Ack, capacity);
            }
            let lost = world.lost_before_restart + outbox.lost();
            prop_assert!(world.acked.is_sorted_by(|a, b| a < b), "{:?}", world.acked);
            prop_assert_eq!(world.acked.len() as u64 + lost, world.pushed);
            // A marker that was sent but not acknowledged is sent again with its whole count.
            prop_assert_eq!(world.told.values().sum::<u64>(), lost);
            prop_assert_eq!(outbox.bytes(), 0);
        }

        #[test]
        fn a_journal_and_its_snapshot_are_the_same_outbox(steps in steps(), capacity in 1usize..12) {
            let (mut outbox, mut world) = (Outbox::new(capacity), World::default());
            for step in &steps {
                world.step(&mut outbox, step, capacity);
            }
            let state = |o: &Outbox| o.snapshot().collect::<Vec<_>>();
            let replayed = Outbox::replay(capacity, world.journal);
            prop_assert_eq!(state(&outbox), state(&replayed));
            prop_assert_eq!(state(&Outbox::replay(capacity, outbox.snapshot())), state(&outbox));
            prop_assert_eq!(replayed.bytes(), outbox.bytes());
        }
    }

    #[test]
    fn events_on_their_way_are_not_dropped_for_new_ones() {
        let mut outbox = Outbox::new(3);
        for i in 0..3u64 {
            outbox.push("t".into(), Bytes::from(i.to_string()), time(i));
        }
        let (first, ..) = outbox.take().unwrap();
        outbox.push("t".into(), Bytes::from_static(b"3"), time(3));
        assert_eq!(outbox.lost(), 1);
        outbox.done(&first);
        let (parcel, topic, marker) = outbox.take().unwrap();
        assert_eq!((parcel, topic.as_str()), (Parcel::Gap("t".into()), "t"));
        let marker: serde_json::Value = serde_json::from_slice(&marker).unwrap();
        assert_eq!((&marker["type"], &marker["lost"]), (&"gap".into(), &1.into()));
        assert_eq!(outbox.take().unwrap().2, "2");
        assert_eq!(outbox.take().unwrap().2, "3");
        assert_eq!(outbox.take(), None);
    }
}
