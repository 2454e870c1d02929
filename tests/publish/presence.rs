//! Who is present, as the broker hears it of a model that fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use groundd::{daemon::Revisions, ground::GroundError};

use super::{
    flow::{ball, watching},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_model_that_fails_looks_for_nobody_is_told_that_it_is_gone() {
    let broker = Broker::open();
    let heard = Subscriber::exact(broker.port, "groundd/cam/ball/+").await;
    let publisher = started(&config(broker.url())).await;
    let works = Arc::new(AtomicBool::new(true));
    let mut revisions = Revisions::default();
    let queries = ball("ball", &mut revisions);
    let model = {
        let works = Arc::clone(&works);
        move || if works.load(SeqCst) { Ok(()) } else { Err(GroundError::Panicked("out of order".into())) }
    };
    let mut pipeline = watching(&publisher, queries, model).await;
    let (present, count) = ("groundd/cam/ball/present", "groundd/cam/ball/count");
    until("a ball", || heard.on(present) == ["ON"]).await;
    works.store(false, SeqCst);
    until("nobody to know of it", || heard.on(present) == ["ON", ""] && heard.on(count) == ["1", ""]).await;
    works.store(true, SeqCst);
    until("it to be known again", || heard.on(present) == ["ON", "", "ON"]).await;
    // What was said of the old words is not the new ones' answer.
    pipeline.set_queries(ball("red ball", &mut revisions));
    until("it to be known by other words", || heard.on(present) == ["ON", "", "ON", "", "ON"]).await;
    pipeline.stop().await.unwrap();
    publisher.close(Duration::from_secs(5)).await;
}
