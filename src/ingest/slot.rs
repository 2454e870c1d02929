//! The place where one camera's frames wait, and the only overflow policy between camera and scheduler.
//!
//! Plain synchronous state: the producer is a GStreamer thread, the consumer a task that sleeps on `ready`.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::types::{DropReason, Frame, lock};

/// What happens to a frame that finds its slot full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It takes the waiting frame's place: stale pixels are worthless. The camera suffers nothing.
    Latest,
    /// The producer waits: no frame is ever lost, and the source runs as fast as the model.
    Every {
        /// Frames that may wait; at least one.
        capacity: usize,
    },
}

/// What the producer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Nobody will take frames any more.
    Closed,
}

/// A camera's waiting frames.
pub struct Slot {
    policy: Policy,
    /// Shared by all cameras of one scheduler, which then looks at every slot.
    ready: Arc<Notify>,
    state: Mutex<State>,
    /// Wakes a producer that waits for room.
    room: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Frame>,
    closed: bool,
    /// When frames come, and when they are taken.
    comes: Beat,
    goes: Beat,
}

/// Something that happens over and over.
#[derive(Debug, Default)]
struct Beat {
    last: Option<Instant>,
    gap: Duration,
}

impl Beat {
    fn strike(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.gap = now.saturating_duration_since(last);
        }
    }

    /// When it is due next, if that is known.
    fn next(&self) -> Option<Instant> {
        self.last.map(|last| last + self.gap)
    }
}

impl Slot {
    /// An empty slot that notifies `ready` when there is something to take.
    pub fn new(policy: Policy, ready: Arc<Notify>) -> Self {
        Self { policy, ready, state: Mutex::default(), room: Condvar::new() }
    }

    /// A frame has come. Whether it will probably be looked at: the next one is not due before one is taken. Then the producer
    /// should do what is left to be done to it, while the model is at work on others; to the rest it would be done for nothing.
    pub fn expects(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        state.comes.strike(now);
        self.policy != Policy::Latest || state.goes.next().is_none_or(|taken| now + state.comes.gap >= taken)
    }

    /// Hands a frame over. `Latest` never waits; `Every` waits until there is room or the slot is closed.
    pub fn offer(&self, frame: Frame) -> Flow {
        let mut state = lock(&self.state);
        if let Policy::Every { capacity } = self.policy {
            let full = |s: &mut State| !s.closed && s.waiting.len() >= capacity.max(1);
            state = self.room.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            frame.ticket.drop_for(DropReason::Shutdown);
            return Flow::Closed;
        }
        if self.policy == Policy::Latest
            && let Some(old) = state.waiting.pop_front()
        {
            old.ticket.drop_for(DropReason::Superseded);
        }
        state.waiting.push_back(frame);
        drop(state);
        self.ready.notify_one();
        Flow::Continue
    }

    /// Takes the oldest waiting frame.
    pub fn take(&self, now: Instant) -> Option<Frame> {
        let mut state = lock(&self.state);
        let frame = state.waiting.pop_front();
        if frame.is_some() {
            state.goes.strike(now);
            self.room.notify_one();
        }
        frame
    }

    /// Ends the producer's side: frames that wait can still be taken, further offers are refused.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.room.notify_all();
        self.ready.notify_one();
    }

    /// Whether it is closed and everything was taken.
    pub fn is_drained(&self) -> bool {
        let state = lock(&self.state);
        state.closed && state.waiting.is_empty()
    }
}

