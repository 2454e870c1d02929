//! From a template to a GStreamer pipeline that offers its pictures to an outlet.
//!
//! Everything a user wrote (URI, credentials, files) is set here as a property of the element named `source`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use gstreamer::{self as gst, glib::types::StaticType, prelude::*};
use gstreamer_app as gst_app;
use gstreamer_rtsp_server::gio;
use gstreamer_video as gst_video;
use tokio::sync::oneshot;

use super::{
    CameraConfig, End, Flow, Outlet, RestartReason, Transport,
    address::file_path,
    clock::{Arrivals, SenderReport},
    gate::Gate,
    public_uri,
    secrets::Access,
    source::{is_finite, is_http},
    tap::Tap,
    template::Template,
    upright::set_upright,
};
use crate::types::lock;

/// What is learned about a connection while it runs; shared by the callbacks of one pipeline.
pub(super) struct Facts {
    pub(super) arrivals: Arrivals,
    pub(super) gate: Gate,
    end: Mutex<Option<oneshot::Sender<End>>>,
    found: Mutex<Found>,
    /// A video stream was offered by the RTSP server.
    has_video: AtomicBool,
}

#[derive(Default)]
struct Found {
    codec: Option<String>,
    decoder: Option<String>,
    format: Option<String>,
}

impl Facts {
    pub(super) fn new(end: oneshot::Sender<End>) -> Self {
        Self {
            arrivals: Arrivals::default(),
            gate: Gate::default(),
            end: Mutex::new(Some(end)),
            found: Mutex::default(),
            has_video: AtomicBool::new(false),
        }
    }

    /// Ends the connection. One fault has many echoes; only the first word counts.
    pub(super) fn end(&self, end: End) {
        if let Some(sender) = lock(&self.end).take() {
            // A connection that nobody watches any more may end unheard.
            drop(sender.send(end));
        }
    }

    /// Codec, size, rate and decoder, as far as known.
    pub(super) fn describe(&self) -> String {
        let found = self.found();
        let mut words: Vec<String> = found.codec.iter().chain(&found.format).cloned().collect();
        words.extend(found.decoder.iter().map(|d| format!("({d})")));
        words.join(" ")
    }

    /// Whether an RTSP server offered a video stream.
    pub(super) fn has_video(&self) -> bool {
        self.has_video.load(SeqCst)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        lock(&self.found)
    }

    /// Pictures have this format from now on.
    pub(super) fn format(&self, format: String) {
        self.found().format = Some(format);
    }

    /// The input of a decoder called `decoder` has this format from now on, and had that `before`.
    fn codec(&self, decoder: &str, caps: &gst::CapsRef, before: &Mutex<Option<String>>) {
        let Some(structure) = caps.structure(0) else { return };
        let codec = codec_name(structure.name());
        let mut found = self.found();
        found.decoder = Some(decoder.to_owned());
        found.codec = Some(codec.clone());
        drop(found);
        let before = lock(before).replace(codec.clone());
        if let Some(before) = before.filter(|b| *b != codec) {
            self.end(End::new(RestartReason::CodecChanged, format!("the stream changed from {before} to {codec}")));
        }
    }

    /// Data reaches a decoder.
    fn encoded(&self, buffer: &gst::BufferRef) {
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let alone = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        self.gate.encoded(alone, pts, Instant::now());
        if let Some(pts) = pts {
            self.arrivals.note(pts, None);
        }
    }
}

/// `video/x-h264` -> `H264`.
fn codec_name(media_type: &str) -> String {
    match media_type {
        "image/jpeg" => "MJPEG".to_owned(),
        other => other.rsplit('/').next().unwrap_or(other).trim_start_matches("x-").to_ascii_uppercase(),
    }
}

