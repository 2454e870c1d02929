//! One GStreamer connection to a camera: started, watched on its bus, and torn down without ever holding up anybody.
//!
//! State changes can block for as long as a driver or a peer likes. Each runs on a thread of its own with a bounded
//! wait; these are plain threads because a runtime waits for its blocking pool when it stops, and one hung camera
//! must not hold up the stop of the daemon.

use std::{path::Path, sync::Arc, time::Duration};

use gstreamer::{self as gst, prelude::*};
use tokio::{sync::oneshot, time::timeout};
use tracing::{debug, info, warn};

use super::{
    BoxFuture, CameraConfig, End, Opener, Outlet, RestartReason, Source,
    address::Kind,
    diagnose,
    pipeline::{self, Facts},
    public_uri,
    template::Template,
};
use crate::types::CameraId;

/// Longest wait for a pipeline to start. Network sources start at once and connect later.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a pipeline to stop; then it is left to its thread.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Opens cameras with GStreamer.
#[derive(Debug, Clone, Copy, Default)]
pub struct GstOpener;

impl Opener for GstOpener {
    fn open<'a>(
        &'a self,
        config: &'a CameraConfig,
        pipelines: Option<&'a Path>,
        outlet: Outlet,
    ) -> BoxFuture<'a, Result<Box<dyn Source>, End>> {
        Box::pin(async move {
            let (config, pipelines) = (config.clone(), pipelines.map(Path::to_path_buf));
            let opened = off_thread("open", START_LIMIT, move || start(config, pipelines.as_deref(), &outlet)).await;
            let late = || {
                let text = format!("the source did not open within {} s", START_LIMIT.as_secs());
                Err(End::new(RestartReason::StateChange, text))
            };
            opened.unwrap_or_else(late).map(|source| Box::new(source) as Box<dyn Source>)
        })
    }
}

struct GstSource {
    config: CameraConfig,
    running: Running,
    facts: Arc<Facts>,
    end: oneshot::Receiver<End>,
}

fn start(config: CameraConfig, pipelines: Option<&Path>, outlet: &Outlet) -> Result<GstSource, End> {
    let open = |e: super::IngestError| End::new(RestartReason::Open, e.to_string());
    super::init().map_err(open)?;
    let template = Template::choose(&config, pipelines, outlet.canvas()).map_err(open)?;
    let (sender, mut end) = oneshot::channel();
    let facts = Arc::new(Facts::new(sender));
    let pipeline = pipeline::build(&config, &template, outlet, &facts)?;
    debug!(camera = %config.id, template = template.name, "opening");
    let running = Running { camera: config.id.clone(), pipeline: Some(pipeline.clone()) };
    watch_bus(&pipeline, &config, &facts);
    if pipeline.set_state(gst::State::Playing).is_err() {
        // The bus knows better than the return value.
        return Err(end
            .try_recv()
            .unwrap_or_else(|_| End::new(RestartReason::StateChange, "the pipeline does not start".to_owned())));
    }
    Ok(GstSource { config, running, facts, end })
}

/// Turns the first error or end of stream on the bus into the connection's end. Runs on GStreamer's threads, so no
/// message waits anywhere.
fn watch_bus(pipeline: &gst::Pipeline, config: &CameraConfig, facts: &Arc<Facts>) {
    let Some(bus) = pipeline.bus() else { return };
    let (facts, config) = (Arc::clone(facts), config.clone());
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Eos(_) => {
                facts.end(End::new(
                    RestartReason::EndOfStream,
                    format!("{}: the stream ended", public_uri(&config.uri)),
                ));
            }
            gst::MessageView::Error(error) => {
                facts.end(diagnose::classify(&config, &error.error(), error.debug().as_deref()));
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
}

impl Source for GstSource {
    fn ended(&mut self) -> BoxFuture<'_, End> {
        Box::pin(async move {
            let gone = |_| End::new(RestartReason::Stream, "the pipeline went away".to_owned());
            let end = (&mut self.end).await.unwrap_or_else(gone);
            diagnose::refine(&self.config, end, self.facts.has_video()).await
        })
    }

    fn describe(&self) -> String {
        self.facts.describe()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        let Self { mut running, .. } = *self;
        Box::pin(async move {
            let Some(pipeline) = running.pipeline.take() else { return };
            if off_thread("close", STOP_LIMIT, move || close(&pipeline)).await.is_none() {
                warn!(camera = %running.camera, "its pipeline does not stop; it is left behind");
            }
        })
    }
}

/// A pipeline that is stopped when nobody holds it any more, however that came.
struct Running {
    camera: CameraId,
    pipeline: Option<gst::Pipeline>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take()
            && let Err(e) = std::thread::Builder::new().name("close".to_owned()).spawn(move || close(&pipeline))
        {
            warn!(camera = %self.camera, "its pipeline cannot be stopped: {e}");
        }
    }
}

fn close(pipeline: &gst::Pipeline) {
    if pipeline.set_state(gst::State::Null).is_err() {
        info!(pipeline = %pipeline.name(), "did not stop cleanly");
    }
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
        bus.set_flushing(true);
    }
}

/// Runs `work` on its own thread and waits at most `limit`. `None` if it takes longer or cannot run; its result is
/// then dropped where it ends.
pub(super) async fn off_thread<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(sender.send(work())));
    if let Err(e) = spawned {
        warn!("no thread to {name} a camera: {e}");
        return None;
    }
    timeout(limit, receiver).await.ok()?.ok()
}

/// Whether a camera of this kind ends by itself and may be played again.
pub(super) fn is_finite(config: &CameraConfig) -> bool {
    matches!(Kind::of(config), Ok(Kind::File))
}
