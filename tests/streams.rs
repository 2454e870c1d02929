//! Many cameras on too little machine: what is published is young, what is not is counted, and nobody suffers for others.
#![allow(clippy::await_holding_lock, reason = "it keeps other tests away, not other tasks")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use groundd::{
    config::QueryConfig,
    daemon::{Pipeline, Plan, Revisions, Sinks, new_epoch},
    ground::{self, AskConfig, GroundError, Grounder, Limits, ModelConfig, ModelInfo, Provider, QueryCheck},
    http::process::Usage,
    ingest::{self, CameraConfig, State},
    types::{
        Answer, Batch, CameraId, DropReason, Followed, Job, Ledger, Method, QueryId, QuerySet, Rgb, ShedReason, Size,
        Status, Work,
    },
};
use serde_json::Value;

use crate::{
    ingest::support as rig,
    support::{
        alone,
        ground::{batch, frame, frame_of},
        plan, until,
    },
};

/// What was published. No message is kept: half an hour of them would be what memory grows by.
#[derive(Default)]
struct Tally {
    /// When a message came, which camera's it was, and the age of its pixels in milliseconds.
    messages: Vec<(Instant, CameraId, f64)>,
    /// Answers by query: all, and those that were shed.
    told: BTreeMap<String, (u64, u64)>,
    /// Answers that are not as they should be.
    odd: Vec<String>,
}

impl Tally {
    fn add(&mut self, message: &Value) {
        let camera = CameraId::new(message["camera"].as_str().unwrap()).unwrap();
        self.messages.push((Instant::now(), camera, message["time"]["age_ms"].as_f64().unwrap()));
        for query in message["queries"].as_array().unwrap() {
            let told = self.told.entry(query["id"].as_str().unwrap().to_owned()).or_default();
            told.0 += 1;
            let shed = query["status"] == "shed";
            told.1 += u64::from(shed);
            let reason = query["reason"].as_str();
            let right = if shed { reason.is_some_and(|r| !r.is_empty()) } else { reason.is_none() };
            if !right || !(shed || query["status"] == "ok") {
                self.odd.push(query.to_string());
            }
        }
    }

    fn count(&self, camera: &str) -> u64 {
        self.messages.iter().filter(|(_, of, _)| of.as_str() == camera).count() as u64
    }

    fn ages(&self) -> Vec<f64> {
        self.messages.iter().map(|(_, _, age)| *age).collect()
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Tally>>);

impl Heard {
    fn sink(&self) -> Sinks {
        let tally = Arc::clone(&self.0);
        let print = move |line: &[u8]| {
            tally.lock().unwrap().add(&serde_json::from_slice(line).unwrap());
            Ok(())
        };
        Sinks { lines: Some(Box::new(print)), ..Sinks::default() }
    }

    /// The ages of what one camera published since `from`, in milliseconds.
    fn ages(&self, camera: &str, from: Instant) -> Vec<f64> {
        let tally = self.0.lock().unwrap();
        let of_camera = tally.messages.iter().filter(|(at, of, _)| *at >= from && of.as_str() == camera);
        of_camera.map(|(_, _, age)| *age).collect()
    }