/// Builds the pipeline for `config` from `template`. It is not started.
pub(super) fn build(
    config: &CameraConfig,
    template: &Template,
    outlet: &Outlet,
    facts: &Arc<Facts>,
) -> Result<gst::Pipeline, End> {
    let wrong =
        |what: String| End::new(RestartReason::Open, format!("the pipeline template `{}` {what}", template.name));
    let pipeline = parse(&template.text).map_err(wrong)?;
    let source = pipeline.by_name("source").ok_or_else(|| wrong("has no element named `source`".to_owned()))?;
    let sink = pipeline.by_name("out").and_then(|e| e.downcast::<gst_app::AppSink>().ok());
    let sink = sink.ok_or_else(|| wrong("has no appsink named `out`".to_owned()))?;
    set_source(&source, config).map_err(|text| End::new(RestartReason::Open, text))?;
    if outlet.wants_every() {
        // Then the model is waited for, and packets are not too late.
        set(&source, "drop-on-latency", false);
    }
    watch_source(&source, facts);
    let live = !is_finite(config);
    watch_decoders(&pipeline, facts, outlet.decoder_threads(), live);
    if is_http(config) {
        keep_to_the_web(&pipeline, config, facts);
    }
    set_upright(&pipeline, &sink);
    set_sink(&sink, outlet, facts, live);
    Ok(pipeline)
}

/// Whether `text` is a pipeline this module can run.
pub(super) fn check(text: &str) -> Result<(), String> {
    let pipeline = parse(text)?;
    let has = |name: &str| pipeline.by_name(name);
    has("source").ok_or("has no element named `source`")?;
    let sink = has("out").filter(gst::prelude::ObjectExt::is::<gst_app::AppSink>);
    sink.map(drop).ok_or_else(|| "has no appsink named `out`".to_owned())
}

/// Parses gst-launch text; errors continue a sentence about the template.
fn parse(text: &str) -> Result<gst::Pipeline, String> {
    let element = gst::parse::launch_full(text, None, gst::ParseFlags::FATAL_ERRORS)
        .map_err(|e| format!("does not parse: {}", e.message()))?;
    element.downcast().map_err(|_| "is a single element, not a pipeline".to_owned())
}

/// Sets a property if the element has it, so that user templates may use other elements.
fn set(element: &gst::Element, name: &str, value: impl Into<gst::glib::Value>) {
    if element.find_property(name).is_some() {
        element.set_property_from_value(name, &value.into());
    }
}

fn set_source(source: &gst::Element, config: &CameraConfig) -> Result<(), String> {
    let access = Access::of(config).map_err(|e| e.to_string())?;
    let patience = Duration::try_from_secs_f32(config.stall_seconds).unwrap_or(Duration::from_secs(5));
    match source.factory().map(|f| f.name().to_string()).as_deref() {
        Some("rtspsrc") => {
            // The supervisor's stall timer speaks first, since it knows what to say.
            let micros = u64::try_from((patience + Duration::from_secs(2)).as_micros()).unwrap_or(u64::MAX);
            set(source, "location", &access.location);
            set(source, "latency", config.latency_ms);
            set(source, "tcp-timeout", micros);
            set(source, "timeout", micros);
            let secure = config.uri.to_ascii_lowercase().starts_with("rtsps:");
            source.set_property_from_str(
                "protocols",
                match (config.transport, secure) {
                    (Transport::Tcp, true) => "tcp+tls",
                    (Transport::Tcp, false) => "tcp",
                    (Transport::Udp, true) => "udp+tls",
                    (Transport::Udp, false) => "udp",
                },
            );
        }
        Some("souphttpsrc") => {
            set(source, "location", &access.location);
            set(source, "timeout", u32::try_from(patience.as_secs()).unwrap_or(5).max(1));
        }
        Some("filesrc") => set(source, "location", file_path(config).to_string_lossy().as_ref()),
        Some("v4l2src") => set(source, "device", &config.uri),
        Some("videotestsrc") => set_pattern(source, &config.uri)?,
        _ => {
            set(source, "location", &access.location);
            set(source, "uri", &access.location);
        }
    }
    for (name, value) in [("user-id", access.user), ("user-pw", access.password)] {
        if value.is_some() {
            set(source, name, value);
        }
    }
    if let Some(path) = &config.ca_file
        && source.find_property("tls-database").is_some()
    {
        let path = std::path::absolute(path).map_err(|e| format!("ca_file `{}`: {e}", path.display()))?;
        let database = gio::TlsFileDatabase::new(&path)
            .map_err(|e| format!("ca_file `{}` holds no usable certificate: {}", path.display(), e.message()))?;
        source.set_property("tls-database", &database);
    }
    Ok(())
}

