//! More to do than there is time for: what is published is fresh all the same, nothing is lost, and nobody suffers for
//! another.

mod faults;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc as std_mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use groundd::{
    config::QueryConfig,
    daemon::{Pipeline, Revisions, Sinks, new_epoch},
    ground::{GroundError, Grounder, Limits, ModelInfo, QueryCheck, worker},
    ingest::{self, CameraConfig},
    schedule::{Inlet, Scheduler},
    types::{Answer, Batch, CameraId, DropReason, Frame, Grounding, Ledger, Pulse, QueryId, QuerySet, Size, Status},
};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{alone, ground, plan, until};

/// Nothing that comes at all takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A model that does as it is told with each batch, and finds nothing.
struct Scripted<F> {
    max_batch: usize,
    work: F,
}

impl<F: FnMut(&Batch) + Send> Grounder for Scripted<F> {
    fn limits(&self) -> Limits {
        Limits { max_batch: self.max_batch, canvases: Size::new(64, 64).into() }
    }

    fn describe(&self) -> ModelInfo {
        unreachable!("nobody asks")
    }

    fn checker(&self) -> QueryCheck {
        Arc::new(|_| Ok(()))
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        (self.work)(batch);
        let answer = |query: &Arc<_>| Answer {
            query: Arc::clone(query),
            status: Status::Ok,
            matches: Vec::new(),
            complete: true,
        };
        Ok(batch.jobs.iter().map(|job| job.queries.iter().map(answer).collect()).collect())
    }
}

/// A camera that is driven by hand; like a real one it keeps the newest frame only.
struct Camera {
    id: CameraId,
    ledger: Arc<Ledger>,
    newest: Mutex<Option<Frame>>,
    ready: Arc<Notify>,
}

impl Camera {
    fn new(name: &str, ready: &Arc<Notify>) -> Arc<Self> {
        let (id, ready) = (CameraId::new(name).unwrap(), Arc::clone(ready));
        Arc::new(Self { id, ledger: Arc::default(), newest: Mutex::default(), ready })
    }

    fn offer(&self, seq: u64) {
        let mut frame = Arc::into_inner(ground::frame(&self.ledger, ground::picture(&[]))).unwrap();
        (frame.camera, frame.seq) = (self.id.clone(), seq);
        if let Some(old) = self.newest.lock().unwrap().replace(frame) {
            old.ticket.drop_for(DropReason::Superseded);
        }
        self.ready.notify_one();
    }
}

impl Inlet for Camera {
    fn camera(&self) -> &CameraId {
        &self.id
    }

    fn take(&self, _: Instant) -> Option<Frame> {
        self.newest.lock().unwrap().take()
    }

    fn is_drained(&self) -> bool {
        false
    }
}

/// A scheduler and a model between cameras driven by hand and whoever takes the groundings.
struct Flow {
    inlets: watch::Sender<Vec<Arc<dyn Inlet>>>,
    groundings: mpsc::Receiver<Grounding>,
    shutdown: CancellationToken,
    scheduler: tokio::task::JoinHandle<()>,
    handle: worker::Handle,
}

impl Flow {
    fn start(
        model: Scripted<impl FnMut(&Batch) + Send + 'static>,
        cameras: &[Arc<Camera>],
        ready: &Arc<Notify>,
    ) -> Self {
        Self::start_all(vec![model], cameras, ready)
    }

    /// Several models, each of which may get any batch.
    fn start_all(
        models: Vec<Scripted<impl FnMut(&Batch) + Send + 'static>>,
        cameras: &[Arc<Camera>],
        ready: &Arc<Notify>,
    ) -> Self {
        let (inlets, inlets_in) = watch::channel(Vec::new());
        let (_, queries) = watch::channel(Arc::new(QuerySet::default()));
        let scheduler = Scheduler {
            inlets: inlets_in,
            queries,
            ready: Arc::clone(ready),
            staleness: None,
            max_batch: models[0].max_batch,
            finish: false,
            pulse: Pulse::new("schedule"),
        };
        let each = |model| (Box::new(model) as Box<dyn Grounder>, Pulse::new("ground"));
        let worker = worker::spawn(models.into_iter().map(each).collect());
        let shutdown = CancellationToken::new();
        let scheduler = tokio::spawn(scheduler.run(worker.batches, worker.turns, worker.underway, shutdown.clone()));
        let flow = Self { inlets, groundings: worker.groundings, shutdown, scheduler, handle: worker.handle };
        flow.set(cameras);
        flow
    }

    fn set(&self, cameras: &[Arc<Camera>]) {
        self.inlets.send_replace(cameras.iter().map(|camera| Arc::clone(camera) as Arc<dyn Inlet>).collect());
    }

