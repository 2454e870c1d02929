//! When the pixels of a picture arrived here and when its sender says they were taken.
//!
//! Notes are made where encoded data passes and picked up, by presentation time, where the decoded picture comes out.
//! GStreamer 1.22 attaches sender times to buffers only for RFC 7273 clocks, which no camera announces, so they are
//! worked out here from RTCP sender reports.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Seconds from the NTP epoch (1900) to the Unix epoch.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// A camera whose clock says it is earlier than this (2020-01-01) has never been told the time.
const SANE: Duration = Duration::from_hours(438_288);

/// Pictures that may be inside a decoder; older notes belong to pictures that never came out.
const KEPT: usize = 256;

/// A sender's word: at `ntp` (32.32 fixed point) its RTP clock stood at `rtp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SenderReport {
    pub(super) ntp: u64,
    pub(super) rtp: u32,
}

impl SenderReport {
    /// The sender's wall-clock time for RTP time `rtp`; `None` if its clock is not set.
    pub(super) fn time_of(self, rtp: u32, clock_rate: u32) -> Option<SystemTime> {
        let fraction = Duration::from_nanos(((self.ntp & 0xffff_ffff) * 1_000_000_000) >> 32);
        let report = Duration::from_secs((self.ntp >> 32).checked_sub(NTP_TO_UNIX)?) + fraction;
        // RTP time wraps; the nearer way round is meant.
        let ticks = i64::from(rtp.wrapping_sub(self.rtp).cast_signed());
        let offset = Duration::try_from_secs_f64(ticks.unsigned_abs() as f64 / f64::from(clock_rate.max(1))).ok()?;
        let time = if ticks < 0 { report.checked_sub(offset)? } else { report + offset };
        (time >= SANE).then(|| SystemTime::UNIX_EPOCH + time)
    }
}

/// What is known about a picture from its encoded data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    /// When the first of it arrived.
    pub(super) arrived: Instant,
    /// The same on the wall clock.
    pub(super) arrived_at: SystemTime,
    /// When its sender says it was taken.
    pub(super) sent: Option<SystemTime>,
}

/// Notes by presentation time, and the newest report of each sender.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    notes: VecDeque<(u64, Note)>,
    reports: HashMap<u32, SenderReport>,
}

impl Arrivals {
    /// Notes that data of the picture at `pts` passed; only the first note counts.
    pub(super) fn note(&self, pts: u64, sent: Option<SystemTime>) {
        let mut known = self.lock();
        // The newest are at the back, and nearly every packet belongs to the newest picture.
        if known.notes.iter().rev().any(|(p, _)| *p == pts) {
            return;
        }
        if known.notes.len() == KEPT {
            known.notes.pop_front();
        }
        known.notes.push_back((pts, Note { arrived: Instant::now(), arrived_at: SystemTime::now(), sent }));
    }

    /// Picks up what is known about the picture at `pts`.
    pub(super) fn take(&self, pts: u64) -> Option<Note> {
        let mut known = self.lock();
        let at = known.notes.iter().position(|(p, _)| *p == pts)?;
        known.notes.remove(at).map(|(_, note)| note)
    }

    /// Remembers the newest report of `sender`.
    pub(super) fn report(&self, sender: u32, report: SenderReport) {
        self.lock().reports.insert(sender, report);
    }

    /// What `sender`'s clock said at RTP time `rtp`.
    pub(super) fn sent(&self, sender: u32, rtp: u32, clock_rate: u32) -> Option<SystemTime> {
        self.lock().reports.get(&sender)?.time_of(rtp, clock_rate)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ntp(unix: Duration) -> u64 {
        ((unix.as_secs() + NTP_TO_UNIX) << 32) | ((u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000)
    }

    proptest! {
        #[test]
        fn rtp_time_maps_to_wall_clock_across_its_wrap(
            seconds in 1_600_000_000u64..3_000_000_000, at in any::<u32>(), ticks in -9_000_000i32..9_000_000,
        ) {
            // NTP's own 32 bits of seconds end in 2036.
            let unix = Duration::from_secs(seconds.min(2_085_900_000));
            let report = SenderReport { ntp: ntp(unix), rtp: at };
            let got = report.time_of(at.wrapping_add_signed(ticks), 90_000).unwrap();
            let got = got.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
            prop_assert!((got - (unix.as_secs_f64() + f64::from(ticks) / 90_000.0)).abs() < 1e-5);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        let at = |unix| SenderReport { ntp: ntp(Duration::from_secs(unix)), rtp: 0 }.time_of(0, 90_000);
        assert_eq!(at(3600), None);
        assert!(at(1_700_000_000).is_some());
        assert_eq!(SenderReport { ntp: 5 << 32, rtp: 0 }.time_of(0, 90_000), None);
    }

    #[test]
    fn the_first_note_of_a_picture_counts_and_is_picked_up_once() {
        let arrivals = Arrivals::default();
        let sent = Some(SystemTime::UNIX_EPOCH + SANE);
        arrivals.note(7, sent);
        arrivals.note(7, None);
        assert_eq!(arrivals.take(7).unwrap().sent, sent);
        assert!(arrivals.take(7).is_none());
        for pts in 0..1000 {
            arrivals.note(pts, None);
        }
        assert!(arrivals.take(0).is_none() && arrivals.take(999).is_some());
    }
}
