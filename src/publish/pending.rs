//! What belongs on disk and is not there yet: changes of the outbox and of the list of topics. Pure state: it takes `now`.
//! Whoever writes takes it away in batches, so that nobody who has something to say waits for a disk.
//!
//! What is pending, after what is in the file, is the outbox. Where a part of that is lost, for the disk failed or was away for
//! too long, the file lacks something until it is written anew, the whole outbox.

use std::{
    collections::BTreeSet,
    io, mem,
    time::{Duration, Instant},
};

use super::outbox::{Outbox, Record};

/// So many bytes wait for a disk. Instead of more, all of the outbox does, which is bounded.
const MOST: usize = 1 << 20;
/// How long what could not be written is left alone.
pub(super) const MEND: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Pending {
    records: Vec<Record>,
    bytes: usize,
    /// Something is neither in the file nor pending.
    lacking: bool,
    /// Somebody has a batch in hand.
    writing: bool,
    /// The file is not written anew before.
    mend_at: Instant,
    /// None where no list can be kept.
    topics: Option<Topics>,
    course: Course,
}

/// The list of what the broker keeps for us.
#[derive(Debug)]
struct Topics {
    all: BTreeSet<String>,
    /// The disk has it.
    noted: bool,
    /// It is not tried before.
    note_at: Instant,
}

/// Whether more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    GoesOn,
    /// What is taken now is the last.
    Ends,
    Over,
}

/// What is to be written at a time.
#[derive(Debug)]
pub(super) struct Batch {
    /// To be added to the file, unless it is written anew.
    pub(super) records: Vec<Record>,
    /// What the file is to consist of.
    pub(super) whole: Option<Vec<Record>>,
    /// The file lacks something, and still does if these records are added to it.
    pub(super) lacking: bool,
    /// What the list of topics is to consist of.
    pub(super) topics: Option<BTreeSet<String>>,
}

/// How that went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) spool: io::Result<()>,
    /// The file lacks something.
    pub(super) lacking: bool,
    /// None if the list was not to be written.
    pub(super) topics: Option<io::Result<()>>,
}

