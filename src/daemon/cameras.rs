//! The running cameras: started, stopped and replaced one by one, so that a change of one never touches another.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::{
    http::Hub,
    ingest::{CameraConfig, CameraStatus, Opener, State, slot::Slot, supervisor},
    publish::{
        Publisher,
        payload::{self, CameraState},
    },
    schedule::Inlet,
    types::{CameraId, DropReason, Frame, Ledger},
};

/// How often restarts are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// A camera's slot, as the scheduler sees it.
struct SlotInlet {
    camera: CameraId,
    slot: Arc<Slot>,
}

impl Inlet for SlotInlet {
    fn camera(&self) -> &CameraId {
        &self.camera
    }
    fn take(&self, now: Instant) -> Option<Frame> {
        self.slot.take(now)
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
    /// The account of every camera there ever was: one that is changed, or comes back, goes on counting.
    ledgers: BTreeMap<CameraId, Arc<Ledger>>,
    inlets: watch::Sender<Vec<Arc<dyn Inlet>>>,
    options: supervisor::Options,
    opener: Arc<dyn Opener>,
    announce: Announce,
    tasks: JoinSet<()>,
}

/// Where a camera's status is told.
#[derive(Clone)]
pub(super) struct Announce {
    pub(super) publisher: Option<Publisher>,
    pub(super) hub: Option<Hub>,
}

impl Cameras {
    pub(super) fn new(options: supervisor::Options, opener: Arc<dyn Opener>, announce: Announce) -> Self {
        let (inlets, _) = watch::channel(Vec::new());
        let (running, ledgers) = (BTreeMap::new(), BTreeMap::new());
        Self { running, ledgers, inlets, options, opener, announce, tasks: JoinSet::new() }
    }

    /// What the scheduler takes frames from; follows every change.
    pub(super) fn inlets(&self) -> watch::Receiver<Vec<Arc<dyn Inlet>>> {
        self.inlets.subscribe()
    }

    /// Stops what is not as in `wanted`, which is to be [started](Self::start) then. Returns the ids of which nothing known holds any
    /// more: those that are gone, and those that are to look elsewhere.
    pub(super) async fn stop_all_but(&mut self, wanted: &BTreeMap<CameraId, CameraConfig>) -> Vec<CameraId> {
        let outdated: Vec<CameraId> = self
            .running
            .iter()
            .filter(|(id, running)| wanted.get(*id) != Some(running.camera.config()))
            .map(|(id, _)| id.clone())
            .collect();
        let elsewhere = |id: &CameraId| {
            let (old, new) = (self.running.get(id).map(|r| &r.camera.config().uri), wanted.get(id).map(|c| &c.uri));
            old != new
        };
        let strange: Vec<CameraId> = outdated.iter().filter(|id| elsewhere(id)).cloned().collect();
        // Of those that were ended before.
        while self.tasks.try_join_next().is_some() {}
        let (mut stops, mut slots) = (JoinSet::new(), Vec::new());
        for id in &outdated {
            if let Some(running) = self.running.remove(id) {
                running.status.abort();
                slots.push(Arc::clone(running.camera.slot()));
                stops.spawn(running.camera.stop());
            }
        }
        // A camera that will not let go must not hold up the others, but its successor must not meet it either.
        while stops.join_next().await.is_some() {}
        for id in &strange {
            // Nobody may see the old scene under what is told of the new one, not even from frames that are on their way.
            self.announce.forget_picture(id, self.ledgers.get(id).map_or(0, |ledger| ledger.decoded()));
        }
        self.publish_inlets();
        for slot in slots {
            // A pipeline that does not stop keeps its slot, and a frame in it would be on its way for ever.
            while let Some(frame) = slot.take(Instant::now()) {
                frame.ticket.drop_for(DropReason::Shutdown);
            }
        }
        for id in outdated.iter().filter(|id| !wanted.contains_key(*id)) {
            self.announce.gone(id);
        }
        strange
    }

