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
/// Attempts of one camera that may hang, while it is opened or closed, before there are no more of them: each has a thread and
/// a pipeline for as long as a driver or a peer holds it.
const HANGING: usize = 2;

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
            if outlet.attempts() >= HANGING {
                let text =
                    format!("the last {HANGING} attempts to open it still hang; there is another when one is over");
                return Err(End::new(RestartReason::StateChange, text));
            }
            let (config, pipelines, attempt) = (config.clone(), pipelines.map(Path::to_path_buf), outlet.attempt());
            let work = move || start(config, pipelines.as_deref(), &outlet, attempt);
            let opened = off_thread("open", START_LIMIT, work).await;
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
    /// What `end` has told: it does so only once.
    told: Option<End>,
}

fn start(config: CameraConfig, pipelines: Option<&Path>, outlet: &Outlet, attempt: Arc<()>) -> Result<GstSource, End> {
    let open = |e: super::IngestError| End::new(RestartReason::Open, e.to_string());
    super::init().map_err(open)?;
    let template = Template::choose(&config, pipelines, outlet.canvases().usual()).map_err(open)?;
    let (sender, mut end) = oneshot::channel();
    let facts = Arc::new(Facts::new(sender));
    let pipeline = pipeline::build(&config, &template, outlet, &facts)?;
    debug!(camera = %config.id, template = template.name, "opening");
    let held = Pipeline { pipeline: pipeline.clone(), _attempt: attempt };
    let running = Running { camera: config.id.clone(), pipeline: Some(held) };
    watch_bus(&pipeline, &config, &facts);
    if pipeline.set_state(gst::State::Playing).is_err() {
        // The bus knows better than the return value.
        return Err(end
            .try_recv()
            .unwrap_or_else(|_| End::new(RestartReason::StateChange, "the pipeline does not start".to_owned())));
    }
    Ok(GstSource { config, running, facts, end, told: None })
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
            if let Some(told) = &self.told {
                return told.clone();
            }
            let gone = |_| End::new(RestartReason::Stream, "the pipeline went away".to_owned());
            let end = (&mut self.end).await.unwrap_or_else(gone);
            // Nothing is waited for from here on, so it cannot be lost.
            self.told.insert(end).clone()
        })
    }

    fn explain(&mut self, end: End) -> BoxFuture<'_, End> {
        Box::pin(async move { diagnose::refine(&self.config, end, self.facts.has_video()).await })
    }

    fn describe(&self) -> String {
        self.facts.describe()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        let Self { mut running, .. } = *self;
        Box::pin(async move {
            let Some(pipeline) = running.pipeline.take() else { return };
            if off_thread("close", STOP_LIMIT, move || pipeline.close()).await.is_none() {
                warn!(camera = %running.camera, "its pipeline does not stop; it is left behind");
            }
        })
    }
}

/// A pipeline, and the attempt that it is, which is over when the pipeline has stopped.
struct Pipeline {
    pipeline: gst::Pipeline,
    _attempt: Arc<()>,
}

impl Pipeline {
    fn close(self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            info!(pipeline = %self.pipeline.name(), "did not stop cleanly");
        }
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
            bus.set_flushing(true);
        }
    }
}

/// A pipeline that is stopped when nobody holds it any more, however that came.
struct Running {
    camera: CameraId,
    pipeline: Option<Pipeline>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take()
            && let Err(e) = std::thread::Builder::new().name("close".to_owned()).spawn(move || pipeline.close())
        {
            warn!(camera = %self.camera, "its pipeline cannot be stopped: {e}");
        }
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
pub fn is_finite(config: &CameraConfig) -> bool {
    matches!(Kind::of(config), Ok(Kind::File))
}

/// Whether a camera is reached by HTTP.
pub(super) fn is_http(config: &CameraConfig) -> bool {
    matches!(Kind::of(config), Ok(Kind::Http))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ingest::{Policy, Slot},
        types::Size,
    };

    fn config(uri: &str) -> CameraConfig {
        CameraConfig::new(CameraId::new("gate").unwrap(), uri)
    }

    #[tokio::test]
    async fn an_end_that_nobody_waited_for_is_told_again() {
        let config = config("rtsp://h/s");
        let (sender, end) = oneshot::channel();
        let facts = Arc::new(Facts::new(sender));
        let running = Running { camera: config.id.clone(), pipeline: None };
        let mut source = GstSource { config, running, facts: Arc::clone(&facts), end, told: None };
        let waited = timeout(Duration::from_millis(1), source.ended()).await;
        assert!(waited.is_err(), "it goes on");
        let end = End::new(RestartReason::Open, "it broke");
        facts.end(end.clone());
        for _ in 0..3 {
            assert_eq!(source.ended().await, end);
        }
    }

    #[tokio::test]
    async fn a_camera_whose_attempts_hang_is_not_opened_again_and_again() {
        let config = config("gopher://h");
        let slot = Arc::new(Slot::new(Policy::Latest, Arc::default()));
        let outlet = Outlet::new(config.id.clone(), Size::new(32, 32), Policy::Latest, None, slot, Arc::default());
        let refusal = async || GstOpener.open(&config, None, outlet.next_run()).await.err().unwrap();
        let mut hanging: Vec<_> = (0..HANGING).map(|_| outlet.attempt()).collect();
        let end = refusal().await;
        assert!(end.reason == RestartReason::StateChange && end.text.contains("still hang"), "{end:?}");
        hanging.pop();
        let end = refusal().await;
        assert_eq!(end.reason, RestartReason::Open, "this one was tried: {end:?}");
        drop(hanging);
        assert_eq!(outlet.attempts(), 0);
    }
}