impl Drop for Slot {
    /// Frames that nobody took ended with the camera.
    fn drop(&mut self) {
        for frame in &lock(&self.state).waiting {
            frame.ticket.drop_for(DropReason::Shutdown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::types::{Ledger, Size};

    fn frame(ledger: &Arc<Ledger>, seq: u64) -> Frame {
        Frame { seq, ..Frame::black("cam", ledger, Size::new(1, 1), Size::new(1, 1)) }
    }

    proptest! {
        #[test]
        fn latest_always_yields_the_newest_and_accounts_for_the_rest(takes in proptest::collection::vec(any::<bool>(), 0..60)) {
            let (ledger, slot) = (Arc::new(Ledger::default()), Slot::new(Policy::Latest, Arc::default()));
            let (mut newest, mut taken) = (None, 0);
            for (seq, take) in (0u64..).zip(&takes) {
                prop_assert_eq!(slot.offer(frame(&ledger, seq)), Flow::Continue);
                newest = Some(seq);
                if *take {
                    let got = slot.take(Instant::now()).unwrap();
                    prop_assert_eq!(Some(got.seq), newest.take());
                    got.ticket.publish();
                    taken += 1;
                    prop_assert!(slot.take(Instant::now()).is_none());
                }
            }
            let waiting = u64::from(newest.is_some());
            prop_assert_eq!(ledger.dropped(DropReason::Superseded), takes.len() as u64 - taken - waiting);
            drop(slot);
            prop_assert_eq!(ledger.dropped(DropReason::Shutdown), waiting);
            prop_assert_eq!((ledger.in_flight(), ledger.dropped(DropReason::Lost)), (0, 0));
        }

        #[test]
        fn every_yields_all_in_order_and_never_holds_more_than_its_capacity(
            capacity in 1usize..5, count in 0u64..80, pause in 0u64..3,
        ) {
            let (ledger, ready) = (Arc::new(Ledger::default()), Arc::new(Notify::new()));
            let slot = Arc::new(Slot::new(Policy::Every { capacity }, ready));
            let producer = {
                let (slot, ledger) = (Arc::clone(&slot), Arc::clone(&ledger));
                thread::spawn(move || {
                    for seq in 0..count { slot.offer(frame(&ledger, seq)); }
                    slot.close();
                })
            };
            let mut next = 0;
            while !slot.is_drained() {
                prop_assert!(lock(&slot.state).waiting.len() <= capacity);
                match slot.take(Instant::now()) {
                    Some(got) => {
                        prop_assert_eq!(got.seq, next);
                        next += 1;
                        got.ticket.publish();
                    }
                    None => thread::sleep(Duration::from_micros(pause * 10)),
                }
            }
            producer.join().unwrap();
            prop_assert_eq!((next, ledger.published()), (count, count));
        }
    }

    #[test]
    fn a_frame_that_a_newer_one_will_replace_is_not_expected() {
        let (ledger, start) = (Arc::new(Ledger::default()), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let slot = Slot::new(Policy::Latest, Arc::default());
        let come = |slot: &Slot, millis: u64| {
            let expected = slot.expects(at(millis));
            slot.offer(frame(&ledger, millis));
            expected
        };
        let take = |slot: &Slot, millis: u64| slot.take(at(millis)).unwrap().ticket.publish();
        // Nothing is known yet, and then every frame is taken at once.
        for millis in [0, 60, 120] {
            assert!(come(&slot, millis));
            take(&slot, millis + 1);
        }
        // That one in three is taken from now on is known after the first time.
        for millis in [180, 240, 300] {
            assert!(come(&slot, millis));
        }
        take(&slot, 301);
        let expected = [360, 420, 480, 540].map(|millis| come(&slot, millis));
        assert_eq!(
            expected,
            [false, false, true, true],
            "the last before the taking, and whatever comes once it is due"
        );
        let every = Slot::new(Policy::Every { capacity: 9 }, Arc::default());
        come(&every, 0);
        come(&every, 1);
        take(&every, 1);
        take(&every, 3_600_000);
        assert!(come(&every, 3_600_001), "no frame is replaced");
    }

    #[test]
    fn closing_frees_a_waiting_producer_and_settles_its_frame() {
        let (ledger, slot) =
            (Arc::new(Ledger::default()), Arc::new(Slot::new(Policy::Every { capacity: 1 }, Arc::default())));
        assert_eq!(slot.offer(frame(&ledger, 0)), Flow::Continue);
        let producer = {
            let (slot, ledger) = (Arc::clone(&slot), Arc::clone(&ledger));
            thread::spawn(move || slot.offer(frame(&ledger, 1)))
        };
        thread::sleep(Duration::from_millis(50));
        assert!(!producer.is_finished(), "a full slot must hold its producer");
        slot.close();
        assert_eq!(producer.join().unwrap(), Flow::Closed);
        assert_eq!(ledger.dropped(DropReason::Shutdown), 1);
        assert!(!slot.is_drained());
        assert_eq!(slot.take(Instant::now()).map(|f| f.seq), Some(0));
        assert!(slot.is_drained());
    }

    #[tokio::test]
    async fn offering_and_closing_both_wake_the_consumer() {
        let (ledger, ready) = (Arc::new(Ledger::default()), Arc::new(Notify::new()));
        let slot = Slot::new(Policy::Latest, Arc::clone(&ready));
        let rings = || tokio::time::timeout(Duration::from_secs(5), ready.notified());
        slot.offer(frame(&ledger, 0));
        rings().await.expect("a frame rings");
        slot.close();
        rings().await.expect("the end rings");
    }
}
