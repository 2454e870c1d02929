//! When the pixels of a picture arrived here and when its sender says they were taken.
//!
//! Notes are made where encoded data passes and picked up, by presentation time, where the decoded picture comes out.
//! GStreamer 1.22 attaches sender times to buffers only for RFC 7273 clocks, which no camera announces, so they are
//! worked out here from RTCP sender reports.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use crate::types::lock;

/// Seconds from the NTP epoch (1900) to the Unix epoch.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// A camera whose clock says it is earlier than this (2020-01-01) has never been told the time.
const SANE: Duration = Duration::from_hours(438_288);

/// A picture that its sender says was taken later than this after it came here was taken by a wrong clock. Less is clocks
/// that are a little apart.
const AHEAD: Duration = Duration::from_secs(1);

/// One that was taken longer than this before it came here was taken by a wrong clock as well: whole hours are the local time
/// of a camera that does not know its zone. Pictures that were really kept back for so long count from when they came.
const BEHIND: Duration = Duration::from_secs(10);

/// A clock that was refused is believed again when it is this far inside the bounds, so that one that stands at a bound is not
/// taken for right and wrong by turns.
const CLEARLY: Duration = Duration::from_millis(500);

/// An older report says nothing any more: RTP time may have come round, and clocks drift. Senders report every few seconds.
const OUTDATED: Duration = Duration::from_mins(10);

/// Senders whose reports are kept; a camera has one, and a new name after each of its restarts.
const SENDERS: usize = 16;

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
    /// When its sender says it was taken; `None` if that cannot be.
    pub(super) sent: Option<SystemTime>,
}

/// Notes by presentation time, and the newest report of each sender.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    notes: VecDeque<(u64, Note)>,
    reports: HashMap<u32, (SenderReport, Instant)>,
    /// The sender's clock was wrong when it was heard last.
    refused: bool,
}

impl Known {
    /// Whether what arrived at `arrived` can have been taken at `sent`.
    fn believes(&mut self, sent: SystemTime, arrived: SystemTime) -> bool {
        let margin = if self.refused { CLEARLY } else { Duration::ZERO };
        let (ahead, behind) = (AHEAD.saturating_sub(margin), BEHIND.saturating_sub(margin));
        self.refused = sent > arrived + ahead || arrived > sent + behind;
        !self.refused
    }
}

impl Arrivals {
    /// Notes that data of the picture at `pts` passed; only the first note counts.
    pub(super) fn note(&self, pts: u64, sent: Option<SystemTime>) {
        let mut known = lock(&self.0);
        // The newest are at the back, and nearly every packet belongs to the newest picture.
        if known.notes.iter().rev().any(|(p, _)| *p == pts) {
            return;
        }
        if known.notes.len() == KEPT {
            known.notes.pop_front();
        }
        let sent = sent.filter(|sent| known.believes(*sent, SystemTime::now()));
        known.notes.push_back((pts, Note { arrived: Instant::now(), sent }));
    }

    /// Picks up what is known about the picture at `pts`.
    pub(super) fn take(&self, pts: u64) -> Option<Note> {
        let mut known = lock(&self.0);
        let at = known.notes.iter().position(|(p, _)| *p == pts)?;
        known.notes.remove(at).map(|(_, note)| note)
    }

    /// Remembers the newest report of `sender`, which came at `now`.
    pub(super) fn report(&self, sender: u32, report: SenderReport, now: Instant) {
        let reports = &mut lock(&self.0).reports;
        if reports.len() >= SENDERS && !reports.contains_key(&sender) {
            reports.clear();
        }
        reports.insert(sender, (report, now));
    }

    /// What `sender`'s clock said at RTP time `rtp`; `None` if it has not reported lately.
    pub(super) fn sent(&self, sender: u32, rtp: u32, clock_rate: u32, now: Instant) -> Option<SystemTime> {
        let (report, at) = *lock(&self.0).reports.get(&sender)?;
        if now.saturating_duration_since(at) > OUTDATED {
            return None;
        }
        report.time_of(rtp, clock_rate)
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

    /// Whether a sender is believed that says this about a picture that comes now.
    fn believed(arrivals: &Arrivals, sent: SystemTime) -> bool {
        arrivals.note(7, Some(sent));
        arrivals.take(7).unwrap().sent == Some(sent)
    }

    #[test]
    fn a_picture_is_not_taken_after_it_came_nor_long_before() {
        let now = SystemTime::now();
        for (sent, is_believed) in [
            (now - Duration::from_hours(1), false),
            (now - BEHIND * 2, false),
            (now - BEHIND / 2, true),
            (now + AHEAD / 2, true),
            (now + Duration::from_hours(1), false),
        ] {
            assert_eq!(believed(&Arrivals::default(), sent), is_believed);
        }
    }

    #[test]
    fn a_clock_at_the_bound_is_not_right_and_wrong_by_turns() {
        let arrivals = Arrivals::default();
        let behind = [9_700, 10_300, 9_700, 9_000, 9_700];
        let heard = behind.map(|ms| believed(&arrivals, SystemTime::now() - Duration::from_millis(ms)));
        assert_eq!(heard, [true, false, false, true, true]);
    }

    #[test]
    fn reports_are_few_and_age() {
        let (arrivals, now) = (Arrivals::default(), Instant::now());
        let report = SenderReport { ntp: ntp(Duration::from_secs(1_700_000_000)), rtp: 0 };
        let known = |sender, at| arrivals.sent(sender, 90_000, 90_000, at).is_some();
        arrivals.report(7, report, now);
        assert!(known(7, now + OUTDATED) && !known(8, now));
        assert!(!known(7, now + OUTDATED + Duration::from_millis(1)));
        for sender in 0..1000 {
            arrivals.report(sender, report, now);
            // The same again takes no place.
            arrivals.report(sender, report, now);
            assert!(known(sender, now) && lock(&arrivals.0).reports.len() <= SENDERS);
        }
    }

    #[test]
    fn the_first_note_of_a_picture_counts_and_is_picked_up_once() {
        let arrivals = Arrivals::default();
        let sent = Some(SystemTime::now());
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
