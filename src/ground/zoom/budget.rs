//! Passes and time that a search may take on one frame.

use std::time::{Duration, Instant};

/// What a search may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Passes of the model.
    pub passes: usize,
    /// From the search's beginning to the last pass' end, as far as passes last as long as they used to. The first pass
    /// is always tried, so that a search gets on however slow the model is.
    pub time: Duration,
}

/// Counts what a search takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    left: usize,
    /// Whether a pass was made.
    begun: bool,
    /// When the last pass should be over; `None` is never.
    until: Option<Instant>,
    /// How long a pass takes; `None` until one was measured.
    pace: Option<Duration>,
}

impl Meter {
    /// A meter for a search that begins `now`. `pace` is how long a pass took the last time, if there was one.
    pub fn new(budget: Budget, now: Instant, pace: Option<Duration>) -> Self {
        Self { left: budget.passes, begun: false, until: now.checked_add(budget.time), pace }
    }

    /// A meter that allows everything.
    pub fn unlimited() -> Self {
        Self { left: usize::MAX, begun: false, until: None, pace: None }
    }

    /// Passes that are left.
    pub fn left(&self) -> usize {
        self.left
    }

    /// How long a pass takes, by the latest of them.
    pub fn pace(&self) -> Option<Duration> {
        self.pace
    }

    /// How many of `count` questions can be asked at `now`, and what they cost; `cost` tells the cost of the first so
    /// many. Where no pass was ever measured, and time is limited, one is tried alone.
    pub fn afford(&self, count: usize, cost: impl Fn(usize) -> usize, now: Instant) -> (usize, usize) {
        let most = self.left.min(self.passes_in(now));
        let costs = (1..=count).map(|n| (n, cost(n))).take_while(|(_, cost)| *cost <= most);
        costs.last().unwrap_or((0, 0))
    }

    fn passes_in(&self, now: Instant) -> usize {
        let Some(until) = self.until else { return usize::MAX };
        let left = until.saturating_duration_since(now);
        match self.pace {
            _ if left.is_zero() => 0,
            None => 1,
            Some(pace) => {
                let fit = usize::try_from(left.as_nanos() / pace.as_nanos().max(1)).unwrap_or(usize::MAX);
                fit.max(usize::from(!self.begun))
            }
        }
    }

    /// Says that `cost` passes took `time` together.
    pub fn spend(&mut self, cost: usize, time: Duration) {
        self.left = self.left.saturating_sub(cost);
        if let Ok(cost @ 1..) = u32::try_from(cost) {
            self.begun = true;
            self.pace = Some(time / cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn time_that_is_up_allows_only_what_is_free() {
        let now = Instant::now();
        let budget = Budget { passes: 9, time: Duration::from_millis(100) };
        let late = now + Duration::from_millis(100);
        assert_eq!(Meter::new(budget, now, None).afford(3, |n| n, late), (0, 0));
        assert_eq!(Meter::new(budget, now, None).afford(3, |_| 0, late), (3, 0));
        // The first pass ever is tried alone.
        assert_eq!(Meter::new(budget, now, None).afford(3, |n| n, now), (1, 1));
        assert_eq!(Meter::new(budget, now, Some(Duration::from_millis(40))).afford(3, |n| n, now), (2, 2));
        // One that is too slow for the budget is tried once all the same.
        let mut slow = Meter::new(budget, now, Some(Duration::from_millis(101)));
        assert_eq!(slow.afford(3, |n| n, now), (1, 1));
        slow.spend(1, Duration::from_millis(60));
        assert_eq!(slow.afford(3, |n| n, now + Duration::from_millis(60)), (0, 0));
    }

    #[test]
    fn the_longest_time_there_is_overflows_nothing_and_limits_nothing() {
        let budget = Budget { passes: 9, time: Duration::from_millis(u64::MAX) };
        for pace in [Duration::ZERO, Duration::from_nanos(1), Duration::from_hours(1)] {
            let now = Instant::now();
            let mut meter = Meter::new(budget, now, Some(pace));
            assert_eq!(meter.afford(12, |n| n, now + Duration::from_hours(5)), (9, 9));
            meter.spend(4, Duration::from_millis(u64::MAX));
            assert_eq!(meter.left(), 5);
        }
    }

    proptest! {
        #[test]
        fn passes_are_never_exceeded_and_time_only_by_a_slower_pass(
            passes in 0usize..40, millis in 0u64..500, pace in 1u64..60, asked in 1usize..20,
        ) {
            let began = Instant::now();
            let budget = Budget { passes, time: Duration::from_millis(millis) };
            let mut meter = Meter::new(budget, began, None);
            let (mut spent, mut clock) = (0, began);
            loop {
                let (count, cost) = meter.afford(asked, |n| n, clock);
                prop_assert_eq!(count, cost);
                if count == 0 {
                    break;
                }
                let took = Duration::from_millis(pace) * u32::try_from(cost).unwrap();
                meter.spend(cost, took);
                (spent, clock) = (spent + cost, clock + took);
            }
            prop_assert!(spent <= passes);
            // Passes of one length end in time, but for the first, which nothing was known of.
            prop_assert!(clock - began <= Duration::from_millis(millis.max(pace)));
        }
    }
}