/// `test://ball` -> the pattern `ball`.
fn set_pattern(source: &gst::Element, uri: &str) -> Result<(), String> {
    let wanted = uri.trim_start_matches("test://").trim_matches('/');
    let wanted = if wanted.is_empty() { "smpte" } else { wanted };
    let class = source.find_property("pattern").and_then(|p| gst::glib::EnumClass::with_type(p.value_type()));
    let value = class.as_ref().and_then(|c| c.to_value_by_nick(wanted));
    match (value, class) {
        (Some(value), _) => {
            source.set_property_from_value("pattern", &value);
            Ok(())
        }
        (None, class) => {
            let nicks: Vec<_> = class.iter().flat_map(|c| c.values().iter().map(|v| v.nick().to_owned())).collect();
            Err(format!("there is no test picture `{wanted}`; there are {}", nicks.join(", ")))
        }
    }
}

/// RTSP only: takes the first video stream and no other, and learns the sender's clock.
fn watch_source(source: &gst::Element, facts: &Arc<Facts>) {
    if source.factory().is_none_or(|f| f.name() != "rtspsrc") {
        return;
    }
    let known = Arc::clone(facts);
    source.connect("select-stream", false, move |args| {
        let caps = args.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let media = caps.as_ref().and_then(|c| c.structure(0)).and_then(|s| s.get::<String>("media").ok());
        let first_video = media.as_deref() == Some("video") && !known.has_video.swap(true, SeqCst);
        Some(first_video.to_value())
    });
    let known = Arc::clone(facts);
    source.connect("new-manager", false, move |args| {
        if let Some(manager) = args.get(1).and_then(|v| v.get::<gst::Element>().ok()) {
            watch_reports(&manager, &known);
        }
        None
    });
    let known = Arc::clone(facts);
    source.connect_pad_added(move |_, pad| {
        let known = Arc::clone(&known);
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let Some(buffer) = info.buffer()
                && let Some(pts) = buffer.pts()
            {
                known.arrivals.note(pts.nseconds(), sender_time(pad, buffer, &known));
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// Keeps the newest RTCP sender report of every sender that `rtpbin` hears.
fn watch_reports(rtpbin: &gst::Element, facts: &Arc<Facts>) {
    let known = Arc::clone(facts);
    rtpbin.connect("on-ssrc-active", false, move |args| {
        let rtpbin = args.first()?.get::<gst::Element>().ok()?;
        let (session, ssrc) = (args.get(1)?.get::<u32>().ok()?, args.get(2)?.get::<u32>().ok()?);
        let session = rtpbin.emit_by_name::<Option<gst::glib::Object>>("get-internal-session", &[&session])?;
        let sender = session.emit_by_name::<Option<gst::glib::Object>>("get-source-by-ssrc", &[&ssrc])?;
        let stats = sender.property::<gst::Structure>("stats");
        if stats.get::<bool>("have-sr").unwrap_or(false)
            && let (Ok(ntp), Ok(rtp)) = (stats.get::<u64>("sr-ntptime"), stats.get::<u32>("sr-rtptime"))
        {
            known.arrivals.report(ssrc, SenderReport { ntp, rtp }, Instant::now());
        }
        None
    });
}

/// When the sender says the data in this RTP packet was captured.
fn sender_time(pad: &gst::Pad, packet: &gst::BufferRef, facts: &Facts) -> Option<SystemTime> {
    let mut header = [0u8; 12];
    packet.copy_to_slice(0, &mut header).ok()?;
    let word = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let rate = pad.current_caps()?.structure(0)?.get::<i32>("clock-rate").ok()?;
    facts.arrivals.sent(word(8)?, word(4)?, u32::try_from(rate).ok()?, Instant::now())
}

/// Notes which decoder is at work, on what, when data reached it and from where on it can be decoded.
fn watch_decoders(pipeline: &gst::Pipeline, facts: &Arc<Facts>, threads: u32, live: bool) {
    let (known, only) = (Arc::clone(facts), Arc::<Mutex<Option<String>>>::default());
    pipeline.connect_deep_element_added(move |_, _, element| {
        let (Some(factory), class) = (element.factory(), element.metadata("klass").unwrap_or_default()) else { return };
        if factory.name() == "multipartdemux" {
            // MJPEG over HTTP: without a word that no more streams follow, decodebin waits for two megabytes.
            element.set_property("single-stream", true);
        }
        if !class.starts_with("Codec/Decoder") || !(class.contains("Video") || class.contains("Image")) {
            return;
        }
        if threads > 0 && element.find_property("max-threads").is_some_and(|p| p.value_type() == i32::static_type()) {
            element.set_property("max-threads", i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let Some(pad) = element.static_pad("sink") else { return };
        // A camera has one stream, and another decoder is for what became of it; each track of a film has its own.
        let before = if live { Arc::clone(&only) } else { Arc::default() };
        let known = Arc::clone(&known);
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => known.encoded(buffer),
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(event) = event.view() {
                        known.codec(&factory.name(), event.caps(), &before);
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// Where no file can be. Without any location `adaptivedemux` crashes: it takes the protocol of what a source reads when it tries again.
const NOWHERE: &str = "/dev/null/nowhere";

/// What comes over HTTP may be a playlist, and that may name anything, files of this machine among them. Nothing but the web gets
/// through.
fn keep_to_the_web(pipeline: &gst::Pipeline, config: &CameraConfig, facts: &Arc<Facts>) {
    let (uri, facts) = (public_uri(&config.uri), Arc::clone(facts));
    pipeline.connect_deep_element_added(move |_, _, element| {
        let Some(handler) = element.dynamic_cast_ref::<gst::URIHandler>() else { return };
        if handler.uri_type() != gst::URIType::Src || handler.protocols().iter().any(|protocol| protocol == "https") {
            return;
        }
        if element.factory().is_some_and(|factory| factory.name() == "filesrc") {
            element.set_property("location", NOWHERE);
        }
        // Demuxers try again, and set the address anew: whatever it reads until the pipeline is stopped, nobody gets it.
        element.src_pads().iter().for_each(give_nothing);
        element.connect_pad_added(|_, pad| give_nothing(pad));
        let text = format!(
            "{uri}: its playlist names something that is not on the web; only http:// and https:// may stand there"
        );
        facts.end(End::new(RestartReason::Open, text));
    });
}

fn give_nothing(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, |_, _| gst::PadProbeReturn::Drop);
}

/// Tells the decoder that the rows of a picture may lie as it likes: `gst-libav` hands out the pictures it decoded then,
/// and copies each of them into memory of its own otherwise (`gst_ffmpegviddec_decide_allocation`).
pub(super) fn take_any_layout(sink: &gst_app::AppSink) {
    let Some(pad) = sink.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        let query = info.query_mut().map(gst::QueryRef::view_mut);
        let Some(gst::QueryViewMut::Allocation(query)) = query else { return gst::PadProbeReturn::Ok };
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        gst::PadProbeReturn::Handled
    });
}

fn set_sink(sink: &gst_app::AppSink, outlet: &Outlet, facts: &Arc<Facts>, live: bool) {
    take_any_layout(sink);
    // Every picture is pulled as it comes, so nothing ever waits in the sink; these bounds are for the day it does.
    sink.set_max_buffers(1);
    sink.set_drop(!outlet.wants_every());
    sink.set_property("enable-last-sample", false);
    if outlet.wants_every() {
        sink.set_property("sync", false);
    }
    let (mut tap, facts) = (Tap::new(sink, outlet, facts, live), Arc::clone(facts));
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        match tap.offer(&sample, sink) {
            Ok(Flow::Continue) => Ok(gst::FlowSuccess::Ok),
            Ok(Flow::Closed) => Err(gst::FlowError::Eos),
            Err(text) => {
                facts.end(End::new(RestartReason::Stream, text));
                Err(gst::FlowError::Error)
            }
        }
    });
    sink.set_callbacks(callbacks.build());
}