    fn take(&self) -> Tally {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A model that takes a while for each frame, in turn, and finds nothing.
struct Slow {
    naps: Vec<Duration>,
    turn: usize,
    batch: usize,
}

impl Slow {
    fn boxed(naps: &[u64], batch: usize) -> Box<Self> {
        Box::new(Self { naps: naps.iter().map(|ms| Duration::from_millis(*ms)).collect(), turn: 0, batch })
    }
}

impl Grounder for Slow {
    fn limits(&self) -> Limits {
        Limits { max_batch: self.batch, canvases: Size::new(64, 64).into() }
    }

    fn describe(&self) -> ModelInfo {
        ModelInfo {
            name: "slow".into(),
            version: "1".into(),
            hash8: "00000000".into(),
            family: "none".into(),
            methods: vec![Method::Retrieve],
            provider: Provider::Cpu,
            library: "none".into(),
            runtime: "none".into(),
        }
    }

    fn checker(&self) -> QueryCheck {
        Arc::new(|_| Ok(()))
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        std::thread::sleep(self.naps[self.turn % self.naps.len()] * u32::try_from(batch.jobs.len()).unwrap());
        self.turn += 1;
        let answer = |query: &Arc<_>| Answer {
            query: Arc::clone(query),
            status: Status::Ok,
            matches: Vec::new(),
            complete: true,
        };
        Ok(batch.jobs.iter().map(|job| job.queries.iter().map(answer).collect()).collect())
    }
}

/// A real model on a device that takes this much longer for each frame: cameras that overload it must run here as well.
struct Braked(Box<dyn Grounder>, Duration);

impl Grounder for Braked {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn describe(&self) -> ModelInfo {
        self.0.describe()
    }

    fn checker(&self) -> QueryCheck {
        self.0.checker()
    }

    fn ask(&mut self, config: &AskConfig, stream_time: bool) {
        self.0.ask(config, stream_time);
    }

    fn work(&self) -> Arc<Work> {
        self.0.work()
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.0.follow(followed);
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        std::thread::sleep(self.1 * u32::try_from(batch.jobs.len()).unwrap());
        self.0.ground(batch)
    }
}

fn queries(texts: &[(&str, Method, i32)]) -> QuerySet {
    let configs = texts.iter().map(|(text, method, priority)| {
        let id = QueryId::new(&text.replace(' ', "-")).unwrap();
        (id.clone(), QueryConfig { method: *method, priority: *priority, ..QueryConfig::new(id, text) })
    });
    Revisions::default().apply(&configs.collect())
}

fn planned(staleness: Duration, pipelines: &Path) -> Plan {
    Plan { pipelines: Some(pipelines.to_owned()), ..plan(staleness) }
}

/// Makes `test://` cameras small and as fast as is wanted.
fn small_cameras(folder: &Path, fps: u32) {
    let launch = format!(
        "videotestsrc name=source is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate={fps}/1 \
         ! appsink name=out sync=false\n"
    );
    fs::write(folder.join("test.launch"), launch).unwrap();
}

fn cameras(uris: &[(&str, &str)], stall_seconds: f32) -> BTreeMap<CameraId, CameraConfig> {
    let camera = |(id, uri): &(&str, &str)| {
        let id = CameraId::new(id).unwrap();
        (id.clone(), CameraConfig { stall_seconds, ..CameraConfig::new(id, uri) })
    };
    uris.iter().map(camera).collect()
}

fn percentile(mut ms: Vec<f64>, part: f64) -> f64 {
    ms.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let at = ((ms.len() - 1) as f64 * part) as usize;
    ms[at]
}

fn drops(ledger: &Ledger) -> BTreeMap<&'static str, u64> {
    DropReason::ALL.iter().map(|reason| (reason.name(), ledger.dropped(*reason))).collect()
}

/// Every frame of every camera was published, or dropped for a reason, and what was published was heard.
fn balance(accounts: &[(CameraId, Arc<Ledger>)], tally: &Tally) {
    for (camera, ledger) in accounts {
        let heard = tally.count(camera.as_str());
        assert_eq!(ledger.published(), heard, "{camera}");
        assert_eq!((ledger.in_flight(), ledger.dropped(DropReason::Lost)), (0, 0), "{camera}: {:?}", drops(ledger));
        assert_eq!(ledger.decoded(), heard + drops(ledger).values().sum::<u64>(), "{camera}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pixels_older_than_allowed_are_never_published_however_slow_the_model() {
    let _alone = alone();
    ingest::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    small_cameras(folder.path(), 30);
    let (heard, staleness) = (Heard::default(), Duration::from_millis(250));
    // Every third frame is done too late.
    let model = Slow::boxed(&[5, 20, 400], 1);
    let set = queries(&[("person", Method::Auto, 0)]);
    let mut pipeline = Pipeline::start(model, planned(staleness, folder.path()), heard.sink(), set, new_epoch());
    pipeline.set_cameras(&cameras(&[("a", "test://ball"), ("b", "test://ball")], 1.0)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let accounts = pipeline.accounts();
    pipeline.stop().await.unwrap();
    let tally = heard.take();
    balance(&accounts, &tally);
    assert!(tally.messages.len() >= 6, "{} messages", tally.messages.len());
    let oldest = tally.ages().into_iter().fold(0.0, f64::max);
    assert!(oldest <= 250.0, "pixels of {oldest} ms were published");
    let stale: u64 = accounts.iter().map(|(_, ledger)| ledger.dropped(DropReason::Stale)).sum();
    assert!(stale >= 3, "{stale} frames were too old, of about one in three");
}

/// How long overload lasts: as long as `GROUNDD_SOAK_SECONDS` says (`make soak`), or a slice.
fn overload_lasts() -> Duration {
    let wanted = std::env::var("GROUNDD_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(wanted.unwrap_or(12))
}

/// Frames a second that the model can do with all these queries, on a machine that does nothing else.
fn capacity(model: &mut dyn Grounder, set: &QuerySet) -> f64 {
    let ledger = Arc::new(Ledger::default());
    let size = model.limits().canvases.usual();
    let (mut done, began) = (0, Instant::now());
    while done < 3 || began.elapsed() < Duration::from_secs(1) {
        let noise: Vec<u8> = (0..size.area() * 3).map(|i| u8::try_from((i * 31 + done * 17) % 251).unwrap()).collect();
        let canvas = Rgb::new(size, noise).unwrap();
        let frame = frame(&ledger, canvas);
        let queries = set.for_camera(&frame.camera);
        let job = Job { frame, queries };
        model.ground(&batch(vec![job])).unwrap();
        done += 1;
    }
    done as f64 / began.elapsed().as_secs_f64()
}

/// Half an hour of it is `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_times_the_load_is_counted_and_stays_young_and_small() {
    const RATE: u32 = 8;
    let _alone = alone();
    ingest::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    small_cameras(folder.path(), RATE);
    let load = || Box::new(Braked(nano(), Duration::from_millis(300)));
    let set = queries(&[("person", Method::Auto, 5), ("red car", Method::Auto, 0), ("dog", Method::Zoom, 5)]);
    let can = capacity(load().as_mut(), &set);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful")]
    let count = ((4.0 * can / f64::from(RATE)).ceil() as usize).clamp(2, 32);
    let (heard, staleness) = (Heard::default(), Duration::from_secs(3));
    let mut model = load();
    model.ask(&AskConfig { once: false, ..AskConfig::default() }, false);
    let mut pipeline = Pipeline::start(model, planned(staleness, folder.path()), heard.sink(), set, new_epoch());
    let names: Vec<String> = (0..count).map(|i| format!("cam{i}")).collect();
    let uris: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "test://snow")).collect();
    pipeline.set_cameras(&cameras(&uris, 10.0)).await;
    let lasts = overload_lasts();
    tokio::time::sleep(lasts / 2).await;
    let (half, began) = (Usage::now().resident.unwrap(), Instant::now());
    let mut most = 0;
    while began.elapsed() < lasts / 2 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(Usage::now().resident.unwrap());
    }
    let accounts = pipeline.accounts();
    pipeline.stop().await.unwrap();
    let tally = heard.take();
    let published = tally.messages.len() as u64;
    balance(&accounts, &tally);
    let decoded: u64 = accounts.iter().map(|(_, ledger)| ledger.decoded()).sum();
    println!("{can:.1} frames/s can be done, {decoded} came in {lasts:?}, {published} were published");
    assert!(published * 2 < decoded, "{published} of {decoded} frames published: no overload");
    for name in &names {
        assert!(tally.count(name) > 0, "{name} was never looked at");
    }
    let p95 = percentile(tally.ages(), 0.95);
    println!("p95 {p95:.0} ms; resident {half} bytes after half the time, at most {most} later");
    // Much younger than is allowed: what waits is replaced until the model is free, and is then looked at in one batch.
    assert!(p95 <= 2000.0, "p95 {p95} ms");
    assert!(most < half + (24 << 20), "{half} bytes after half the time, {most} at most later");
    assert!(tally.odd.is_empty(), "{:?}", &tally.odd[..tally.odd.len().min(5)]);
}

/// A model that is given picture upon picture has no time between them, on any machine.
#[test]
fn of_more_questions_than_there_is_time_for_the_least_valuable_are_shed_and_all_are_counted() {
    ingest::init().unwrap();
    let set = queries(&[
        ("person", Method::Auto, 5),
        ("red car", Method::Auto, 0),
        ("bus", Method::Auto, -5),
        ("dog", Method::Zoom, 5),
    ]);
    let mut model = nano();
    // A share this small that there is something to shed.
    model.ask(&AskConfig { once: false, share: 0.02, ..AskConfig::default() }, false);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/heads/street.png");
    let image = image::open(file).unwrap().to_rgb8();
    let street = Rgb::new(Size::new(image.width(), image.height()), image.into_raw()).unwrap();
    let (mut stills, ledger) = (ingest::Stills::new(model.limits().canvases), Arc::default());
    let (view, canvas, full) = stills.place(&street).unwrap();
    let (mut told, mut frames) = (BTreeMap::<String, (u64, u64)>::new(), 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        let frame = frame_of("cam0", &ledger, (view, canvas.clone()), Some(Arc::clone(&full)));
        let queries = set.for_camera(&frame.camera);
        frames += 1;
        for answer in model.ground(&batch(vec![Job { frame, queries }])).unwrap().remove(0) {
            let told = told.entry(answer.query.id.to_string()).or_default();
            told.0 += 1;
            match answer.status {
                Status::Ok => {}
                Status::Shed(reason) if !reason.is_empty() => told.1 += 1,
                other => panic!("{}: {other:?}", answer.query.id),
            }
        }
    }
    // Every question on every frame is asked or shed, and who reads the answers knows which.
    let work = model.work();
    let shed: u64 = ShedReason::ALL.map(|reason| work.shed(reason)).iter().sum();
    assert_eq!((work.asked() + work.reused() + shed, work.still()), (frames * set.iter().count() as u64, 0));
    assert_eq!(told.values().map(|(_, shed)| shed).sum::<u64>(), shed);
    let part = |id: &str| told[id].1 as f64 / told[id].0 as f64;
    let parts = ["dog", "bus", "red-car", "person"].map(part);
    println!("shed: zoom {:.2}, low priority {:.2}, middle {:.2}, high {:.2}", parts[0], parts[1], parts[2], parts[3]);
    assert!(parts.is_sorted_by(|a, b| a >= b) && parts[0] > 0.3 && parts[0] > parts[3], "{parts:?}");
}

/// The bundled model on one thread.
fn nano() -> Box<dyn Grounder> {
    let models = [Path::new(env!("CARGO_MANIFEST_DIR")).join("models")];
    ground::load(&ModelConfig { threads: 1, ..ModelConfig::default() }, &models).unwrap()
}

/// A camera's published frames a second and the 95th percentile of their ages, over some time from now.
async fn watch(heard: &Heard, camera: &str, span: Duration) -> (f64, f64) {
    let from = Instant::now();
    tokio::time::sleep(span).await;
    let ages = heard.ages(camera, from);
    assert!(!ages.is_empty(), "nothing came from {camera}");
    (ages.len() as f64 / span.as_secs_f64(), percentile(ages, 0.95))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_camera_that_floods_stalls_or_reconnects_costs_another_nothing() {
    let _alone = alone();
    ingest::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The flood: far more than the model can take.
    small_cameras(folder.path(), 120);
    let clip = rig::h264(folder.path(), "clip.mp4", "320x180");
    let server = rig::serve(&clip);
    let proxy = rig::Proxy::to(server.port());
    let (good, bad) = (server.url("cam"), format!("rtsp://127.0.0.1:{}/cam", proxy.port()));
    let heard = Heard::default();
    let model = Slow::boxed(&[12], 4);
    let set = queries(&[("person", Method::Auto, 0)]);
    let staleness = Duration::from_secs(1);
    let mut pipeline = Pipeline::start(model, planned(staleness, folder.path()), heard.sink(), set, new_epoch());
    pipeline.set_cameras(&cameras(&[("good", &good), ("bad", &bad)], 1.0)).await;
    until("both cameras", || pipeline.statuses().iter().all(|(_, status)| status.state == State::Live)).await;
    let span = Duration::from_secs(3);
    let calm = watch(&heard, "good", span).await;
    proxy.freeze(true);
    let stalled = watch(&heard, "good", span).await;
    let state = |pipeline: &Pipeline| pipeline.statuses().into_iter().find(|(id, _)| id.as_str() == "bad").unwrap().1;
    assert_ne!(state(&pipeline).state, State::Live, "a frozen camera is live");
    proxy.freeze(false);
    let back = watch(&heard, "good", span).await;
    pipeline.set_cameras(&cameras(&[("good", &good), ("bad", &bad), ("flood", "test://snow")], 1.0)).await;
    let flooded = watch(&heard, "good", span).await;
    until("the frozen camera", || state(&pipeline).state == State::Live).await;
    let accounts = pipeline.accounts();
    pipeline.stop().await.unwrap();
    balance(&accounts, &heard.take());
    for (what, (rate, p95)) in [("stalled", stalled), ("came back", back), ("flooded", flooded)] {
        // A flood takes its own place in each batch, which the others then wait for: one nap of the model.
        assert!(rate > calm.0 * 0.8, "{rate} frames a second while another {what}, {} before", calm.0);
        assert!(p95 < calm.1 + 100.0, "p95 {p95} ms while another {what}, {} before", calm.1);
    }
}
