//! How many frames a second a camera gives, from the times of the last few. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Times kept: enough for a steady number, few enough to follow a change.
const KEPT: usize = 32;
/// Times older than this say nothing about now.
const WINDOW: Duration = Duration::from_secs(5);

/// Frames a second over the last [`WINDOW`] or [`KEPT`] frames, whichever is shorter.
#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<Instant>);

impl Rate {
    /// A frame came at `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// The rate at `now`. It falls while no frame comes and is 0 after [`WINDOW`].
    pub(super) fn per_second(&self, now: Instant) -> f64 {
        let recent: Vec<&Instant> = self.0.iter().filter(|t| now.saturating_duration_since(**t) <= WINDOW).collect();
        let (Some(first), Some(last)) = (recent.first(), recent.last()) else { return 0.0 };
        if recent.len() < 2 {
            return 0.0;
        }
        let gaps = (recent.len() - 1) as f64;
        let mean = last.saturating_duration_since(**first).as_secs_f64() / gaps;
        // A gap in progress that is longer than usual counts, or a stopped camera would keep its rate.
        let waiting = now.saturating_duration_since(**last).as_secs_f64();
        let span = mean * gaps + (waiting - mean).max(0.0);
        if span > 0.0 { gaps / span } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stopped_camera_falls_to_nothing() {
        let (start, mut rate) = (Instant::now(), Rate::default());
        for i in 0..20 {
            rate.tick(start + Duration::from_millis(i * 100));
        }
        let last = start + Duration::from_millis(1900);
        assert!((rate.per_second(last) - 10.0).abs() < 0.01);
        assert!(rate.per_second(last + Duration::from_secs(3)) < 5.0);
        assert!(rate.per_second(last + Duration::from_secs(6)).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn a_steady_camera_has_its_rate(every_ms in 5u64..900, frames in 2usize..100) {
            let (start, mut rate) = (Instant::now(), Rate::default());
            let mut now = start;
            for i in 0..frames {
                now = start + Duration::from_millis(every_ms) * u32::try_from(i).unwrap();
                rate.tick(now);
            }
            let want = 1000.0 / every_ms as f64;
            prop_assert!((rate.per_second(now) - want).abs() < want * 0.01);
        }
    }
}
