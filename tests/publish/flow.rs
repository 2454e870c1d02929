//! A whole pipeline, from a camera to the broker: what becomes of its frames when the broker, or the camera, is away.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use groundd::{
    config::QueryConfig,
    daemon::{Pipeline, Plan, Revisions, Sinks, new_epoch},
    ground::{GroundError, Grounder, Limits, ModelInfo, QueryCheck},
    ingest::{self, CameraConfig},
    track::TrackConfig,
    types::{
        Answer, BBox, Batch, CameraId, DropReason, Ledger, Match, Method, Query, QueryId, QuerySet, ScoreKind, Size,
        Status, Via,
    },
};

use super::*;
use crate::support::plan;

/// A model that finds one thing wherever it looks, where its function lets it.
struct Finds<F>(F);

impl<F: FnMut() -> Result<(), GroundError> + Send> Grounder for Finds<F> {
    fn limits(&self) -> Limits {
        Limits { max_batch: 1, canvases: Size::new(64, 64).into() }
    }

    fn describe(&self) -> ModelInfo {
        unreachable!("nobody asks")
    }

    fn checker(&self) -> QueryCheck {
        Arc::new(|_| Ok(()))
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        (self.0)()?;
        let found = Match {
            bbox: BBox::new(10.0, 10.0, 40.0, 40.0).unwrap(),
            score: 0.9,
            score_kind: ScoreKind::Logit,
            track: None,
            via: Via { method: Method::Detector, model: "finds@00000000".into(), crop: None, fresh: true },
        };
        let answer = |query: &Arc<Query>| Answer {
            query: Arc::clone(query),
            status: Status::Ok,
            matches: vec![found.clone()],
            complete: true,
        };
        Ok(batch.jobs.iter().map(|job| job.queries.iter().map(answer).collect()).collect())
    }
}

/// The query `ball`, in these words.
pub(super) fn ball(words: &str, revisions: &mut Revisions) -> QuerySet {
    let id = QueryId::new("ball").unwrap();
    revisions.apply(&BTreeMap::from([(id.clone(), QueryConfig::new(id, words))]))
}

/// The camera `cam`, whose pictures are looked at by a model that `may` say what it finds.
pub(super) async fn watching(
    publisher: &Publisher,
    queries: QuerySet,
    may: impl FnMut() -> Result<(), GroundError> + Send + 'static,
) -> Pipeline {
    ingest::init().unwrap();
    let sinks = Sinks { publisher: Some(publisher.clone()), ..Sinks::default() };
    // Longer than a busy machine is silent.
    let track = TrackConfig { lost_seconds: 2.0, update_seconds: 3600.0, ..TrackConfig::default() };
    let plan = Plan { track, ..plan(Duration::from_secs(5)) };
    let mut pipeline = Pipeline::start(Box::new(Finds(may)), plan, sinks, queries, new_epoch());
    let cam = CameraId::new("cam").unwrap();
    pipeline.set_cameras(&BTreeMap::from([(cam.clone(), CameraConfig::new(cam, "test://ball"))])).await;
    pipeline
}

/// A model that can be held at a picture.
#[derive(Default)]
struct Hold {
    wanted: Arc<AtomicBool>,
    /// It is at a picture, and does not go on.
    held: Arc<AtomicBool>,
}

impl Hold {
    fn model(&self) -> impl FnMut() -> Result<(), GroundError> + Send + 'static {
        let (wanted, held) = (Arc::clone(&self.wanted), Arc::clone(&self.held));
        move || {
            while wanted.load(SeqCst) {
                held.store(true, SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
            held.store(false, SeqCst);
            Ok(())
        }
    }

    /// Holds it, and waits until all that it answered before has gone where it goes.
    async fn hold(&self, ledger: &Ledger) {
        self.wanted.store(true, SeqCst);
        until("the model to be held", || self.held.load(SeqCst)).await;
        // The picture that it is held at, and the newest of the camera.
        let mut before = ledger.published();
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = ledger.published();
            if now == std::mem::replace(&mut before, now) {
                return;
            }
        }
    }

    fn let_go(&self) {
        self.wanted.store(false, SeqCst);
    }
}

impl Drop for Hold {
    /// The pipeline's end waits for its model.
    fn drop(&mut self) {
        self.let_go();
    }
}

