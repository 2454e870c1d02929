//! Jittered exponential backoff, for cameras and brokers alike.

use std::time::Duration;

/// Waits that double from `first` to `most`, each shortened by a random part of itself so that many clients of one
/// restarted peer do not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits between half of `first` and `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The next wait. `unit` in 0..1 is the random part: `rand::random()`.
    pub fn next(&mut self, unit: f32) -> Duration {
        let full = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        full.mul_f32(0.5 + 0.5 * unit.clamp(0.0, 1.0))
    }

    /// The peer answered: start from the beginning next time.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_in_bounds_and_never_shrink_but_for_jitter(
            first in 1u64..5_000, factor in 1u64..100, units in proptest::collection::vec(0.0f32..1.0, 1..80),
        ) {
            let (first, most) = (Duration::from_millis(first), Duration::from_millis(first * factor));
            let mut backoff = Backoff::new(first, most);
            let mut ceiling = first;
            for unit in units {
                let wait = backoff.next(unit);
                prop_assert!(wait <= ceiling + Duration::from_micros(10) && wait >= ceiling.mul_f32(0.49));
                ceiling = (ceiling * 2).min(most);
            }
            backoff.reset();
            prop_assert!(backoff.next(1.0) <= first + Duration::from_micros(10));
        }
    }
}