    async fn next(&mut self) -> Grounding {
        let next = timeout(PATIENCE, self.groundings.recv()).await;
        next.expect("a grounding comes in time").expect("the model lives")
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        self.scheduler.await.unwrap();
        while let Some(grounding) = self.groundings.recv().await {
            grounding.frame.ticket.publish();
        }
        self.handle.join().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_cut_when_the_model_is_free_and_the_wait_before_is_told() {
    let ready = Arc::default();
    let camera = Camera::new("gate", &ready);
    let (go, gate) = std_mpsc::channel::<()>();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let work = move |batch: &Batch| {
        begun.send(batch.jobs.iter().map(|job| job.frame.seq).collect::<Vec<_>>()).unwrap();
        gate.recv().unwrap();
    };
    let mut flow = Flow::start(Scripted { max_batch: 4, work }, &[Arc::clone(&camera)], &ready);
    camera.offer(0);
    let mut begin = async || timeout(PATIENCE, begins.recv()).await.expect("a batch is begun in time").unwrap();
    assert_eq!(begin().await, [0]);
    // The model is busy. Whoever cut now would keep the newer frame from taking the older one's place.
    camera.offer(1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    camera.offer(2);
    go.send(()).unwrap();
    assert_eq!(begin().await, [2]);
    go.send(()).unwrap();
    assert_eq!(camera.ledger.dropped(DropReason::Superseded), 1);
    for seq in [0, 2] {
        let Grounding { frame, timings, .. } = flow.next().await;
        assert_eq!(frame.seq, seq);
        frame.ticket.publish();
        assert_eq!(timings.queued + timings.inferred, timings.done_at - frame.decoded_at, "all of the time is told");
    }
    flow.stop().await;
    assert_eq!((camera.ledger.published(), camera.ledger.in_flight()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_waits_for_another_and_a_camera_has_a_picture_with_one_at_most() {
    let ready = Arc::default();
    let [slow, quick] = ["slow", "quick"].map(|name| Camera::new(name, &ready));
    let (go, gate) = std_mpsc::channel::<()>();
    let (gate, begun) = (Arc::new(Mutex::new(gate)), Arc::new(Mutex::new(Vec::new())));
    let model = || {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        let work = move |batch: &Batch| {
            let frame = &batch.jobs[0].frame;
            begun.lock().unwrap().push((frame.camera.to_string(), frame.seq));
            if frame.camera.as_str() == "slow" {
                gate.lock().unwrap().recv().unwrap();
            }
        };
        Scripted { max_batch: 1, work }
    };
    let mut flow = Flow::start_all(vec![model(), model()], &[&slow, &quick].map(Arc::clone), &ready);
    slow.offer(0);
    until("a batch to be begun", || !begun.lock().unwrap().is_empty()).await;
    // One model is at work on the slow camera's picture; its next one waits for that, whoever is free.
    slow.offer(1);
    for seq in 0..20 {
        quick.offer(seq);
        let grounding = flow.next().await;
        assert_eq!((grounding.frame.camera.as_str(), grounding.frame.seq), ("quick", seq));
        grounding.frame.ticket.publish();
    }
    assert_eq!(begun.lock().unwrap().iter().filter(|(camera, _)| camera == "slow").count(), 1);
    // Its turn comes without any other picture that would ring.
    for seq in 0..2 {
        go.send(()).unwrap();
        let grounding = flow.next().await;
        assert_eq!((grounding.frame.camera.as_str(), grounding.frame.seq), ("slow", seq));
        grounding.frame.ticket.publish();
    }
    flow.stop().await;
    assert_eq!((slow.ledger.published(), quick.ledger.published()), (2, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_floods_falls_silent_or_comes_and_goes_costs_the_others_no_turn() {
    let ready = Arc::default();
    let [calm, flood, mute, comes] = ["calm", "flood", "mute", "comes"].map(|name| Camera::new(name, &ready));
    let begun = Arc::new(AtomicU64::new(0));
    let work = {
        let begun = Arc::clone(&begun);
        move |_: &Batch| {
            begun.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(5));
        }
    };
    let all = [&calm, &flood, &mute, &comes].map(Arc::clone);
    let mut flow = Flow::start(Scripted { max_batch: 2, work }, &all, &ready);
    let done = Arc::new(AtomicBool::new(false));
    let noise = {
        let (flood, comes, done) = (Arc::clone(&flood), Arc::clone(&comes), Arc::clone(&done));
        thread::spawn(move || {
            for seq in 0.. {
                if done.load(SeqCst) {
                    break;
                }
                flood.offer(seq);
                comes.offer(seq);
                thread::sleep(Duration::from_micros(200));
            }
        })
    };
    let mut served = BTreeMap::<String, u64>::new();
    for seq in 0..60 {
        // It is away now and then, and another one each time.
        flow.set(if seq % 3 == 0 { &all[..3] } else { &all });
        let before = begun.load(SeqCst);
        calm.offer(seq);
        loop {
            let grounding = flow.next().await;
            grounding.frame.ticket.publish();
            *served.entry(grounding.frame.camera.to_string()).or_default() += 1;
            if grounding.frame.camera == calm.id {
                assert_eq!(grounding.frame.seq, seq);
                break;
            }
        }
        // With two places in a batch and three cameras, a camera waits for one batch at most; and one more may have
        // begun before this was looked at.
        let waited = begun.load(SeqCst) - before;
        assert!(waited <= 3, "frame {seq} waited for {waited} batches");
    }
    done.store(true, SeqCst);
    noise.join().unwrap();
    flow.stop().await;
    assert_eq!((calm.ledger.published(), calm.ledger.decoded()), (60, 60), "{served:?}");
    assert!(!served.contains_key("mute") && served["flood"] >= 30 && served["comes"] >= 15, "{served:?}");
    assert!(flood.ledger.dropped(DropReason::Superseded) > flood.ledger.published(), "it was no flood");
    for camera in [flood, comes] {
        // One may still stand where it is kept until a newer one comes.
        let kept = u64::from(camera.newest.lock().unwrap().is_some());
        assert_eq!((camera.ledger.in_flight(), camera.ledger.dropped(DropReason::Lost)), (kept, 0));
    }
}

#[test]
fn four_times_too_many_frames_are_published_fresh_or_dropped_for_a_reason() {
    const BATCH: Duration = Duration::from_secs(1);
    const STALENESS: Duration = Duration::from_millis(1600);
    let _alone = alone();
    ingest::init().unwrap();
    // Four frames a second at the most; four cameras of up to 15 each, on a machine that may be busy. A batch that was
    // cut while the one before was in the model would be two seconds old.
    let work = |_: &Batch| thread::sleep(BATCH);
    let lines = Arc::<Mutex<Vec<Value>>>::default();
    let sink = {
        let lines = Arc::clone(&lines);
        move |line: &[u8]| {
            lines.lock().unwrap().push(serde_json::from_slice(line).unwrap());
            Ok(())
        }
    };
    let plan = plan(STALENESS);
    let queries = ["person", "red car"].map(|text| {
        let id = QueryId::new(&text.replace(' ', "-")).unwrap();
        (id.clone(), QueryConfig::new(id, text))
    });
    let camera = |i: u32| {
        let id = CameraId::new(&format!("cam{i}")).unwrap();
        (id.clone(), CameraConfig::new(id, "test://ball"))
    };
    let accounts = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let sinks = Sinks { lines: Some(Box::new(sink)), ..Sinks::default() };
        let queries = Revisions::default().apply(&queries.into());
        let model = Box::new(Scripted { max_batch: 4, work });
        let mut pipeline = Pipeline::start(model, plan, sinks, queries, new_epoch());
        pipeline.set_cameras(&(0..4).map(camera).collect()).await;
        let started = Instant::now();
        let live = || pipeline.accounts().iter().all(|(_, ledger)| ledger.published() >= 2);
        while !live() {
            let waited = started.elapsed();
            assert!(waited < Duration::from_mins(1), "{:?} {:?}", pipeline.accounts(), pipeline.statuses());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let accounts = pipeline.accounts();
        pipeline.stop().await.unwrap();
        accounts
    });
    let messages = std::mem::take(&mut *lines.lock().unwrap());
    let mut ages: Vec<f64> = messages.iter().map(|m| m["time"]["age_ms"].as_f64().unwrap()).collect();
    ages.sort_by(f64::total_cmp);
    let p95 = ages[ages.len() * 95 / 100];
    assert!(p95 <= STALENESS.as_secs_f64() * 1e3 + 20.0, "p95 of what is published is {p95} ms old");
    for message in &messages {
        let time = |key: &str| message["time"][key].as_f64().unwrap();
        let stages = time("queued_ms") + time("inferred_ms");
        assert!(stages <= time("age_ms") + 0.2 && time("inferred_ms") >= 999.0, "{message}");
        assert!(message["queries"].as_array().unwrap().iter().all(|query| query["status"] == "ok"));
    }
    let mut published = 0;
    for (camera, ledger) in &accounts {
        let dropped = |reason| ledger.dropped(reason);
        let ends = ledger.published() + DropReason::ALL.map(dropped).iter().sum::<u64>();
        assert_eq!((ledger.decoded(), ledger.in_flight(), dropped(DropReason::Lost)), (ends, 0, 0), "{camera}");
        assert!(dropped(DropReason::Superseded) > 2 * ledger.published(), "{camera} was not overloaded");
        // Each gets its part, and what the model worked on was young enough nearly always.
        let stale = dropped(DropReason::Stale);
        assert!(ledger.published() >= 4 && ledger.published() > stale, "{camera}: {} and {stale}", ledger.published());
        published += ledger.published();
    }
    assert_eq!(published, messages.len() as u64);
}
