//! Models that do not come back, and models that panic.

use groundd::daemon::PipelineError;

use super::*;

/// A pipeline whose one camera is asked one query of a model that does as it is told.
async fn pipeline(work: impl FnMut(&Batch) + Send + 'static) -> Pipeline {
    ingest::init().unwrap();
    let (camera, query) = (CameraId::new("gate").unwrap(), QueryId::new("person").unwrap());
    let queries = BTreeMap::from([(query.clone(), QueryConfig::new(query, "person"))]);
    let model = Box::new(Scripted { max_batch: 1, work });
    let queries = Revisions::default().apply(&queries);
    let mut pipeline = Pipeline::start(model, plan(Duration::from_secs(5)), Sinks::default(), queries, new_epoch());
    pipeline.set_cameras(&BTreeMap::from([(camera.clone(), CameraConfig::new(camera, "test://ball"))])).await;
    pipeline
}

#[tokio::test(flavor = "multi_thread")]
async fn who_feeds_the_watchdog_sees_a_model_that_does_not_come_back() {
    let (go, gate) = std_mpsc::channel::<()>();
    // It is held until the other end is gone.
    let mut pipeline = pipeline(move |_| gate.recv().unwrap_or(())).await;
    let pulses = pipeline.pulses();
    let busy = || -> Vec<(&str, Duration)> {
        pulses.iter().filter_map(|pulse| Some((pulse.stage(), pulse.busy_for()?))).collect()
    };
    let hangs = || matches!(busy()[..], [("ground", time)] if time > Duration::from_millis(500));
    until("the model, and nobody else, to hang", hangs).await;
    drop(go);
    until("nobody to be at work", || busy().is_empty()).await;
    let accounts = pipeline.accounts();
    until("pictures", || accounts[0].1.published() >= 3).await;
    assert!(!hangs());
    pipeline.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_panics_is_the_pipelines_end_and_its_frame_is_accounted_for() {
    let mut seen = 0;
    let mut pipeline = pipeline(move |_| {
        seen += 1;
        assert!(seen < 3, "on purpose");
    })
    .await;
    let (_, ledger) = pipeline.accounts().remove(0);
    timeout(PATIENCE, pipeline.finished()).await.expect("nobody waits for a model that is gone");
    let error = pipeline.stop().await.unwrap_err();
    assert!(
        matches!(&error, PipelineError::Model(GroundError::Panicked(said)) if said.contains("on purpose")),
        "{error}"
    );
    assert_eq!((ledger.published(), ledger.dropped(DropReason::ModelError)), (2, 1), "{ledger:?}");
    assert_eq!((ledger.in_flight(), ledger.dropped(DropReason::Lost)), (0, 0), "{ledger:?}");
}
