//! What decoding alone costs: the yardstick that the whole way from camera to model is held against.

use std::{path::Path, sync::Arc};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app as gst_app;

use super::{IngestError, canvas::Painter, launched::Launched, rtsp_clip::Clip, timeline::Timeline};
use crate::types::{Rgb, Size};

/// Pictures that may wait on either side of the decoder.
const WAITING: u32 = 4;
/// A decoder that gives nothing for this long is broken.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// A clip in memory.
pub struct Bare {
    clip: Arc<Clip>,
}

impl Bare {
    /// Reads the clip at `path`.
    pub fn load(path: &Path) -> Result<Self, IngestError> {
        super::init()?;
        Ok(Self { clip: Arc::new(Clip::load(path)?) })
    }

    /// When the pictures of a play of this clip elsewhere are sent, once it is told when that [began](Timeline::begin).
    pub fn timeline(&self) -> Timeline {
        Timeline::new(Arc::clone(&self.clip))
    }

    /// Decodes the clip on one thread of the decoder, over and over for as long as `more`, called at each picture, says so. With a
    /// `canvas` every picture is also scaled and converted for a model that sees that size.
    pub fn decode(&self, canvas: Option<Size>, more: &mut dyn FnMut() -> bool) -> Result<(), IngestError> {
        let mut painter = canvas.map(Painter::new);
        self.play(&mut |sample| {
            if let Some(painter) = &mut painter {
                painter.place(sample)?.1.paint();
            }
            Ok(more())
        })
    }

    /// Size of the clip's pictures.
    pub fn size(&self) -> Result<Size, IngestError> {
        let (mut painter, mut size) = (Painter::new(Size::new(16, 16)), Size::new(0, 0));
        self.play(&mut |sample| {
            size = painter.place(sample)?.0.source;
            Ok(false)
        })?;
        Ok(size)
    }

    /// The first `count` pictures of the clip on canvases.
    pub fn canvases(&self, size: Size, count: usize) -> Result<Vec<Rgb>, IngestError> {
        let mut painter = Painter::new(size);
        let mut canvases = Vec::with_capacity(count);
        self.play(&mut |sample| {
            canvases.push(Rgb::clone(&painter.place(sample)?.1));
            Ok(canvases.len() < count)
        })?;
        Ok(canvases)
    }

    /// Decodes and gives every picture to `see` until it says no.
    fn play(&self, see: &mut dyn FnMut(&gst::Sample) -> Result<bool, String>) -> Result<(), IngestError> {
        self.show(see).map_err(|what| IngestError::Server(format!("decode its own clip: {what}")))
    }

    fn show(&self, see: &mut dyn FnMut(&gst::Sample) -> Result<bool, String>) -> Result<(), String> {
        let launched = Launched::new(
            "appsrc name=feed format=time ! decodebin force-sw-decoders=true caps=video/x-raw(ANY) \
             ! appsink name=out sync=false",
        )?;
        launched.pipeline().connect_deep_element_added(|_, _, element| {
            if element.find_property("max-threads").is_some() {
                element.set_property("max-threads", 1i32);
            }
        });
        let out: gst_app::AppSink = launched.element("out")?;
        super::pipeline::take_any_layout(&out);
        out.set_max_buffers(WAITING);
        self.clip.feed(&launched.element("feed")?);
        launched.play("it does not start")?;
        pull(&out, see)
    }
}

fn pull(out: &gst_app::AppSink, see: &mut dyn FnMut(&gst::Sample) -> Result<bool, String>) -> Result<(), String> {
    loop {
        let sample = out.try_pull_sample(PATIENCE).ok_or("the decoder gives no pictures")?;
        if !see(&sample)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use gstreamer_video::VideoMeta;

    use super::*;

    /// `gst-libav` lays its own pictures out with rows longer than the picture, which only this meta tells; a copy has none.
    #[test]
    fn pictures_come_as_they_were_decoded() {
        let bare = Bare::load(Path::new("assets/demo.mp4")).unwrap();
        let mut own = false;
        bare.play(&mut |sample| {
            own = sample.buffer().is_some_and(|b| b.meta::<VideoMeta>().is_some());
            Ok(false)
        })
        .unwrap();
        assert!(own, "the decoder copied its picture");
    }
}
