//! From the appsink to the outlet: the only hop between decoder and slot.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::{Flow, Outlet, Picture, canvas::Painter, pipeline::Facts};
use crate::types::{Capture, Clock};

/// A picture that waited for its time is never called older than this.
const OLDEST: Duration = Duration::from_mins(1);

/// What becomes of the pictures of one connection.
pub(super) struct Tap {
    outlet: Outlet,
    facts: Arc<Facts>,
    painter: Painter,
    /// What the pictures were the last time.
    caps: Option<gst::Caps>,
    /// The sink waits for the time of each picture.
    paced: bool,
    /// The source goes on without us, so we come in the middle of something.
    live: bool,
}

impl Tap {
    /// For the pictures of `sink`.
    pub(super) fn new(sink: &gst_app::AppSink, outlet: &Outlet, facts: &Arc<Facts>, live: bool) -> Self {
        Self {
            outlet: outlet.clone(),
            facts: Arc::clone(facts),
            painter: Painter::new(outlet.canvases().clone()),
            caps: None,
            paced: sink.property::<bool>("sync"),
            live,
        }
    }

    /// Makes a picture of `sample`, which `sink` gave out just now, and offers it. Errors are for people.
    pub(super) fn offer(&mut self, sample: &gst::Sample, sink: &gst_app::AppSink) -> Result<Flow, String> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let pts = sample.buffer().and_then(gst::BufferRef::pts);
        let note = pts.and_then(|pts| self.facts.arrivals.take(pts.nseconds()));
        if !self.shows(sample, now) {
            self.outlet.touch();
            return Ok(Flow::Continue);
        }
        // Some sources do not say when their pictures are shown; they are shown as they come.
        let at = pts.map_or_else(|| self.outlet.running(), |pts| Duration::from_nanos(pts.nseconds()));
        if !self.outlet.wants(at) {
            return Ok(Flow::Continue);
        }
        let (view, canvas, full) = self.painter.place(sample)?;
        self.note_format(sample);
        let reached = note.map(|note| now.saturating_duration_since(note.arrived));
        let late = pts.filter(|_| self.paced).and_then(|pts| overdue(sample, pts, sink));
        let age = age(reached, late);
        let capture = match note.and_then(|note| note.sent) {
            Some(at) => Capture { at, clock: Clock::Ntp },
            None => Capture { at: wall.checked_sub(age).unwrap_or(wall), clock: Clock::Arrival },
        };
        let decoded_at = Instant::now();
        let decode_time = age + decoded_at.saturating_duration_since(now);
        Ok(self.outlet.offer(Picture { capture, pts: at, decoded_at, decode_time, view, canvas, full: Some(full) }))
    }

    /// Notes what the pictures are, where that has changed.
    fn note_format(&mut self, sample: &gst::Sample) {
        let caps = sample.caps_owned();
        if caps != self.caps {
            if let Some(format) = caps.as_deref().and_then(format_name) {
                self.facts.format(format);
            }
            self.caps = caps;
        }
    }

    /// Whether the picture is a whole one. Of a file everything is shown: it begins where it begins.
    fn shows(&self, sample: &gst::Sample, now: Instant) -> bool {
        let Some(buffer) = sample.buffer().filter(|_| self.live) else { return true };
        let torn = buffer.flags().contains(gst::BufferFlags::CORRUPTED);
        self.facts.gate.shows(torn, buffer.pts().map(gst::ClockTime::nseconds), now)
    }
}

/// How old a picture is whose data reached the decoder `reached` ago, and which was due `late` ago if it had to wait for its
/// time. The later counts: what was read ahead is not old before it is due, and a film that this machine plays too slowly is
/// late by more and more, which makes none of its pictures older than their data.
fn age(reached: Option<Duration>, late: Option<Duration>) -> Duration {
    reached.into_iter().chain(late).min().unwrap_or_default()
}

/// How long ago the picture at `pts` was due by the clock that `sink` goes by. If the sink waits longer than that, as it does
/// for the latency of a live source, the picture has grown older meanwhile.
fn overdue(sample: &gst::Sample, pts: gst::ClockTime, sink: &gst_app::AppSink) -> Option<Duration> {
    let due = sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    let now = sink.clock()?.time().checked_sub(sink.base_time()?)?;
    Some(Duration::from_nanos(now.saturating_sub(due).nseconds()).min(OLDEST))
}

/// `1280x720 @ 15`.
fn format_name(caps: &gst::CapsRef) -> Option<String> {
    let info = gst_video::VideoInfo::from_caps(caps).ok()?;
    let (n, d) = (info.fps().numer(), info.fps().denom());
    let size = format!("{}x{}", info.width(), info.height());
    if n <= 0 || d <= 0 {
        return Some(size);
    }
    let rate = f64::from(n) / f64::from(d);
    Some(format!("{size} @ {}", (rate * 100.0).round() / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_as_old_as_its_data_or_as_the_moment_it_was_due() {
        let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
        for (reached, late, old) in [
            (Some(40), None, 40),
            // Read ahead.
            (Some(900), Some(3), 3),
            // From a camera over HTTP, stamped as it came; or of a film that lags.
            (Some(40), Some(41), 40),
            (Some(40), Some(60_000), 40),
            (None, Some(5), 5),
            (None, None, 0),
        ] {
            assert_eq!(age(ms(reached), ms(late)), Duration::from_millis(old), "{reached:?} {late:?}");
        }
    }
}
