//! The HTTP stage over real connections: what every route answers, and what live streams carry. Rude clients, the
//! numbers and the page in a browser have files of their own in `web/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests fail like tests")]

#[path = "support/http_client.rs"]
pub(crate) mod client;
#[path = "support/http_feed.rs"]
mod feed;
#[path = "web/numbers.rs"]
mod numbers;
#[path = "web/page.rs"]
mod page;
#[path = "web/rude.rs"]
mod rude;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use client::{Events, get, request};
use data_encoding::BASE64;
use feed::{Scene, Server, answer, frame, message};
use groundd::{
    http::{HttpError, Options, bind},
    types::{CameraId, DropReason, Frame, Ledger, Pulse, Size},
};
use serde_json::json;
use tokio::time::sleep;

const HD: Size = Size { width: 1280, height: 720 };

/// Left half red, right half blue.
fn halves(x: u32, _: u32) -> [u8; 3] {
    if x < 640 { [250, 10, 10] } else { [10, 10, 250] }
}

fn camera(id: &str) -> CameraId {
    CameraId::new(id).unwrap()
}

fn shot(id: &str, seq: u64, ledger: &Arc<Ledger>) -> (Arc<Frame>, Bytes) {
    let frame = frame(id, seq, Scene::new(HD, halves), true, ledger);
    let payload = message(&frame, &[answer("red", "a red half", &[[0.0, 0.0, 640.0, 720.0]])]);
    (frame, payload)
}

/// A server with the camera `gate` live and one frame published.
async fn gate() -> (Server, Arc<Ledger>) {
    let server = Server::start(Options::default()).await;
    let ledger = Arc::new(Ledger::default());
    server.hub.metrics().camera(&camera("gate"), Arc::clone(&ledger));
    server
        .hub
        .camera_status(&camera("gate"), json!({"state": "live", "since": "2026-01-31T12:00:00Z", "reason": null}));
    server.hub.query_states(json!([{"id": "red", "rev": 1, "text": "a red half", "status": "active", "reason": null}]));
    let (frame, payload) = shot("gate", 7, &ledger);
    server.hub.frame(&frame, payload);
    (server, ledger)
}

