//! The numbers: every metric's name, meaning and registration. Names are a contract, like topics.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `groundd_stage_seconds` | `stage` = decode, queue, infer | histogram of a frame's time in a stage |
//! | `groundd_age_seconds` | | histogram: capture to publish |
//! | `groundd_batch_frames` | | histogram of frames in one pass of the model |
//! | `groundd_answers_total` | `query`, `status` = ok, shed, error | queries answered on frames |
//! | `groundd_matches_total` | `query` | boxes found |
//! | `groundd_camera_frames_total` | `camera`, `end` = decoded, published | frames, from the camera's ledger |
//! | `groundd_camera_dropped_total` | `camera`, `reason` | frames dropped, from the camera's ledger |
//! | `groundd_camera_in_flight` | `camera` | frames on their way |
//! | `groundd_camera_state` | `camera`, `state` | 1 for the state the camera is in |
//! | `groundd_camera_restarts_total` | `camera` | connections made anew |
//! | `groundd_broker_connected` | | 1 while connected |
//! | `groundd_broker_connects_total` | | connections made |
//! | `groundd_broker_messages_total` | | messages handed to the broker |
//! | `groundd_outbox_events` | | events waiting for the broker |
//! | `groundd_outbox_dropped_total` | | events given up because the outbox was full, or refused by the broker |
//! | `groundd_frames_total` | `look` = looked, still | frames the model looked at; need not, since the picture had not changed |
//! | `groundd_questions_total` | `answer` = asked, reused | queries on frames: asked of the model; answered from what was known |
//! | `groundd_shed_total` | `reason` | queries on frames that were not asked, to save work |
//! | `groundd_live_viewers`, `groundd_live_pictures_total` | | live view: who watches, what it cost |
//! | `groundd_process_*`, `groundd_build_info` | | the process |

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::collect::{BrokerCollector, CameraCollector, ProcessCollector, WorkCollector};
use crate::types::{Answer, CameraId, Grounding, Ledger, QueryId, Status, Work, lock};

/// A single label: its name and value.
pub(super) type Label = (&'static str, String);

/// Bounds from 1 ms to 10 s: a GPU pass is a few milliseconds, a language model on a CPU a few seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const FRAMES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// The broker connection and the outbox, as the publisher counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Broker {
    /// Whether the broker is connected now.
    pub connected: bool,
    /// Connections made since the start.
    pub connects: u64,
    /// Messages handed over since the start.
    pub messages: u64,
    /// Events waiting.
    pub outbox: u64,
    /// Events given up because the outbox was full, or refused by the broker.
    pub outbox_dropped: u64,
}

/// What is known of one camera besides its frames' times.
#[derive(Debug, Default)]
pub(super) struct CameraNumbers {
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) state: Option<String>,
    pub(super) restarts: AtomicU64,
}

pub(super) type Cameras = Arc<Mutex<BTreeMap<CameraId, CameraNumbers>>>;