impl Pending {
    /// Nothing, beside a file and a list of `topics` that are as they should be.
    pub(super) fn new(topics: Option<BTreeSet<String>>, now: Instant) -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
            lacking: false,
            writing: false,
            mend_at: now,
            topics: topics.map(|all| Topics { all, noted: true, note_at: now }),
            course: Course::GoesOn,
        }
    }

    /// The outbox changed.
    pub(super) fn push(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.bytes += record.size();
            self.records.push(record);
        }
        if self.bytes > MOST {
            (self.records, self.bytes, self.lacking) = (Vec::new(), 0, true);
        }
    }

    /// The broker will keep a value under `topic`, or none any more. Whether that is new.
    pub(super) fn note(&mut self, topic: &str, value: bool) -> bool {
        let Some(topics) = self.topics.as_mut().filter(|topics| topics.all.contains(topic) != value) else {
            return false;
        };
        topics.noted = false;
        if value {
            topics.all.insert(topic.to_owned());
        } else {
            topics.all.remove(topic);
        }
        true
    }

    /// No more comes.
    pub(super) fn end(&mut self) {
        if self.course == Course::GoesOn {
            self.course = Course::Ends;
        }
    }

    /// Whether the last batch was taken.
    pub(super) fn is_over(&self) -> bool {
        self.course == Course::Over
    }

    /// Whether the file is the outbox.
    pub(super) fn is_written(&self) -> bool {
        self.records.is_empty() && !self.writing && !self.lacking
    }

    /// How long until there is something to write; `None` is until something changes.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.course == Course::Ends || !self.records.is_empty() {
            return Some(Duration::ZERO);
        }
        let anew = self.lacking.then_some(self.mend_at);
        let noting = self.topics.as_ref().filter(|topics| !topics.noted).map(|topics| topics.note_at);
        anew.into_iter().chain(noting).min().map(|at| at.saturating_duration_since(now))
    }

    /// Takes what is to be written now, of which [`Self::wrote`] is to hear. The file is written anew if it lacks something, or
    /// is `stale`; not over and over, for a disk that has room for a word now and then.
    pub(super) fn take(&mut self, outbox: &Outbox, stale: bool, now: Instant) -> Batch {
        let last = self.course == Course::Ends;
        let is_due = |at| last || now >= at;
        let lacking = mem::take(&mut self.lacking);
        let whole = ((lacking || stale) && is_due(self.mend_at)).then(|| outbox.snapshot().collect());
        let topics = self.topics.as_mut().filter(|topics| !topics.noted && is_due(topics.note_at)).map(|topics| {
            topics.noted = true;
            topics.all.clone()
        });
        (self.bytes, self.writing) = (0, true);
        if last {
            self.course = Course::Over;
        }
        Batch { records: mem::take(&mut self.records), whole, lacking, topics }
    }

    /// How the batch went that was taken.
    pub(super) fn wrote(&mut self, outcome: &Outcome, now: Instant) {
        self.writing = false;
        // Meanwhile too much may have come.
        self.lacking |= outcome.lacking;
        if outcome.spool.is_err() {
            self.mend_at = now + MEND;
        }
        if let (Some(topics), Some(Err(_))) = (&mut self.topics, &outcome.topics) {
            (topics.noted, topics.note_at) = (false, now + MEND);
        }
    }

    /// The topics the broker keeps a value of ours under, as far as that is known.
    pub(super) fn topics(&self) -> Option<&BTreeSet<String>> {
        self.topics.as_ref().map(|topics| &topics.all)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// What happens to an outbox, what is pending of it, and a disk.
    #[derive(Debug, Clone)]
    enum Step {
        /// An event of so many kilobytes.
        Push(u16),
        Send,
        Ack,
        /// A batch is taken, while the file is all history or not.
        Take(bool),
        /// It was written: whole, or with no room for a second file, or for nothing.
        Wrote(Room),
        Wait(u16),
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Room {
        Enough,
        ForRecords,
        None,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let room = prop_oneof![3 => Just(Room::Enough), 1 => Just(Room::ForRecords), 1 => Just(Room::None)];
        let step = prop_oneof![
            6 => (0u16..400).prop_map(Step::Push),
            3 => Just(Step::Send),
            3 => Just(Step::Ack),
            4 => any::<bool>().prop_map(Step::Take),
            4 => room.prop_map(Step::Wrote),
            1 => (0u16..2000).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// The file as records, written as the keeper does it.
    fn write(file: &mut Vec<Record>, batch: Batch, room: Room) -> Outcome {
        let failed = || Err(io::ErrorKind::StorageFull.into());
        let (spool, lacking) = match (batch.whole, room) {
            (Some(whole), Room::Enough) => {
                *file = whole;
                (Ok(()), false)
            }
            (_, Room::None) => (failed(), true),
            (whole, _) => {
                file.extend(batch.records);
                (whole.map_or(Ok(()), |_| failed()), batch.lacking)
            }
        };
        Outcome { spool, lacking, topics: None }
    }

    fn state(outbox: &Outbox) -> Vec<Record> {
        outbox.snapshot().collect()
    }

    struct World {
        now: Instant,
        outbox: Outbox,
        pending: Pending,
        flight: Vec<super::super::outbox::Parcel>,
        file: Vec<Record>,
        in_hand: Option<Batch>,
    }

    impl World {
        fn step(&mut self, step: &Step) {
            match step {
                Step::Push(kilobytes) => {
                    let payload = Bytes::from(vec![0; usize::from(*kilobytes) << 10]);
                    self.pending.push(self.outbox.push("t".into(), payload, SystemTime::UNIX_EPOCH));
                }
                Step::Send => self.flight.extend(self.outbox.take().map(|(parcel, ..)| parcel)),
                Step::Ack if self.flight.is_empty() => {}
                Step::Ack => self.pending.push(self.outbox.done(&self.flight.remove(0))),
                Step::Take(stale) if self.in_hand.is_none() => {
                    self.in_hand = Some(self.pending.take(&self.outbox, *stale, self.now));
                }
                Step::Take(_) => {}
                Step::Wrote(room) => {
                    if let Some(batch) = self.in_hand.take() {
                        let outcome = write(&mut self.file, batch, *room);
                        self.pending.wrote(&outcome, self.now);
                    }
                }
                Step::Wait(millis) => self.now += Duration::from_millis((*millis).into()),
            }
        }
    }

    proptest! {
        #[test]
        fn a_file_that_is_told_to_be_written_is_the_outbox(steps in steps(), capacity in 1usize..12) {
            let now = Instant::now();
            let (outbox, pending) = (Outbox::new(capacity), Pending::new(None, now));
            let mut world = World { now, outbox, pending, flight: Vec::new(), file: Vec::new(), in_hand: None };
            for step in &steps {
                world.step(step);
                prop_assert!(world.pending.bytes <= MOST);
                if world.pending.is_written() {
                    let found = Outbox::replay(capacity, world.file.clone());
                    prop_assert_eq!(state(&found), state(&world.outbox));
                }
            }
            // The disk works for good, and nothing more happens: it is all written, by itself.
            world.step(&Step::Wrote(Room::Enough));
            while let Some(wait) = world.pending.wait(world.now) {
                world.now += wait;
                world.step(&Step::Take(false));
                world.step(&Step::Wrote(Room::Enough));
            }
            prop_assert!(world.pending.is_written());
            prop_assert_eq!(state(&Outbox::replay(capacity, world.file)), state(&world.outbox));
        }
    }

    fn failed() -> Outcome {
        let no = || Err(io::ErrorKind::StorageFull.into());
        Outcome { spool: no(), lacking: true, topics: Some(no()) }
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while_and_at_the_end() {
        let (now, outbox) = (Instant::now(), Outbox::new(1));
        let mut pending = Pending::new(Some(BTreeSet::new()), now);
        assert_eq!(pending.wait(now), None);
        pending.push([Record::Done { seq: 0, lost: false }]);
        pending.note("t", true);
        assert_eq!(pending.wait(now), Some(Duration::ZERO));
        assert!(pending.take(&outbox, false, now).topics.is_some());
        pending.wrote(&failed(), now);
        assert!(!pending.is_written());
        assert_eq!(pending.wait(now), Some(MEND));
        // What comes meanwhile is tried at once, but not all the rest with it.
        pending.push([Record::Done { seq: 1, lost: false }]);
        assert_eq!(pending.wait(now), Some(Duration::ZERO));
        let batch = pending.take(&outbox, true, now);
        assert_eq!((batch.records.len(), batch.lacking, batch.whole, batch.topics), (1, true, None, None));
        pending.wrote(&failed(), now);
        pending.end();
        let last = pending.take(&outbox, false, now);
        assert!(last.whole.is_some() && last.topics.is_some() && pending.is_over());
    }

    #[test]
    fn a_topic_is_noted_when_it_comes_and_when_it_goes() {
        let (now, outbox) = (Instant::now(), Outbox::new(1));
        let mut pending = Pending::new(Some(BTreeSet::from(["old".to_owned()])), now);
        for (topic, value) in [("old", true), ("never", false)] {
            pending.note(topic, value);
            assert_eq!(pending.wait(now), None, "{topic}");
        }
        pending.note("new", true);
        pending.note("old", false);
        assert_eq!(pending.take(&outbox, false, now).topics, Some(BTreeSet::from(["new".to_owned()])));
        assert_eq!(pending.wait(now), None);
    }
}