#[tokio::test]
async fn every_route_answers_with_its_type_and_its_safety_headers() {
    let (server, _) = gate().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/card.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/api/cameras", "application/json"),
        ("/api/queries", "application/json"),
        ("/api/status", "application/json"),
        ("/snapshot/gate.jpg", "image/jpeg"),
        ("/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/healthz", "application/json"),
    ] {
        let answer = get(server.addr, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert!(!answer.body.is_empty());
        let head = request(server.addr, "HEAD", path, "localhost").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_page_asks_nobody_else_for_anything() {
    let (server, _) = gate().await;
    for path in ["/", "/app.js", "/card.js", "/style.css"] {
        let text = get(server.addr, path).await.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{path} names an outside address");
        assert!(!text.contains("innerHTML") && !text.contains("insertAdjacent"), "{path} writes HTML");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_api_tells_cameras_queries_and_status() {
    let (server, ledger) = gate().await;
    ledger.open().drop_for(DropReason::Stale);
    server.hub.set_state("broker", json!({"connected": true}));
    let cameras = get(server.addr, "/api/cameras").await.json();
    let gate = &cameras["cameras"][0];
    assert_eq!((&gate["id"], &gate["status"]["state"]), (&json!("gate"), &json!("live")));
    assert_eq!(gate["frames"]["decoded"], 2);
    assert_eq!((&gate["frames"]["published"], &gate["frames"]["dropped"]["stale"]), (&json!(1), &json!(1)));
    assert!(gate["last_frame_ms"].as_f64().is_some_and(|ms| ms < 10_000.0));
    assert_eq!(get(server.addr, "/api/queries").await.json()["queries"][0]["text"], "a red half");
    let status = get(server.addr, "/api/status").await.json();
    assert_eq!((&status["version"], &status["epoch"]), (&json!("0.0.0-test"), &json!("epoch-1")));
    assert_eq!((&status["viewers"]["now"], &status["states"]["broker"]["connected"]), (&json!(0), &json!(true)));
    server.stop().await;
}

#[tokio::test]
async fn health_is_about_stuck_stages_and_readiness_about_use() {
    let server = Server::start(Options::default()).await;
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
    let unready = get(server.addr, "/readyz").await;
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("no model") && unready.text().contains("none is configured"), "{}", unready.text());

    server.hub.ready("model", Ok(()));
    server.hub.camera_status(&camera("gate"), json!({"state": "stalled"}));
    assert!(get(server.addr, "/readyz").await.text().contains("none of 1 is live"));
    server.hub.camera_status(&camera("gate"), json!({"state": "live"}));
    assert_eq!(get(server.addr, "/readyz").await.status, 200);

    let pulse = Pulse::new("ground");
    server.hub.watch_pulse(pulse.clone(), Duration::from_millis(10));
    assert_eq!(get(server.addr, "/healthz").await.status, 200, "an idle stage is healthy");
    let work = pulse.busy();
    sleep(Duration::from_millis(30)).await;
    let stuck = get(server.addr, "/healthz").await;
    assert_eq!((stuck.status, &stuck.json()["reasons"][0]["what"]), (503, &json!("ground")));
    assert_eq!(get(server.addr, "/readyz").await.status, 503, "a stuck process is of no use");
    drop(work);
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_live_event_carries_the_picture_its_detections_were_made_on() {
    let (server, ledger) = gate().await;
    let mut events = Events::open(server.addr, "/live/gate").await;
    assert!(events.head.contains("text/event-stream"), "{}", events.head);
    let overview = events.named("overview").await;
    assert_eq!(overview["cameras"][0]["id"], "gate");
    for seq in 7..12 {
        if seq > 7 {
            let scene = Scene::new(HD, move |x, y| if seq % 2 == 0 { [10, 240, 10] } else { halves(x, y) });
            let next = frame("gate", seq, scene, true, &ledger);
            server.hub.frame(&next, message(&next, &[]));
        }
        let event = events.named("frame").await;
        assert_eq!((&event["detections"]["seq"], &event["camera"]), (&json!(seq), &json!("gate")));
        assert!(event["age_ms"].as_f64().is_some_and(|age| age >= 31.5), "{}", event["age_ms"]);
        let jpeg = BASE64.decode(event["jpeg"].as_str().unwrap().as_bytes()).unwrap();
        let picture = image::load_from_memory(&jpeg).unwrap().to_rgb8();
        assert_eq!((picture.width(), picture.height()), (960, 540));
        assert_eq!((&event["width"], &event["height"]), (&json!(960), &json!(540)));
        let green = picture.get_pixel(100, 100).0[1] > 200;
        assert_eq!(green, seq % 2 == 0, "the picture of another frame at {seq}");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_stream_shows_all_cameras_and_follows_them_coming_and_going() {
    let (server, ledger) = gate().await;
    let mut events = Events::open(server.addr, "/live").await;
    let (yard, payload) = shot("yard", 0, &ledger);
    server.hub.camera_status(&camera("yard"), json!({"state": "connecting"}));
    server.hub.frame(&yard, payload.clone());
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(events.named("frame").await["camera"].to_string());
    }
    server.hub.remove_camera(&camera("yard"));
    // Its last frames are still on their way: they must not bring it back.
    server.hub.frame(&yard, payload);
    let gone = loop {
        let overview = events.named("overview").await;
        if overview["cameras"].as_array().unwrap().len() == 1 {
            break overview;
        }
    };
    assert_eq!(gone["cameras"][0]["id"], "gate");
    assert_eq!(get(server.addr, "/live/yard").await.status, 404);
    assert!(!get(server.addr, "/metrics").await.text().contains("yard"));
    server.stop().await;
}

#[tokio::test]
async fn a_frame_without_its_full_picture_is_shown_without_the_borders() {
    let (server, ledger) = gate().await;
    let tall = frame("gate", 8, Scene::new(Size::new(720, 1280), |_, _| [240, 240, 240]), false, &ledger);
    server.hub.frame(&tall, message(&tall, &[]));
    let jpeg = get(server.addr, "/snapshot/gate.jpg").await.body;
    let picture = image::load_from_memory(&jpeg).unwrap().to_rgb8();
    assert_eq!((picture.width(), picture.height()), (162, 288));
    assert!(picture.pixels().all(|p| p.0[0] > 200), "a black border is left");
    server.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_the_latest_frame_with_boxes_if_asked() {
    let (server, _) = gate().await;
    let plain = get(server.addr, "/snapshot/gate.jpg").await;
    assert_eq!(plain.header("x-groundd-seq"), Some("7"));
    let pixel = |jpeg: &[u8], x, y| image::load_from_memory(jpeg).unwrap().to_rgb8().get_pixel(x, y).0;
    let boxed = get(server.addr, "/snapshot/gate.jpg?boxes=1").await;
    // The box is the left half: its top edge runs through (200, 0), its middle stays as it was.
    assert!(pixel(&plain.body, 200, 0)[0] > 200 && pixel(&boxed.body, 200, 0)[0] < 160);
    assert!(pixel(&boxed.body, 200, 200)[0] > 200);
    server.hub.camera_status(&camera("new"), json!({"state": "connecting"}));
    assert_eq!(get(server.addr, "/snapshot/new.jpg").await.status, 503);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_compressed_while_nobody_watches() {
    let (server, ledger) = gate().await;
    for seq in 8..30 {
        let (frame, payload) = shot("gate", seq, &ledger);
        server.hub.frame(&frame, payload);
    }
    assert!(server.hub.metrics().text().unwrap().contains("groundd_live_pictures_total 0\n"));
    let (mut a, mut b) = (Events::open(server.addr, "/live").await, Events::open(server.addr, "/live/gate").await);
    a.named("frame").await;
    b.named("frame").await;
    let text = server.hub.metrics().text().unwrap();
    assert!(text.contains("groundd_live_pictures_total 1\n"), "two viewers of one frame share its picture: {text}");
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_json_is_shown_as_no_detections() {
    let (server, ledger) = gate().await;
    let (frame, _) = shot("gate", 8, &ledger);
    server.hub.frame(&frame, Bytes::from_static(b"\xff\n\ndata: {\"camera\":\"forged\"}\n\n"));
    let event = Events::open(server.addr, "/live").await.named("frame").await;
    assert_eq!((&event["camera"], &event["detections"]), (&json!("gate"), &json!(null)));
    server.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_remedy() {
    let server = Server::start(Options::default()).await;
    let taken = bind(server.addr).await.unwrap_err();
    assert!(matches!(taken, HttpError::InUse(addr) if addr == server.addr));
    assert!(taken.to_string().contains("[http] listen"), "{taken}");
    let elsewhere = bind("192.0.2.1:8787".parse().unwrap()).await.unwrap_err();
    assert!(matches!(elsewhere, HttpError::NoSuchAddress(_)), "{elsewhere}");
    server.stop().await;
}

#[tokio::test]
async fn stopping_ends_open_streams_at_once() {
    let (server, _) = gate().await;
    let mut events = Events::open(server.addr, "/live").await;
    events.named("overview").await;
    let started = Instant::now();
    server.stop().await;
    while events.next().await.is_some() {}
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
