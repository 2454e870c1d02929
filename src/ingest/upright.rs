//! Films that lie on their side: a phone writes its pictures as the sensor has them, and a tag that says which way is up.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app as gst_app;
use tracing::warn;

/// Has pictures turned on their way from the decoder to `sink`, once a tag says that they are to be. All others keep the
/// straight way: what turns takes few formats, and the rest would be converted for nothing. Where a template has put
/// anything between the two, nothing is changed.
pub(super) fn set_upright(pipeline: &gst::Pipeline, sink: &gst_app::AppSink) {
    let Some(end) = sink.static_pad("sink") else { return };
    let (pipeline, once) = (pipeline.downgrade(), Arc::new(AtomicBool::new(false)));
    // A decoder is linked when it knows what it gives, and tags follow before the first picture.
    end.connect_linked(move |end, from| {
        let (pipeline, once, end) = (pipeline.clone(), Arc::clone(&once), end.downgrade());
        from.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |from, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && lies(event)
                && let (Some(pipeline), Some(end)) = (pipeline.upgrade(), end.upgrade())
                && !once.swap(true, SeqCst)
                && let Err(what) = put_between(&pipeline, from, &end)
            {
                warn!("pictures that are to be turned stay as they are: {what}");
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// Whether pictures that come with `event` are to be turned.
fn lies(event: &gst::EventRef) -> bool {
    let gst::EventView::Tag(event) = event.view() else { return false };
    event.tag().get::<gst::tags::ImageOrientation>().is_some_and(|way| way.get() != "rotate-0")
}

/// Puts what turns between two linked pads. Called while `from` pushes an event: GStreamer looks where it leads to afterwards,
/// and tells the new elements first what the old one was told.
fn put_between(pipeline: &gst::Pipeline, from: &gst::Pad, to: &gst::Pad) -> Result<(), String> {
    let wrong = |e: gst::glib::BoolError| e.to_string();
    let convert = gst::ElementFactory::make("videoconvert").build().map_err(wrong)?;
    let flip = gst::ElementFactory::make("videoflip").property_from_str("video-direction", "auto");
    let flip = flip.build().map_err(wrong)?;
    let ends = convert.static_pad("sink").zip(flip.static_pad("src"));
    let (entry, exit) = ends.ok_or("an element has no pads")?;
    pipeline.add_many([&convert, &flip]).map_err(wrong)?;
    convert.link(&flip).map_err(wrong)?;
    for element in [&flip, &convert] {
        element.sync_state_with_parent().map_err(wrong)?;
    }
    from.unlink(to).map_err(wrong)?;
    if exit.link(to).is_ok() && from.link(&entry).is_ok() {
        return Ok(());
    }
    // Back to the straight way. If even that fails the pipeline says so itself.
    drop((exit.unlink(to), from.link(to)));
    Err("the elements do not fit".to_owned())
}
