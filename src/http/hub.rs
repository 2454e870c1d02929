//! What the daemon feeds and HTTP serves: the latest of everything, nothing older, nothing computed before it is
//! asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, watch};

use super::{
    health::{Health, Reason},
    metrics::Metrics,
    picture::Picture,
    rate::Rate,
};
use crate::types::{CameraId, DropReason, Frame, Pulse, lock};

/// One published frame and what was said about it. The picture is compressed once, for the first who asks.
#[derive(Debug)]
pub(super) struct Shot {
    /// Counts the hub's frames over all cameras; a viewer remembers the last one it got.
    pub(super) number: u64,
    pub(super) frame: Arc<Frame>,
    pub(super) payload: Bytes,
    /// When it was published.
    pub(super) at: Instant,
    pub(super) picture: OnceCell<Picture>,
    /// The age of the pixels at `at` in milliseconds, and the part of a live event that is the same for every viewer.
    pub(super) event: OnceCell<(f64, Bytes)>,
}

#[derive(Debug, Default)]
struct Camera {
    status: Option<Value>,
    shot: Option<Arc<Shot>>,
    rate: Rate,
    /// Its frames numbered below this show what it does not look at any more; the last of them may still arrive.
    from: u64,
}

#[derive(Debug, Default)]
struct Cameras {
    known: BTreeMap<CameraId, Camera>,
    /// Removed ones: their last frames may still arrive and must not bring them back.
    gone: BTreeSet<CameraId>,
}

#[derive(Debug)]
struct Inner {
    version: String,
    epoch: String,
    started: Instant,
    cameras: Mutex<Cameras>,
    states: Mutex<BTreeMap<String, Value>>,
    health: Health,
    metrics: Metrics,
    shots: AtomicU64,
    /// Changes with every frame and state: what viewers sleep on.
    news: watch::Sender<u64>,
    /// Changes with states only.
    states_version: AtomicU64,
}

/// The meeting place of daemon and HTTP. Clones are the same hub; every call stores and returns at once.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

impl Hub {
    /// An empty hub for the process `version` started as `epoch`.
    pub fn new(version: &str, epoch: &str) -> Self {
        Self(Arc::new(Inner {
            version: version.to_owned(),
            epoch: epoch.to_owned(),
            started: Instant::now(),
            cameras: Mutex::default(),
            states: Mutex::default(),
            health: Health::new(),
            metrics: Metrics::new(version, epoch),
            shots: AtomicU64::new(0),
            news: watch::Sender::new(0),
            states_version: AtomicU64::new(0),
        }))
    }

    /// A frame was published with the detections message `payload`. It replaces the camera's last one; its pixels are
    /// held until the next. Frames of a removed camera are ignored until its status is given again.
    pub fn frame(&self, frame: &Arc<Frame>, payload: Bytes) {
        let at = Instant::now();
        let shot = Arc::new(Shot {
            number: self.0.shots.fetch_add(1, Relaxed) + 1,
            frame: Arc::clone(frame),
            payload,
            at,
            picture: OnceCell::new(),
            event: OnceCell::new(),
        });
        let mut cameras = self.cameras();
        if cameras.gone.contains(&frame.camera) {
            return;
        }
        let camera = cameras.known.entry(frame.camera.clone()).or_default();
        if frame.seq < camera.from {
            return;
        }
        camera.rate.tick(at);
        let last = camera.shot.replace(shot);
        drop(cameras);
        // The last frame may go back to its decoder's pool here: outside the lock.
        drop(last);
        self.tell();
    }

    /// A camera's state: the JSON of its status message (`state`, `since`, `reason`), credentials already removed.
    /// The first call makes the camera known.
    pub fn camera_status(&self, camera: &CameraId, json: Value) {
        self.0.metrics.camera_state(camera, json["state"].as_str());
        let mut cameras = self.cameras();
        cameras.gone.remove(camera);
        cameras.known.entry(camera.clone()).or_default().status = Some(json);
        drop(cameras);
        self.states_changed();
    }

    /// The camera looks elsewhere: its picture is gone, and its frames count that are numbered `from` or higher.
    pub fn forget_picture(&self, camera: &CameraId, from: u64) {
        let mut cameras = self.cameras();
        let Some(known) = cameras.known.get_mut(camera) else { return };
        known.from = from;
        let last = known.shot.take();
        drop(cameras);
        drop(last);
        self.tell();
    }

    /// The camera is gone from the configuration: its picture, state and numbers go too.
    pub fn remove_camera(&self, camera: &CameraId) {
        let mut cameras = self.cameras();
        let last = cameras.known.remove(camera);
        cameras.gone.insert(camera.clone());
        drop(cameras);
        drop(last);
        self.0.metrics.remove_camera(camera);
        self.states_changed();
    }

    /// The queries in force and their states: an array of objects with at least `id` and `text`.
    pub fn query_states(&self, json: Value) {
        self.set_state("queries", json);
    }

    /// Anything else worth showing under a name in `/api/status`, as `broker` or `model`.
    pub fn set_state(&self, name: &str, json: Value) {
        lock(&self.0.states).insert(name.to_owned(), json);
        self.states_changed();
    }

