//! What the model was spared, and what was left undone: counters that say where a device's time went.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Why a query was not asked although it was due, or not answered in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShedReason {
    /// The device has more valuable things to do.
    Busy,
    /// The query has used up its own part of the device.
    Budget,
    /// The answer would come after the query's deadline.
    Deadline,
    /// Something on the picture was not asked about yet, and nothing else matches.
    Waiting,
}

impl ShedReason {
    /// Every reason, in the order of [`Work::shed`].
    pub const ALL: [Self; 4] = [Self::Busy, Self::Budget, Self::Deadline, Self::Waiting];

    /// The reason's name in metrics and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Waiting => "waiting",
        }
    }
}

impl fmt::Display for ShedReason {
    /// For subscribers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy: the device has more valuable work than time",
            Self::Budget => {
                "budget: the query has used up its part of the device, or its search has not looked everywhere yet"
            }
            Self::Deadline => "deadline: the answer would have come too late",
            Self::Waiting => "waiting: something new or changed is on the picture, and will be asked about soon",
        })
    }
}

/// The account of a model's work. Cheap to read from anywhere.
#[derive(Debug, Default)]
pub struct Work {
    looked: AtomicU64,
    still: AtomicU64,
    asked: AtomicU64,
    reused: AtomicU64,
    shed: [AtomicU64; ShedReason::ALL.len()],
}

impl Work {
    /// Frames the model looked at.
    pub fn looked(&self) -> u64 {
        self.looked.load(Relaxed)
    }

    /// Frames it did not look at, since the picture had not changed.
    pub fn still(&self) -> u64 {
        self.still.load(Relaxed)
    }

    /// Questions asked: a query on a frame each.
    pub fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    /// Questions answered from what was known already.
    pub fn reused(&self) -> u64 {
        self.reused.load(Relaxed)
    }

    /// Questions not asked for `reason`.
    pub fn shed(&self, reason: ShedReason) -> u64 {
        self.shed[reason as usize].load(Relaxed)
    }

    /// One more frame was looked at, or need not be.
    pub fn look(&self, looked: bool) {
        if looked { &self.looked } else { &self.still }.fetch_add(1, Relaxed);
    }

    /// One more question was answered, freshly or from what was known.
    pub fn answer(&self, fresh: bool) {
        if fresh { &self.asked } else { &self.reused }.fetch_add(1, Relaxed);
    }

    /// A batch of `frames` was looked at, and all its `questions` were asked.
    pub fn look_all(&self, frames: usize, questions: usize) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.looked.fetch_add(count(frames), Relaxed);
        self.asked.fetch_add(count(questions), Relaxed);
    }

    /// One more question was not asked.
    pub fn leave(&self, reason: ShedReason) {
        self.shed[reason as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_where_it_belongs() {
        let work = Work::default();
        work.look(true);
        work.look(false);
        work.look(false);
        work.answer(true);
        work.answer(false);
        for (i, reason) in ShedReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            (0..=i).for_each(|_| work.leave(*reason));
        }
        assert_eq!((work.looked(), work.still(), work.asked(), work.reused()), (1, 2, 1, 1));
        assert_eq!(ShedReason::ALL.map(|reason| work.shed(reason)), [1, 2, 3, 4]);
    }
}
