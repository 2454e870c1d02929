//! One running pipeline: cameras, scheduler, model, delivery. `run`, `watch` and `demo` all drive this very one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Sinks,
    cameras::{Announce, Cameras},
    deliver::Delivery,
};
use crate::{
    ground::{self, GroundError, Grounder, worker},
    ingest::{
        CameraConfig, CameraStatus, GstOpener,
        slot::Policy,
        supervisor::{Options, Restart},
    },
    schedule::{self, Scheduler},
    track::TrackConfig,
    types::{CameraId, Ledger, Pulse, QuerySet},
};

/// How a pipeline is to run.
pub struct Plan {
    /// Keep every frame, in order, rather than the newest.
    pub every_frame: bool,
    /// Cameras whose pictures are tracked by their own time rather than by when they come: films, which may be read faster or slower
    /// than they were taken, and have no outages.
    pub films: BTreeSet<CameraId>,
    /// Finite sources end, and the pipeline with the last of them, rather than being opened again.
    pub finite: bool,
    /// Pixels older than this are not published; ignored with `every_frame`.
    pub staleness: Duration,
    /// Most frames in one batch, where the model was loaded once; 0 is the model's limit.
    pub max_batch: usize,
    /// The tracker's settings.
    pub track: TrackConfig,
    /// How often a query's snapshot may change; `None` is never.
    pub snapshot_every: Option<Duration>,
    /// Folder of pipeline templates.
    pub pipelines: Option<PathBuf>,
}

impl Plan {
    /// Pixels older than this are not published; `None` has no limit.
    pub(super) fn staleness(&self) -> Option<Duration> {
        (!self.every_frame).then_some(self.staleness)
    }
}