/// The registry and the metrics that are set as things happen; the rest is collected when asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    stages: Family<[Label; 1], Histogram, fn() -> Histogram>,
    age: Histogram,
    batch: Histogram,
    answers: Family<[Label; 2], Counter>,
    matches: Family<[Label; 1], Counter>,
    cameras: Cameras,
    broker: Arc<Mutex<Broker>>,
    work: Arc<Mutex<Arc<Work>>>,
    pub(super) viewers: Gauge,
    pub(super) pictures: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    pub(super) fn new(version: &str, epoch: &str) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("groundd"),
            stages: Family::new_with_constructor(seconds),
            age: seconds(),
            batch: Histogram::new(FRAMES),
            answers: Family::default(),
            matches: Family::default(),
            cameras: Cameras::default(),
            broker: Arc::default(),
            work: Arc::default(),
            viewers: Gauge::default(),
            pictures: Counter::default(),
        };
        metrics.registered(version, epoch)
    }

    fn registered(mut self, version: &str, epoch: &str) -> Self {
        let r = &mut self.registry;
        let info = Info::new([("version", version.to_owned()), ("epoch", epoch.to_owned())]);
        r.register("build", "Version and start id of this process", info);
        r.register_with_unit("stage", "Time of a frame in a stage", Unit::Seconds, self.stages.clone());
        r.register_with_unit("age", "Age of the pixels when published", Unit::Seconds, self.age.clone());
        r.register("batch_frames", "Frames in one pass of the model", self.batch.clone());
        r.register("answers", "Queries answered on frames, by status", self.answers.clone());
        r.register("matches", "Boxes found", self.matches.clone());
        r.register("live_viewers", "Open live views", self.viewers.clone());
        r.register("live_pictures", "Pictures compressed for the live view", self.pictures.clone());
        r.register_collector(Box::new(CameraCollector(Arc::clone(&self.cameras))));
        r.register_collector(Box::new(BrokerCollector(Arc::clone(&self.broker))));
        r.register_collector(Box::new(WorkCollector(Arc::clone(&self.work))));
        r.register_collector(Box::new(ProcessCollector));
        self
    }

    /// One frame spent `time` in the stage `name`.
    fn stage(&self, name: &'static str, time: Duration) {
        self.stages.get_or_create(&[("stage", name.to_owned())]).observe(time.as_secs_f64());
    }

    /// One pass of the model took `frames` frames.
    pub fn batch(&self, frames: usize) {
        self.batch.observe(frames as f64);
    }

    /// What the model did for a frame: its times in the stages and its answers.
    pub fn grounding(&self, grounding: &Grounding) {
        self.stage("decode", grounding.frame.decode_time);
        // To the moment the model began with its batch.
        self.stage("queue", grounding.timings.queued);
        self.stage("infer", grounding.timings.inferred);
        grounding.answers.iter().for_each(|answer| self.answer(answer));
    }

    /// How old a frame was when it was published, from its capture.
    pub fn age(&self, age: Duration) {
        self.age.observe(age.as_secs_f64());
    }

    fn answer(&self, answer: &Answer) {
        let status = match answer.status {
            Status::Ok => "ok",
            Status::Shed(_) => "shed",
            Status::Error(_) => "error",
        };
        let query = ("query", answer.query.id.to_string());
        self.answers.get_or_create(&[query.clone(), ("status", status.to_owned())]).inc();
        let found = u64::try_from(answer.matches.len()).unwrap_or(u64::MAX);
        self.matches.get_or_create(&[query]).inc_by(found);
    }

    /// Forgets a removed query, so that its numbers do not stay for ever.
    pub fn remove_query(&self, query: &QueryId) {
        let label = ("query", query.to_string());
        for status in ["ok", "shed", "error"] {
            self.answers.remove(&[label.clone(), ("status", status.to_owned())]);
        }
        self.matches.remove(&[label]);
    }

    /// Where the frames of `camera` are counted.
    pub fn camera(&self, camera: &CameraId, ledger: Arc<Ledger>) {
        self.cameras().entry(camera.clone()).or_default().ledger = Some(ledger);
    }

    /// `camera` is connected anew.
    pub fn camera_restart(&self, camera: &CameraId) {
        self.cameras().entry(camera.clone()).or_default().restarts.fetch_add(1, Relaxed);
    }

    pub(super) fn camera_state(&self, camera: &CameraId, state: Option<&str>) {
        self.cameras().entry(camera.clone()).or_default().state = state.map(str::to_owned);
    }

    pub(super) fn remove_camera(&self, camera: &CameraId) {
        self.cameras().remove(camera);
    }

    pub(super) fn ledger(&self, camera: &CameraId) -> Option<Arc<Ledger>> {
        self.cameras().get(camera)?.ledger.clone()
    }

    pub(super) fn restarts(&self, camera: &CameraId) -> u64 {
        self.cameras().get(camera).map_or(0, |numbers| numbers.restarts.load(Relaxed))
    }

    /// The broker's numbers as they are now; kept until the next call.
    pub fn broker(&self, numbers: Broker) {
        *lock(&self.broker) = numbers;
    }

    /// Where the model's work is counted.
    pub fn work(&self, work: Arc<Work>) {
        *lock(&self.work) = work;
    }

    fn cameras(&self) -> MutexGuard<'_, BTreeMap<CameraId, CameraNumbers>> {
        lock(&self.cameras)
    }

    /// All of it in the `OpenMetrics` text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
