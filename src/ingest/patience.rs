//! How long a camera that failed is left alone.

use std::time::Duration;

use super::status::RestartReason;
use crate::backoff::Backoff;

/// First wait before trying again; it doubles up to the longest.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A camera that comes back must be live within two seconds and a keyframe, so what may come back by itself is tried every second.
const LONGEST: Duration = Duration::from_secs(1);

/// What a person must put right is tried rarely from the first failure on.
pub(super) const PERSON: Duration = Duration::from_secs(10);

/// Cameras lock an account after a few wrong passwords, and count on while they are tried: from the first of these waits on each
/// is three times the one before, up to [`LOCKED`].
const REFUSED: Duration = PERSON;

/// A locked account is commonly free again after half an hour without attempts, or after a few.
const LOCKED: Duration = Duration::from_mins(10);

/// The waits between one camera's attempts.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    /// How often in a row the user name and password were refused.
    refused: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::new(FIRST_WAIT, LONGEST), refused: 0 }
    }

    /// It was live long enough: whatever happens next has nothing to do with what was before.
    pub(super) fn recovered(&mut self) {
        *self = Self::new();
    }

    /// The wait after an attempt that ended so. `unit` in 0..1 is the random part: `rand::random()`.
    pub(super) fn after(&mut self, reason: RestartReason, unit: f32) -> Duration {
        let jittered = |wait: Duration| wait.mul_f32(0.5 + 0.5 * unit.clamp(0.0, 1.0));
        if reason != RestartReason::Unauthorized {
            self.refused = 0;
        }
        match reason {
            RestartReason::Unauthorized => {
                let wait = REFUSED.saturating_mul(3u32.saturating_pow(self.refused)).min(LOCKED);
                self.refused += 1;
                jittered(wait)
            }
            RestartReason::Tls => jittered(PERSON),
            _ => self.backoff.next(unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wrong_password_is_tried_ever_more_rarely_until_something_else_happens() {
        let mut patience = Patience::new();
        let waits: Vec<_> = (0..6).map(|_| patience.after(RestartReason::Unauthorized, 1.0).as_secs()).collect();
        assert_eq!(waits, [10, 30, 90, 270, 600, 600]);
        assert!(patience.after(RestartReason::Unreachable, 1.0) <= LONGEST);
        assert_eq!(patience.after(RestartReason::Unauthorized, 1.0), REFUSED, "it was away: another camera, perhaps");
        patience.recovered();
        assert_eq!(patience.after(RestartReason::Unreachable, 1.0), FIRST_WAIT);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_reason_allows(reasons in proptest::collection::vec((0..RestartReason::ALL.len(), 0.0f32..=1.0), 1..40)) {
            let mut patience = Patience::new();
            for (reason, unit) in reasons {
                let reason = RestartReason::ALL[reason];
                let wait = patience.after(reason, unit);
                let (least, most) = match reason {
                    RestartReason::Unauthorized => (REFUSED / 2, LOCKED),
                    RestartReason::Tls => (PERSON / 2, PERSON),
                    _ => (FIRST_WAIT / 2, LONGEST),
                };
                prop_assert!(wait >= least && wait <= most, "{wait:?} after {reason:?}");
            }
        }
    }
}
