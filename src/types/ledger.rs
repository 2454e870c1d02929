//! The frame account: every frame ends as published or as dropped for a reason, and the sums prove it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// Why a frame was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A newer frame of the same camera took its place before the model was free.
    Superseded,
    /// It was older than the deadline when a batch was cut.
    Stale,
    /// The model's thread died over its batch. A failure that the model tells of is published, as an error of every query.
    ModelError,
    /// The broker was away; detections are worthless later.
    Broker,
    /// The camera was removed or the daemon is stopping.
    Shutdown,
    /// It fell out of the program without being settled: a bug, counted so that it cannot hide.
    Lost,
}

impl DropReason {
    /// Every reason, in the order of [`Ledger::dropped`].
    pub const ALL: [Self; 6] =
        [Self::Superseded, Self::Stale, Self::ModelError, Self::Broker, Self::Shutdown, Self::Lost];

    /// The reason's name in metrics, statistics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::Stale => "stale",
            Self::ModelError => "model_error",
            Self::Broker => "broker",
            Self::Shutdown => "shutdown",
            Self::Lost => "lost",
        }
    }
}

/// One camera's account, and what numbers its frames. Cheap to share; survives reconnects, and changes of the camera.
#[derive(Debug, Default)]
pub struct Ledger {
    decoded: AtomicU64,
    published: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Ledger {
    /// Opens the account of one more frame.
    pub fn open(self: &Arc<Self>) -> Ticket {
        let number = self.decoded.fetch_add(1, Relaxed);
        Ticket { ledger: Arc::clone(self), number, settled: AtomicBool::new(false) }
    }

    /// Frames decoded so far.
    pub fn decoded(&self) -> u64 {
        self.decoded.load(Relaxed)
    }

    /// Frames published so far.
    pub fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// Frames dropped for `reason` so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }

    /// Frames still on their way: decoded minus published minus every drop.
    pub fn in_flight(&self) -> u64 {
        let ended = self.published() + DropReason::ALL.iter().map(|r| self.dropped(*r)).sum::<u64>();
        self.decoded().saturating_sub(ended)
    }
}

/// A frame's place in its camera's [`Ledger`]. Settled once; later calls change nothing, and dropping an
/// unsettled ticket counts the frame as [`DropReason::Lost`].
#[derive(Debug)]
pub struct Ticket {
    ledger: Arc<Ledger>,
    number: u64,
    settled: AtomicBool,
}

impl Ticket {
    /// Which frame of its camera it is, counted from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The account that it is in.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The frame's result went out.
    pub fn publish(&self) {
        if !self.settled.swap(true, Relaxed) {
            self.ledger.published.fetch_add(1, Relaxed);
        }
    }

    /// The frame ends here, for `reason`.
    pub fn drop_for(&self, reason: DropReason) {
        if !self.settled.swap(true, Relaxed) {
            self.ledger.dropped[reason as usize].fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.drop_for(DropReason::Lost);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_index_their_own_counter() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }

    proptest! {
        #[test]
        fn the_sum_always_holds(ends in proptest::collection::vec(0usize..9, 0..200)) {
            let ledger = Arc::new(Ledger::default());
            let mut open = Vec::new();
            for (number, end) in (0u64..).zip(&ends) {
                let ticket = ledger.open();
                prop_assert_eq!(ticket.number(), number);
                match end {
                    0 => ticket.publish(),
                    1..=6 => ticket.drop_for(DropReason::ALL[end - 1]),
                    7 => drop(ticket),
                    _ => open.push(ticket),
                }
            }
            prop_assert_eq!(ledger.decoded(), ends.len() as u64);
            prop_assert_eq!(ledger.in_flight(), open.len() as u64);
            drop(open);
            prop_assert_eq!(ledger.in_flight(), 0);
        }

        #[test]
        fn a_frame_ends_once(calls in proptest::collection::vec(any::<bool>(), 1..8)) {
            let ledger = Arc::new(Ledger::default());
            let ticket = ledger.open();
            for publish in calls {
                if publish { ticket.publish() } else { ticket.drop_for(DropReason::Stale) }
            }
            drop(ticket);
            let ended = ledger.published() + DropReason::ALL.iter().map(|r| ledger.dropped(*r)).sum::<u64>();
            prop_assert_eq!(ended, 1);
        }
    }
}
