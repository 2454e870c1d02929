//! The running cameras: started, stopped and replaced one by one, so that a change of one never touches another.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::{
    http::Hub,
    ingest::{CameraConfig, CameraStatus, Opener, State, slot::Slot, supervisor},
    publish::{
        Publisher, Topics,
        payload::{self, CameraState},
    },
    schedule::Inlet,
    types::{CameraId, Frame, Ledger},
};

/// A camera's slot, as the scheduler sees it.
struct SlotInlet {
    camera: CameraId,
    slot: Arc<Slot>,
}

impl Inlet for SlotInlet {
    fn camera(&self) -> &CameraId {
        &self.camera
    }
    fn take(&self) -> Option<Frame> {
        self.slot.take()
    }
    fn is_drained(&self) -> bool {
        self.slot.is_drained()
    }
}

struct Running {
    camera: supervisor::Camera,
    status: AbortHandle,
}

/// Every camera of the daemon.
pub(super) struct Cameras {
    running: BTreeMap<CameraId, Running>,
    inlets: watch::Sender<Vec<Arc<dyn Inlet>>>,
    options: supervisor::Options,
    opener: Arc<dyn Opener>,
    announce: Announce,
    tasks: JoinSet<()>,
}

/// Where a camera's status is told.
#[derive(Clone)]
pub(super) struct Announce {
    pub(super) publisher: Option<(Publisher, Topics)>,
    pub(super) hub: Option<Hub>,
}

impl Cameras {
    pub(super) fn new(options: supervisor::Options, opener: Arc<dyn Opener>, announce: Announce) -> Self {
        let (inlets, _) = watch::channel(Vec::new());
        Self { running: BTreeMap::new(), inlets, options, opener, announce, tasks: JoinSet::new() }
    }

    /// What the scheduler takes frames from; follows every change.
    pub(super) fn inlets(&self) -> watch::Receiver<Vec<Arc<dyn Inlet>>> {
        self.inlets.subscribe()
    }

    /// Makes `wanted` true: stops what is gone, starts what is new, restarts what changed, leaves the rest alone.
    /// Returns the ids that are gone for good.
    pub(super) async fn apply(&mut self, wanted: &BTreeMap<CameraId, CameraConfig>) -> Vec<CameraId> {
        let outdated: Vec<CameraId> = self
            .running
            .iter()
            .filter(|(id, running)| wanted.get(*id) != Some(running.camera.config()))
            .map(|(id, _)| id.clone())
            .collect();
        let mut stops = JoinSet::new();
        for id in &outdated {
            if let Some(running) = self.running.remove(id) {
                running.status.abort();
                stops.spawn(running.camera.stop());
            }
        }
        // A camera that will not let go must not hold up the others, but its successor must not meet it either.
        while stops.join_next().await.is_some() {}
        // Decoders of many cameras must not have more threads together than there are cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.options.decoder_threads = u32::try_from((cores / wanted.len().max(1)).max(1)).unwrap_or(1);
        for (id, config) in wanted {
            if !self.running.contains_key(id) {
                let camera = supervisor::start(config.clone(), &self.options, Arc::clone(&self.opener));
                let status = self.tasks.spawn(announce(id.clone(), camera.status(), self.announce.clone()));
                self.running.insert(id.clone(), Running { camera, status });
            }
        }
        self.publish_inlets();
        let gone: Vec<CameraId> = outdated.into_iter().filter(|id| !wanted.contains_key(id)).collect();
        for id in &gone {
            self.announce.gone(id);
        }
        gone
    }

    fn publish_inlets(&self) {
        let inlets = self.running.iter().map(|(id, running)| {
            Arc::new(SlotInlet { camera: id.clone(), slot: Arc::clone(running.camera.slot()) }) as Arc<dyn Inlet>
        });
        self.inlets.send_replace(inlets.collect());
    }

    /// Every camera's account.
    pub(super) fn accounts(&self) -> Vec<(CameraId, Arc<Ledger>)> {
        self.running.iter().map(|(id, running)| (id.clone(), Arc::clone(running.camera.ledger()))).collect()
    }

    /// Every camera's present status.
    pub(super) fn statuses(&self) -> Vec<(CameraId, CameraStatus)> {
        self.running.iter().map(|(id, running)| (id.clone(), running.camera.status().borrow().clone())).collect()
    }

    /// Stops all cameras, side by side.
    pub(super) async fn stop(&mut self) {
        self.apply(&BTreeMap::new()).await;
    }

    /// Why cameras that have ended did so: `Err` texts of those that failed. Only finite sources end.
    pub(super) fn failures(&self) -> Vec<(CameraId, String)> {
        let failure = |(id, running): (&CameraId, &Running)| match running.camera.ended() {
            Some(Err(reason)) => Some((id.clone(), reason)),
            _ => None,
        };
        self.running.iter().filter_map(failure).collect()
    }
}

async fn announce(camera: CameraId, mut status: watch::Receiver<CameraStatus>, to: Announce) {
    let mut restarts = 0;
    loop {
        let now = status.borrow_and_update().clone();
        if let Some(hub) = &to.hub {
            (restarts..now.restarts).for_each(|_| hub.metrics().camera_restart(&camera));
        }
        restarts = now.restarts;
        to.status(&camera, &now);
        if status.changed().await.is_err() {
            return;
        }
    }
}

impl Announce {
    fn status(&self, camera: &CameraId, status: &CameraStatus) {
        let state = match status.state {
            State::Connecting => CameraState::Connecting,
            State::Live => CameraState::Live,
            State::Stalled => CameraState::Stalled,
            State::Failed => CameraState::Failed,
        };
        let message = payload::camera_status(state, status.since, status.reason.as_deref());
        if let Some(hub) = &self.hub {
            hub.camera_status(camera, serde_json::from_slice(&message).unwrap_or_default());
        }
        if let Some((publisher, topics)) = &self.publisher {
            publisher.state(topics.camera_status(camera), message);
        }
    }

    fn gone(&self, camera: &CameraId) {
        if let Some((publisher, topics)) = &self.publisher {
            publisher.state(topics.camera_status(camera), bytes::Bytes::new());
        }
        if let Some(hub) = &self.hub {
            hub.remove_camera(camera);
        }
    }
}