    /// Starts those of `wanted` that do not run.
    pub(super) fn start(&mut self, wanted: &BTreeMap<CameraId, CameraConfig>) {
        // Decoders of cameras that start together should not have more threads than there are cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.options.decoder_threads = u32::try_from((cores / wanted.len().max(1)).max(1)).unwrap_or(1);
        for (id, config) in wanted {
            if !self.running.contains_key(id) {
                let ledger = Arc::clone(self.ledgers.entry(id.clone()).or_default());
                let camera = supervisor::start(config.clone(), &self.options, Arc::clone(&self.opener), ledger);
                let status = self.tasks.spawn(announce(id.clone(), camera.status(), self.announce.clone()));
                self.running.insert(id.clone(), Running { camera, status });
            }
        }
        self.publish_inlets();
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
        self.stop_all_but(&BTreeMap::new()).await;
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

/// Tells every change of a camera's status, and counts its restarts, which change nothing while it stays away.
async fn announce(camera: CameraId, mut status: watch::Receiver<CameraStatus>, to: Announce) {
    let (mut restarts, mut count) = (0, tokio::time::interval(COUNT_EVERY));
    to.status(&camera, &status.borrow_and_update().clone());
    loop {
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
                to.status(&camera, &status.borrow_and_update().clone());
            }
            _ = count.tick() => {}
        }
        let now = status.borrow().restarts;
        if let Some(hub) = &to.hub {
            (restarts..now).for_each(|_| hub.metrics().camera_restart(&camera));
        }
        restarts = now;
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
        if let Some(publisher) = &self.publisher {
            publisher.state(publisher.topics().camera_status(camera), message);
        }
    }

    fn forget_picture(&self, camera: &CameraId, from: u64) {
        if let Some(hub) = &self.hub {
            hub.forget_picture(camera, from);
        }
    }

    fn gone(&self, camera: &CameraId) {
        if let Some(publisher) = &self.publisher {
            publisher.state(publisher.topics().camera_status(camera), bytes::Bytes::new());
        }
        if let Some(hub) = &self.hub {
            hub.remove_camera(camera);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::SystemTime};

    use super::*;
    use crate::{
        ingest::{BoxFuture, End, Outlet, Picture, Policy, Restart, Source},
        types::{Capture, Clock, Letterbox, Rgb, Size},
    };

    const SIZE: Size = Size { width: 1, height: 1 };

    /// Opens sources that give one picture each.
    struct OneEach;

    impl Opener for OneEach {
        fn open<'a>(
            &'a self,
            _: &'a CameraConfig,
            _: Option<&'a Path>,
            outlet: Outlet,
        ) -> BoxFuture<'a, Result<Box<dyn Source>, End>> {
            outlet.offer(Picture {
                capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
                pts: Duration::ZERO,
                decoded_at: Instant::now(),
                decode_time: Duration::ZERO,
                view: Letterbox::fit(SIZE, 1.0, SIZE),
                canvas: Rgb { size: SIZE, data: vec![0; 3].into() }.into(),
                full: None,
            });
            Box::pin(async { Ok(Box::new(Still) as Box<dyn Source>) })
        }
    }

    struct Still;

    impl Source for Still {
        fn ended(&mut self) -> BoxFuture<'_, End> {
            Box::pin(std::future::pending())
        }
        fn describe(&self) -> String {
            String::new()
        }
        fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn a_camera_that_is_changed_or_comes_back_goes_on_counting() {
        let options = supervisor::Options {
            canvases: SIZE.into(),
            policy: Policy::Latest,
            restart: Restart::Forever,
            ready: Arc::default(),
            pipelines: None,
            decoder_threads: 1,
        };
        let ready = Arc::clone(&options.ready);
        let mut cameras = Cameras::new(options, Arc::new(OneEach), Announce { publisher: None, hub: None });
        let id = CameraId::new("gate").unwrap();
        let mut wanted = BTreeMap::from([(id.clone(), CameraConfig::new(id.clone(), "test://"))]);
        let mut seqs = Vec::new();
        for round in 0..4 {
            match round {
                0 => {}
                1 => wanted.get_mut(&id).unwrap().fps = Some(5.0),
                2 => wanted.get_mut(&id).unwrap().uri = "test://ball".into(),
                _ => assert_eq!(cameras.stop_all_but(&BTreeMap::new()).await, std::slice::from_ref(&id)),
            }
            // Of what looks elsewhere nothing that was known holds.
            assert_eq!(cameras.stop_all_but(&wanted).await.is_empty(), round != 2);
            assert!(cameras.accounts().is_empty(), "it is stopped before its successor starts");
            cameras.start(&wanted);
            let frame = loop {
                match cameras.running[&id].camera.slot().take(Instant::now()) {
                    Some(frame) => break frame,
                    None => tokio::time::timeout(Duration::from_secs(30), ready.notified()).await.unwrap(),
                }
            };
            seqs.push(frame.seq);
            frame.ticket.publish();
        }
        assert_eq!(seqs, [0, 1, 2, 3]);
        let [(_, ledger)] = &cameras.accounts()[..] else { panic!("one camera, one account") };
        assert_eq!((ledger.decoded(), ledger.published(), ledger.in_flight()), (4, 4, 0));
    }
}
