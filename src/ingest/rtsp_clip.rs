//! A clip read into memory, still encoded, to be played again and again without a seam in its time stamps.

use std::{path::Path, sync::Arc, time::Duration};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app as gst_app;

use super::{IngestError, launched::Launched};

/// Takes the stream out of its file as it is.
const AS_IT_IS: &str = "filesrc name=source ! parsebin ! appsink name=out sync=false \
                        caps=\"video/x-h264,alignment=au;video/x-h265,alignment=au;image/jpeg\"";

/// One encoded video stream.
pub(super) struct Clip {
    /// Each with its format, which may change on the way.
    units: Vec<(gst::Buffer, gst::Caps)>,
    /// Presentation time of the first picture.
    start: gst::ClockTime,
    /// From one pass to the next.
    length: gst::ClockTime,
}

impl Clip {
    /// The same at `speed` times its pace.
    pub(super) fn faster(mut self, speed: u32) -> Self {
        let scaled = |at: gst::ClockTime| at / u64::from(speed.max(1));
        for (unit, _) in &mut self.units {
            let (pts, dts, length) = (unit.pts(), unit.dts(), unit.duration());
            let unit = unit.make_mut();
            unit.set_pts(pts.map(scaled));
            unit.set_dts(dts.map(scaled));
            unit.set_duration(length.map(scaled));
        }
        (self.start, self.length) = (scaled(self.start), scaled(self.length));
        self
    }

    /// Reads the first video stream of the file at `path`.
    pub(super) fn load(path: &Path) -> Result<Self, IngestError> {
        let wrong = |what| IngestError::Server(format!("play {}: {what}", path.display()));
        open(path).map_err(wrong)
    }

    /// Hands out its units one by one as they are asked for; the sinks pace it.
    pub(super) fn feed(self: &Arc<Self>, feed: &gst_app::AppSrc) {
        let (clip, mut count) = (Arc::clone(self), 0);
        let need = move |feed: &gst_app::AppSrc, _| {
            if let Some(unit) = clip.unit(count) {
                count += 1;
                // Refused only while it is being shut down, and then nothing is left to do.
                feed.push_sample(&unit).ok();
            }
        };
        feed.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(need).build());
    }

    /// How many pictures it has.
    pub(super) fn pictures(&self) -> u64 {
        u64::try_from(self.units.len()).unwrap_or_default()
    }

    /// From one pass to the next.
    pub(super) fn length(&self) -> Duration {
        Duration::from_nanos(self.length.nseconds())
    }

    /// When, counted from the beginning of a pass, the picture numbered `mark` is shown. Only for clips without
    /// reordering, as marked ones are.
    pub(super) fn offset(&self, mark: u64) -> Option<Duration> {
        let (unit, _) = self.units.get(usize::try_from(mark).ok()?)?;
        Some(Duration::from_nanos(unit.pts()?.saturating_sub(self.start).nseconds()))
    }

    /// The `count`th unit of an endless play, stamped so that time goes on across passes and starts at zero.
    pub(super) fn unit(&self, count: u64) -> Option<gst::Sample> {
        let len = u64::try_from(self.units.len()).ok()?;
        let (pass, index) = (count.checked_div(len)?, count.checked_rem(len)?);
        let (unit, caps) = self.units.get(usize::try_from(index).ok()?)?;
        let mut unit = unit.copy();
        let shift = self.length * pass;
        let later = |at: Option<gst::ClockTime>| at.map(|t| (t + shift).saturating_sub(self.start));
        let (pts, dts) = (later(unit.pts()), later(unit.dts()));
        let writable = unit.make_mut();
        writable.set_pts(pts);
        writable.set_dts(dts);
        Some(gst::Sample::builder().buffer(&unit).caps(caps).build())
    }

    /// The launch text of a server for it, with an appsrc named `feed`.
    pub(super) fn launch(&self) -> &'static str {
        let format = self.units.first().and_then(|(_, caps)| caps.structure(0));
        match format.map(|s| s.name().as_str()) {
            Some("video/x-h265") => {
                "( appsrc name=feed format=time ! h265parse ! rtph265pay name=pay0 pt=96 config-interval=-1 )"
            }
            Some("image/jpeg") => "( appsrc name=feed format=time ! jpegparse ! rtpjpegpay name=pay0 pt=26 )",
            _ => "( appsrc name=feed format=time ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
        }
    }
}

fn open(path: &Path) -> Result<Clip, String> {
    let launched = Launched::new(AS_IT_IS)?;
    let sink: gst_app::AppSink = launched.element("out")?;
    let source: gst::Element = launched.element("source")?;
    source.set_property("location", path.to_string_lossy().as_ref());
    launched.play("it cannot be read")?;
    Ok(read(&sink).ok_or("it holds no H.264, H.265 or MJPEG video that can be read")?)
}

fn read(sink: &gst_app::AppSink) -> Option<Clip> {
    let mut units = Vec::new();
    // A file that stops giving data ends the reading like its end does.
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(10)) {
        units.extend(sample.buffer_owned().zip(sample.caps_owned()));
    }
    let start = units.iter().filter_map(|(unit, _)| unit.pts()).min()?;
    let last = units.iter().filter_map(|(unit, _)| unit.pts()).max()?;
    let count = u64::try_from(units.len()).ok()?;
    // The last picture is shown as long as the others on average.
    let length = if count > 1 { (last - start) * count / (count - 1) } else { gst::ClockTime::SECOND };
    Some(Clip { units, start, length })
}
