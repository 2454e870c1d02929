//! How a stage shows that it is alive: it marks the work it is doing, and whoever feeds the watchdog sees work that
//! does not end. A stage without work is healthy, however long it waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// One stage's sign of life. Cheap to clone; all clones are the same pulse.
#[derive(Debug, Clone)]
pub struct Pulse {
    stage: &'static str,
    started: Instant,
    /// Milliseconds from `started` to the beginning of the work in hand or its last beat, plus one; 0 is idle.
    busy_since: Arc<AtomicU64>,
}

impl Pulse {
    /// The pulse of `stage`, idle.
    pub fn new(stage: &'static str) -> Self {
        Self { stage, started: Instant::now(), busy_since: Arc::default() }
    }

    /// The stage's name, for the log line that says which one is stuck.
    pub fn stage(&self) -> &'static str {
        self.stage
    }

    /// Marks the stage busy until the guard goes.
    pub fn busy(&self) -> Busy<'_> {
        self.busy_since.store(self.now(), Relaxed);
        Busy(self)
    }

    /// The work in hand gets on: it counts from now. Without any, nothing happens.
    pub fn beat(&self) {
        let now = self.now();
        // Work that ends meanwhile stays ended; the outcome is nobody's concern.
        self.busy_since.fetch_update(Relaxed, Relaxed, |since| (since != 0).then_some(now)).ok();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// How long the work in hand has been going on without a beat; `None` if there is none.
    pub fn busy_for(&self) -> Option<Duration> {
        match self.busy_since.load(Relaxed) {
            0 => None,
            since => Some(self.started.elapsed().saturating_sub(Duration::from_millis(since - 1))),
        }
    }
}

/// Work in hand; see [`Pulse::busy`].
#[derive(Debug)]
pub struct Busy<'a>(&'a Pulse);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy_since.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_does_not_end_counts() {
        let pulse = Pulse::new("ground");
        assert_eq!(pulse.busy_for(), None);
        let work = pulse.clone();
        let work = work.busy();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pulse.busy_for().is_some_and(|t| t >= Duration::from_millis(15)));
        let before = pulse.busy_for();
        pulse.beat();
        assert!(pulse.busy_for() < before);
        drop(work);
        pulse.beat();
        assert_eq!(pulse.busy_for(), None);
    }
}
