//! Who is present, as the broker hears it of a model that fails.

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
    types::{Answer, BBox, Batch, CameraId, Match, Method, Query, QueryId, ScoreKind, Size, Status, Via},
};

use super::*;

/// A model that finds one thing wherever it looks, as long as it works.
struct Failing(Arc<AtomicBool>);

impl Grounder for Failing {
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
        if !self.0.load(SeqCst) {
            return Err(GroundError::Panicked("out of order".into()));
        }
        let found = Match {
            bbox: BBox::new(10.0, 10.0, 40.0, 40.0).unwrap(),
            score: 0.9,
            score_kind: ScoreKind::Logit,
            track: None,
            via: Via { method: Method::Detector, model: "failing@00000000".into(), crop: None, fresh: true },
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

#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_model_that_fails_looks_for_nobody_is_told_that_it_is_gone() {
    ingest::init().unwrap();
    let broker = Broker::open();
    let heard = Subscriber::exact(broker.port, "groundd/cam/ball/+").await;
    let publisher = started(&config(broker.url())).await;
    let sinks = Sinks { publisher: Some((publisher.clone(), Topics::new("groundd").unwrap())), ..Sinks::default() };
    let plan = Plan {
        every_frame: false,
        films: BTreeSet::new(),
        finite: false,
        staleness: Duration::from_secs(5),
        max_batch: 0,
        track: TrackConfig { lost_seconds: 0.5, ..TrackConfig::default() },
        snapshot_every: None,
        pipelines: None,
    };
    let works = Arc::new(AtomicBool::new(true));
    let ball = QueryId::new("ball").unwrap();
    let mut revisions = Revisions::default();
    let mut asking = |text: &str| {
        let queries = BTreeMap::from([(ball.clone(), QueryConfig::new(ball.clone(), text))]);
        revisions.apply(&queries)
    };
    let mut pipeline = Pipeline::start(Box::new(Failing(Arc::clone(&works))), plan, sinks, asking("ball"), new_epoch());
    let cam = CameraId::new("cam").unwrap();
    pipeline.set_cameras(&BTreeMap::from([(cam.clone(), CameraConfig::new(cam, "test://ball"))])).await;
    let (present, count) = ("groundd/cam/ball/present", "groundd/cam/ball/count");
    until("a ball", || heard.on(present) == ["ON"]).await;
    works.store(false, SeqCst);
    until("nobody to know of it", || heard.on(present) == ["ON", ""] && heard.on(count) == ["1", ""]).await;
    works.store(true, SeqCst);
    until("it to be known again", || heard.on(present) == ["ON", "", "ON"]).await;
    // What was said of the old words is not the new ones' answer.
    pipeline.set_queries(asking("red ball"));
    until("it to be known by other words", || heard.on(present) == ["ON", "", "ON", "", "ON"]).await;
    pipeline.stop().await.unwrap();
    publisher.close(Duration::from_secs(5)).await;
}