/// Why a pipeline ended badly.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The model's thread ended by itself.
    #[error(transparent)]
    Model(#[from] GroundError),
    /// A task of the daemon panicked: a bug.
    #[error("an internal task failed: {0}; please report this")]
    Task(#[from] JoinError),
    /// The lines could not be written.
    #[error("cannot write the output: {0}; make room, or write it elsewhere")]
    Output(#[source] io::Error),
}

/// Frames kept for a consumer that is slower than the decoder, with `every_frame`.
const EVERY_FRAME_QUEUE: usize = 4;

/// How long the batch in hand may take at the end, and then the last words: a model that looks for longer at one picture
/// is not waited for, and neither is a reader of the lines that does not read.
const LAST_BATCH: Duration = Duration::from_secs(4);
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running pipeline.
pub struct Pipeline {
    cameras: Cameras,
    queries: watch::Sender<Arc<QuerySet>>,
    /// Cameras of which nothing known holds any more, and since when.
    gone: mpsc::Sender<(CameraId, Instant)>,
    pulses: Vec<Pulse>,
    shutdown: CancellationToken,
    /// Ends the delivery before the model has.
    leave: CancellationToken,
    scheduler: JoinHandle<()>,
    delivery: JoinHandle<io::Result<()>>,
    /// Cancelled when the delivery has ended, however it ended.
    done: CancellationToken,
    worker: worker::Handle,
}

impl Pipeline {
    /// Starts everything but cameras; give it those with [`Pipeline::set_cameras`].
    pub fn start(mut grounder: Box<dyn Grounder>, plan: Plan, sinks: Sinks, queries: QuerySet, epoch: String) -> Self {
        let limits = grounder.limits();
        let ready = Arc::new(Notify::new());
        let policy = if plan.every_frame { Policy::Every { capacity: EVERY_FRAME_QUEUE } } else { Policy::Latest };
        let options = Options {
            canvases: limits.canvases,
            policy,
            restart: if plan.finite { Restart::Once } else { Restart::Forever },
            ready: Arc::clone(&ready),
            pipelines: plan.pipelines.clone(),
            decoder_threads: 0,
        };
        let announce = Announce { publisher: sinks.publisher.clone(), hub: sinks.hub.clone() };
        let cameras = Cameras::new(options, Arc::new(GstOpener), announce);
        let (queries, _) = watch::channel(Arc::new(queries));
        let (gone, gone_rx) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        // A batch's makeup may change the last digits of a sum; one frame at a time, a file's answers never vary.
        let at_once = if plan.every_frame { 1 } else { schedule::at_once(plan.max_batch) };
        let (staleness, finite, follows) = (plan.staleness(), plan.finite, !plan.every_frame);
        let delivery = Delivery::new(plan, sinks, epoch, queries.subscribe(), cameras.inlets());
        let (leave, delivering) = (delivery.leave.clone(), delivery.pulse.clone());
        if follows {
            // Tracking may be a frame behind or not: a file's answers must not depend on it.
            grounder.follow(Arc::clone(&delivery.followed));
        }
        let team = ground::team(grounder);
        // Several models take a picture each, as soon as one of them is free; a single one takes as many as it can.
        let max_batch = if team.len() > 1 { 1 } else { at_once.min(limits.max_batch) };
        let cutting = Pulse::new("schedule");
        let scheduler = Scheduler {
            inlets: cameras.inlets(),
            queries: queries.subscribe(),
            ready,
            staleness,
            max_batch,
            finish: finite,
            pulse: cutting.clone(),
        };
        let team: Vec<_> = team.into_iter().map(|grounder| (grounder, Pulse::new("ground"))).collect();
        let mut pulses = vec![cutting, delivering];
        pulses.extend(team.iter().map(|(_, pulse)| pulse.clone()));
        let worker = worker::spawn(team);
        let done = CancellationToken::new();
        let ended = done.clone().drop_guard();
        Self {
            scheduler: tokio::spawn(scheduler.run(worker.batches, worker.turns, worker.underway, shutdown.clone())),
            delivery: tokio::spawn(async move {
                let _done = ended;
                delivery.run(worker.groundings, gone_rx).await
            }),
            done,
            worker: worker.handle,
            pulses,
            cameras,
            queries,
            gone,
            shutdown,
            leave,
        }
    }

    /// Makes the running cameras those of `wanted`.
    pub async fn set_cameras(&mut self, wanted: &BTreeMap<CameraId, CameraConfig>) {
        for camera in self.cameras.stop_all_but(wanted).await {
            // Told before its successor starts, whose pictures may not be taken for the old one's. The delivery may have ended; then
            // there is nothing to tidy up.
            self.gone.send((camera, Instant::now())).await.ok();
        }
        self.cameras.start(wanted);
    }

    /// Puts `queries` in force from the next batch on.
    pub fn set_queries(&self, queries: QuerySet) {
        self.queries.send_replace(Arc::new(queries));
    }

    /// Signs of life of all stages, for the watchdog.
    pub fn pulses(&self) -> Vec<Pulse> {
        self.pulses.clone()
    }

    /// Every camera's frame account.
    pub fn accounts(&self) -> Vec<(CameraId, Arc<Ledger>)> {
        self.cameras.accounts()
    }

    /// Every camera's present status.
    pub fn statuses(&self) -> Vec<(CameraId, CameraStatus)> {
        self.cameras.statuses()
    }

    /// Finite cameras that ended with an error, and why.
    pub fn failures(&self) -> Vec<(CameraId, String)> {
        self.cameras.failures()
    }

    /// Waits for the end of the delivery: every finite source is through, nobody reads the lines any more, or the
    /// model's thread has died.
    pub async fn finished(&self) {
        self.done.cancelled().await;
    }

    /// Stops in the order of the flow, so that nothing waits for something already gone.
    pub async fn stop(&mut self) -> Result<(), PipelineError> {
        self.cameras.stop().await;
        self.shutdown.cancel();
        let flow = async {
            (&mut self.scheduler).await?;
            (&mut self.delivery).await
        };
        if let Ok(written) = timeout(LAST_BATCH, flow).await {
            // The delivery may have ended before the model: then nobody wants what it is at work on.
            timeout(LAST_BATCH, self.worker.join()).await.unwrap_or(Ok(()))?;
            return written?.map_err(PipelineError::Output);
        }
        warn!("the last pictures are given up: the model is still at work on them, or nobody reads the output");
        self.leave.cancel();
        let unread = || io::Error::new(io::ErrorKind::TimedOut, "whoever reads it does not");
        let written = timeout(LAST_WORDS, &mut self.delivery).await.map_err(|_| PipelineError::Output(unread()))?;
        written?.map_err(PipelineError::Output)
    }
}

/// Identifies a start of the daemon: sequence numbers begin anew with it.
pub fn new_epoch() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_millis(), std::process::id())
}