    /// Watches a stage: `/healthz` fails while one piece of its work takes longer than `limit`.
    pub fn watch_pulse(&self, pulse: Pulse, limit: Duration) {
        self.0.health.watch(pulse, limit);
    }

    /// Whether something needed for work is there; an error makes `/readyz` fail with its text. `model` must be
    /// reported; that a camera is live is seen from [`Hub::camera_status`].
    pub fn ready(&self, what: &str, state: Result<(), String>) {
        self.0.health.set_ready(what, state);
        self.states_changed();
    }

    /// The numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What keeps the process from being alive.
    pub(super) fn dead_because(&self) -> Vec<Reason> {
        self.0.health.dead_because()
    }

    /// What keeps the process from being of use.
    pub(super) fn unready_because(&self) -> Vec<Reason> {
        let mut reasons = self.0.health.unready_because();
        let cameras = self.cameras();
        let live = |c: &Camera| c.status.as_ref().is_some_and(|s| s["state"] == "live");
        if cameras.known.is_empty() {
            reasons.push(Reason::new("cameras", "none is configured"));
        } else if !cameras.known.values().any(live) {
            reasons.push(Reason::new("cameras", format!("none of {} is live", cameras.known.len())));
        }
        reasons
    }

    /// Wakes with every change.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    pub(super) fn states_version(&self) -> u64 {
        self.0.states_version.load(Relaxed)
    }

    /// Ids of the cameras known now.
    pub(super) fn camera_ids(&self) -> Vec<CameraId> {
        self.cameras().known.keys().cloned().collect()
    }

    pub(super) fn knows(&self, camera: &CameraId) -> bool {
        self.cameras().known.contains_key(camera)
    }

    /// The latest frame of a camera.
    pub(super) fn shot(&self, camera: &CameraId) -> Option<Arc<Shot>> {
        self.cameras().known.get(camera)?.shot.clone()
    }

    /// The number of each camera's latest frame.
    pub(super) fn latest(&self) -> Vec<(CameraId, u64)> {
        let cameras = self.cameras();
        cameras.known.iter().filter_map(|(id, c)| Some((id.clone(), c.shot.as_ref()?.number))).collect()
    }

    /// Every camera with its state and numbers.
    pub(super) fn cameras_json(&self) -> Value {
        let now = Instant::now();
        let row = |(id, camera): (&CameraId, &Camera)| {
            let last = camera.shot.as_ref().map(|shot| millis(now.saturating_duration_since(shot.at)));
            json!({
                "id": id, "status": camera.status, "last_frame_ms": last,
                "fps": (camera.rate.per_second(now) * 100.0).round() / 100.0,
                "restarts": self.0.metrics.restarts(id), "frames": self.frames_json(id),
            })
        };
        self.cameras().known.iter().map(row).collect()
    }

    fn frames_json(&self, camera: &CameraId) -> Value {
        let Some(ledger) = self.0.metrics.ledger(camera) else { return Value::Null };
        let dropped: BTreeMap<_, _> = DropReason::ALL.iter().map(|r| (r.name(), ledger.dropped(*r))).collect();
        json!({
            "decoded": ledger.decoded(), "published": ledger.published(), "in_flight": ledger.in_flight(),
            "dropped": dropped,
        })
    }

    /// One named state; null if it was never set.
    pub(super) fn state(&self, name: &str) -> Value {
        lock(&self.0.states).get(name).cloned().unwrap_or(Value::Null)
    }

    /// The process at a glance.
    pub(super) fn status_json(&self) -> Value {
        let (dead, unready) = (self.dead_because(), self.unready_because());
        let mut status = json!({
            "version": self.0.version, "epoch": self.0.epoch, "uptime_seconds": self.0.started.elapsed().as_secs(),
            "health": {
                "live": dead.is_empty(), "ready": unready.is_empty(),
                "reasons": dead.iter().chain(&unready).collect::<Vec<_>>(),
            },
        });
        status["states"] = json!(*lock(&self.0.states));
        status
    }

    fn states_changed(&self) {
        self.0.states_version.fetch_add(1, Relaxed);
        self.tell();
    }

    fn tell(&self) {
        self.0.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn cameras(&self) -> MutexGuard<'_, Cameras> {
        lock(&self.0.cameras)
    }
}

/// Milliseconds for JSON, to a tenth.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ledger, Size};

    #[test]
    fn a_camera_that_looks_elsewhere_does_not_show_what_it_saw_before() {
        let (hub, ledger, id) = (Hub::new("1", "e"), Arc::new(Ledger::default()), CameraId::new("gate").unwrap());
        let publish = |seq| {
            let frame = Frame { seq, ..Frame::black("gate", &ledger, Size::new(1, 1), Size::new(1, 1)) };
            hub.frame(&Arc::new(frame), Bytes::new());
        };
        let shown = || hub.shot(&id).map(|shot| shot.frame.seq);
        hub.forget_picture(&id, 9);
        publish(3);
        assert_eq!(shown(), Some(3), "of a camera nobody knows there is nothing to forget");
        hub.forget_picture(&id, 5);
        assert_eq!((shown(), hub.latest().len()), (None, 0));
        publish(4);
        assert_eq!(shown(), None, "it was on its way");
        publish(5);
        assert_eq!(shown(), Some(5));
    }
}
