//! How often a camera's pictures are looked at, and when among those of other cameras.

use std::time::Duration;

/// Fractions of this sequence lie evenly however many of them are taken: each falls into the widest gap that is left.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A camera's rate limit, and its beat among cameras with the same one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Shortest time between two analysed pictures; zero is no limit.
    period: Duration,
    /// When its beat falls, as a share of the period; `None` is whenever the first picture comes.
    phase: Option<f64>,
}

impl Pace {
    /// At most `fps` pictures a second, as the `place`th of the cameras that share the machine; pictures of a source
    /// without a place keep the beat that the first of them sets.
    pub(super) fn new(fps: Option<f32>, place: Option<u32>) -> Self {
        let period = fps.filter(|f| *f > 0.0).and_then(|f| Duration::try_from_secs_f32(1.0 / f).ok());
        Self { period: period.unwrap_or_default(), phase: place.map(|n| (f64::from(n) * GOLDEN).fract()) }
    }

    /// How much later than a whole period after `now` the camera's next beat falls.
    fn lead(&self, now: Duration) -> Duration {
        let Some(phase) = self.phase else { return Duration::ZERO };
        let beats = now.as_secs_f64() / self.period.as_secs_f64();
        self.period.mul_f64((phase - beats).rem_euclid(1.0))
    }
}

/// When the next picture may pass the rate limit, in stream time; `None` lets any pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Due(Option<Duration>);

impl Due {
    /// Decides about a picture at `pts` that comes at `now`, counted from an instant that all cameras share. Pictures
    /// a little early are let through, since cameras jitter, and the due time moves on by whole periods, so that the
    /// mean rate is met. Cameras that connect together would all be looked at together, and wait for one another: so
    /// the first wait is longer than a period, by as much as brings each to a beat of its own. Beats are kept in stream
    /// time, so they wander with the cameras' clocks, each its own way.
    pub(super) fn admits(&mut self, pts: Duration, now: Duration, pace: &Pace) -> bool {
        let period = pace.period;
        if period.is_zero() {
            return true;
        }
        let early = pts + period / 8;
        let next = match self.0.filter(|due| *due <= pts + period * 2) {
            Some(due) if early < due => return false,
            // Its beat, or a later one if pictures were missing.
            Some(due) => {
                let missed = early.saturating_sub(due).as_nanos() / period.as_nanos();
                due + period * u32::try_from(missed + 1).unwrap_or(u32::MAX)
            }
            // The first picture, or a clock that jumped back.
            None => pts + period + pace.lead(now),
        };
        self.0 = Some(next);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alone(period: Duration) -> Pace {
        Pace { period, phase: None }
    }

    proptest! {
        #[test]
        fn the_rate_limit_only_goes_down_and_meets_its_mean(
            camera in 2u32..60, wanted in 1u32..60, jitter in proptest::collection::vec(0u64..4, 300),
        ) {
            let (period, gap) = (Duration::from_secs(1) / wanted, Duration::from_secs(1) / camera);
            let (mut due, pace) = (Due::default(), alone(period));
            let admitted = jitter.iter().zip(0u32..).filter(|(j, i)| {
                let at = gap * *i + Duration::from_millis(**j);
                due.admits(at, at, &pace)
            }).count();
            let seconds = 300.0 / f64::from(camera);
            let expected = seconds * f64::from(wanted.min(camera));
            prop_assert!((admitted as f64) <= seconds * f64::from(wanted) * 1.15 + 2.0, "{admitted} of {expected}");
            if wanted >= camera * 2 { prop_assert_eq!(admitted, 300); }
            if camera >= wanted * 4 { prop_assert!(admitted as f64 >= expected * 0.75 - 2.0, "{admitted} of {expected}"); }
        }

        #[test]
        fn of_each_beat_that_has_pictures_one_passes_however_many_are_missing(
            come in proptest::collection::vec(proptest::bool::weighted(0.2), 1..400),
        ) {
            let (mut due, pace, gap) = (Due::default(), alone(Duration::from_millis(200)), Duration::from_millis(10));
            let times: Vec<_> = (0u32..).zip(&come).filter(|(n, came)| *n == 0 || **came).map(|(n, _)| gap * n).collect();
            let passed = times.iter().filter(|at| due.admits(**at, **at, &pace)).count();
            let beats: std::collections::BTreeSet<_> = times.iter().map(|at| (at.as_millis() + 25) / 200).collect();
            prop_assert_eq!(passed, beats.len());
        }

        #[test]
        fn the_rate_limit_survives_a_clock_that_jumps(
            pts in proptest::collection::vec(0u64..100_000, 1..50), place in proptest::option::of(0u32..50),
        ) {
            let (mut due, period) = (Due::default(), Duration::from_millis(100));
            let pace = Pace::new(Some(10.0), place);
            for p in pts {
                let at = Duration::from_millis(p);
                let mut later = (0..4).map(|n| at + period * n);
                prop_assert!(later.any(|at| due.admits(at, at, &pace)), "something passes within three periods");
            }
        }

        #[test]
        fn cameras_that_connect_together_are_looked_at_one_after_another(
            count in 2u32..40, started in 0u64..1_000_000, first in 0u64..1_000_000,
        ) {
            let (frames, fps) = (Duration::from_millis(5), 2.0);
            let mut beats: Vec<f64> = (0..count).map(|place| {
                let (mut due, pace) = (Due::default(), Pace::new(Some(fps), Some(place)));
                let admitted: Vec<_> = (0..600).map(|n| frames * n).filter(|t| {
                    due.admits(*t + Duration::from_millis(first), *t + Duration::from_millis(started), &pace)
                }).collect();
                prop_assert!((5..=7).contains(&admitted.len()), "{admitted:?}");
                Ok((admitted.last().unwrap().as_secs_f64() * f64::from(fps)).fract())
            }).collect::<Result<_, TestCaseError>>()?;
            beats.sort_by(f64::total_cmp);
            beats.push(beats[0] + 1.0);
            let closest = beats.windows(2).map(|w| w[1] - w[0]).fold(f64::MAX, f64::min);
            // Of n places of the sequence no two are closer than 0.38 of an even share; pictures come every 0.01.
            prop_assert!(closest >= 0.38 / f64::from(count) - 0.011, "{count} cameras: {beats:?}");
        }
    }
}