fn ended(ledger: &Ledger) -> u64 {
    ledger.published() + DropReason::ALL.iter().map(|reason| ledger.dropped(*reason)).sum::<u64>()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_broker_is_dropped_for_that_and_not_counted_as_published() {
    let broker = Broker::open();
    let proxy = Proxy::to(broker.port).await;
    let heard = Subscriber::new(broker.port, "groundd/cam/detections").await;
    let publisher = started(&config(proxy.url())).await;
    let hold = Hold::default();
    let mut pipeline = watching(&publisher, ball("ball", &mut Revisions::default()), hold.model()).await;
    let (_, ledger) = pipeline.accounts().remove(0);
    until("messages", || heard.count() >= 3).await;
    // Nothing may be on its way when the connection is cut: it would be lost with it.
    hold.hold(&ledger).await;
    let before = ledger.published();
    until("all of them to be heard", || heard.count() as u64 == before).await;
    assert_eq!(ledger.dropped(DropReason::Broker), 0);
    proxy.set(Mode::Refuse);
    proxy.cut();
    down(&publisher).await;
    hold.let_go();
    until("frames that nobody can have", || ledger.dropped(DropReason::Broker) >= 5).await;
    assert_eq!(ledger.published(), before, "published to nobody");
    proxy.set(Mode::Pass);
    up(&publisher).await;
    until("frames that somebody has", || ledger.published() >= before + 3).await;
    pipeline.stop().await.unwrap();
    let published = ledger.published();
    until("all of them to be heard", || heard.count() as u64 == published).await;
    publisher.close(Duration::from_secs(5)).await;
    assert_eq!(heard.count() as u64, published);
    assert_eq!((ledger.decoded(), ledger.dropped(DropReason::Lost)), (ended(&ledger), 0), "{ledger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_whose_picture_takes_the_model_long_is_not_silent() {
    let broker = Broker::open();
    let told = Subscriber::new(broker.port, "groundd/cam/#").await;
    let publisher = started(&config(broker.url())).await;
    let hold = Hold::default();
    let mut pipeline = watching(&publisher, ball("ball", &mut Revisions::default()), hold.model()).await;
    let (_, ledger) = pipeline.accounts().remove(0);
    let (present, events) = ("groundd/cam/ball/present", "groundd/cam/events");
    until("a ball", || told.on(present) == ["ON"]).await;
    hold.hold(&ledger).await;
    // Twice as long as what is lost may be out of sight.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = ledger.published();
    hold.let_go();
    until("more pictures", || ledger.published() >= before + 3).await;
    assert_eq!((told.on(present), told.on(events).len()), (vec!["ON".to_owned()], 1), "{:?}", told.on(events));
    pipeline.stop().await.unwrap();
    publisher.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_the_model_when_its_camera_went_brings_nothing_back() {
    let broker = Broker::open();
    let heard = Subscriber::exact(broker.port, "groundd/cam/ball/+").await;
    let publisher = started(&config(broker.url())).await;
    let hold = Hold::default();
    let mut pipeline = watching(&publisher, ball("ball", &mut Revisions::default()), hold.model()).await;
    let (_, ledger) = pipeline.accounts().remove(0);
    let present = "groundd/cam/ball/present";
    until("a ball", || heard.on(present) == ["ON"]).await;
    hold.hold(&ledger).await;
    pipeline.set_cameras(&BTreeMap::new()).await;
    let gone = |topic: &str| heard.on(topic).last().is_some_and(String::is_empty);
    until("nobody to know of it", || gone(present)).await;
    until("the others to be given up", || ledger.in_flight() == 1).await;
    let (published, given_up) = (ledger.published(), ledger.dropped(DropReason::Shutdown));
    hold.let_go();
    until("the end of the last", || ledger.in_flight() == 0).await;
    pipeline.stop().await.unwrap();
    // What comes after whatever was said of that picture.
    publisher.state("groundd/cam/ball/last".into(), number(1));
    until("the last word", || heard.on("groundd/cam/ball/last") == ["1"]).await;
    publisher.close(Duration::from_secs(5)).await;
    assert_eq!((ledger.published(), ledger.dropped(DropReason::Shutdown)), (published, given_up + 1), "{ledger:?}");
    assert!(gone(present) && gone("groundd/cam/ball/count"), "{:?}", heard.heard());
}
