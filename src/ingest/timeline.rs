//! When the pictures of a served clip are sent: the other end of every measured delay.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use gstreamer::{self as gst, prelude::*};

use super::rtsp_clip::Clip;
use crate::types::lock;

/// One mount's play. A picture counts as sent when its time has come; that the server was late is part of the delay.
#[derive(Clone)]
pub struct Timeline {
    clip: Arc<Clip>,
    /// Wall-clock time of the play's time zero; `None` before anybody watched. Begins anew with each first viewer.
    zero: Arc<Mutex<Option<SystemTime>>>,
}

impl Timeline {
    pub(super) fn new(clip: Arc<Clip>) -> Self {
        Self { clip, zero: Arc::default() }
    }

    /// Follows the play whose payloader is `pay`.
    pub(super) fn follow(&self, pay: &gst::Element) {
        let (zero, owner) = (Arc::clone(&self.zero), pay.downgrade());
        let Some(pad) = pay.static_pad("sink") else { return };
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            // Before the play has begun there is no clock, and nothing is sent either.
            if let Some(pay) = owner.upgrade()
                && let (Some(clock), Some(base)) = (pay.clock(), pay.base_time())
                && let Some(now) = clock.time().checked_sub(base)
            {
                let began = SystemTime::now().checked_sub(Duration::from_nanos(now.nseconds()));
                *lock(&zero) = began;
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// How many pictures the clip has.
    pub fn pictures(&self) -> u64 {
        self.clip.pictures()
    }

    /// How long one pass of the clip takes.
    pub fn length(&self) -> Duration {
        self.clip.length()
    }

    /// When the picture with this mark was sent last, seen from `by`; `None` if it never was. The clip is played over and over:
    /// what was seen in an earlier pass seems to be from the last, so that delays come out short by whole lengths of the clip.
    pub fn sent(&self, mark: u64, by: SystemTime) -> Option<SystemTime> {
        let (zero, offset, length) = (self.began()?, self.clip.offset(mark)?, self.clip.length());
        let played = by.duration_since(zero).ok()?.checked_sub(offset)?;
        let passes = u32::try_from(played.as_nanos() / length.as_nanos().max(1)).ok()?;
        Some(zero + offset + length * passes)
    }

    /// When the picture that was captured at about `at` was sent: that of the picture nearest in time.
    pub fn nearest(&self, at: SystemTime) -> Option<SystemTime> {
        let candidates = (0..self.clip.pictures()).filter_map(|mark| {
            // Half a second more, so that a capture time a little early still finds its picture.
            let sent = self.sent(mark, at + Duration::from_millis(500))?;
            let gap = at.duration_since(sent).unwrap_or_else(|early| early.duration());
            Some((gap, sent))
        });
        candidates.min().map(|(_, sent)| sent)
    }

    /// How many pictures were sent from `from` to `to`.
    pub fn count(&self, from: SystemTime, to: SystemTime) -> Option<f64> {
        self.began()?;
        let span = to.duration_since(from).ok()?;
        Some(span.as_secs_f64() / self.clip.length().as_secs_f64() * self.clip.pictures() as f64)
    }

    /// When the play began; `None` before anybody watched.
    pub fn began(&self) -> Option<SystemTime> {
        *lock(&self.zero)
    }

    /// Tells when a play in another process began.
    pub fn begin(&self, at: SystemTime) {
        *lock(&self.zero) = Some(at);
    }
}
