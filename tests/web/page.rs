//! The live view in a real browser: Debian's `chromium` against the real server. Screenshots stay in `target/tmp`.

#[path = "../support/http_browser.rs"]
mod browser;

use std::{path::Path, sync::Arc, time::Duration};

use browser::Browser;
use groundd::{http::Options, types::Size};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    camera,
    feed::{Scene, Server, answer, frame, message},
};
use groundd::types::Ledger;

const HOSTILE: &str = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>\u{202e}txt' \"`${pwned}";

/// Where the red thing is on frame `seq`: it walks to the right and starts again.
fn walker(seq: u64) -> [f32; 4] {
    let x = 30.0 + (seq * 37 % 500) as f32;
    [x, 100.0, x + 80.0, 240.0]
}

fn red_thing(seq: u64, size: Size) -> Scene {
    let [x1, y1, x2, y2] = walker(seq);
    Scene::new(size, move |x, y| {
        let (fx, fy) = (x as f32, y as f32);
        if fx >= x1 && fx < x2 && fy >= y1 && fy < y2 {
            return [225, 40, 40];
        }
        let checks = if (x / 40 + y / 40).is_multiple_of(2) { 40 } else { 58 };
        [checks, checks + 12, checks + (y / 6 % 60) as u8]
    })
}

/// Publishes a frame on each of `cameras` some six times a second until aborted.
fn feed_for_ever(server: &Server, cameras: &'static [&'static str], extra: Vec<Value>) -> JoinHandle<()> {
    let (hub, ledger) = (server.hub.clone(), Arc::new(Ledger::default()));
    for id in cameras {
        hub.metrics().camera(&camera(id), Arc::clone(&ledger));
        hub.camera_status(&camera(id), json!({"state": "live", "since": "2026-01-31T12:00:00Z", "reason": null}));
    }
    tokio::spawn(async move {
        let mut tick = interval(Duration::from_millis(150));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for seq in 0.. {
            tick.tick().await;
            for id in cameras {
                let frame = frame(id, seq, red_thing(seq, Size::new(640, 360)), true, &ledger);
                let mut queries = vec![answer("walker", "the red thing", &[walker(seq)])];
                queries.extend(extra.clone());
                hub.frame(&frame, message(&frame, &queries));
            }
        }
    })
}

fn keep(name: &str, png: &[u8], width: u32) {
    let picture = image::load_from_memory(png).unwrap();
    assert_eq!(picture.width(), width);
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), png).unwrap();
}

fn others() -> Vec<Value> {
    vec![
        answer(HOSTILE, HOSTILE, &[[450.0, 10.0, 600.0, 80.0]]),
        answer("nobody", "someone on the roof", &[]),
        json!({"id": "later", "rev": 1, "text": "a white van", "status": "shed", "reason": "the model is busy", "matches": []}),
        json!({"id": "never", "rev": 1, "text": "a bad idea", "status": "error", "reason": HOSTILE, "matches": []}),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_follow_their_pixels_and_hostile_words_stay_words() {
    let server = Server::start(Options::default()).await;
    server.hub.ready("model", Ok(()));
    server.hub.query_states(json!([
        {"id": "walker", "text": "the red thing", "status": "active"},
        {"id": "evil", "text": HOSTILE, "status": "failed", "reason": HOSTILE},
    ]));
    let feeding = feed_for_ever(&server, &["gate"], others());
    let mut browser = Browser::start(1280, 800, false).await;
    browser.open(&format!("http://{}/", server.addr)).await;
    browser.until("document.querySelectorAll('.card .box').length === 2").await;

    let followed = browser.eval(&format!("{}(12)", include_str!("follow.js"))).await;
    assert_eq!(followed["wrong"], json!([]), "{followed}");
    assert!(followed["frames"].as_u64().is_some_and(|n| n >= 12), "too few frames to tell: {followed}");

    let label = browser.eval("[...document.querySelectorAll('.tag')].map(t => t.textContent).join('|')").await;
    let label = label.as_str().unwrap();
    assert!(label.contains("the red thing#170.83retrieve") && label.contains(HOSTILE), "{label}");
    let strays = "document.querySelectorAll('main img, main script, .legend img, .legend script, main b b').length";
    assert_eq!(browser.eval(strays).await, json!(0));
    assert_eq!(browser.eval("typeof window.pwned").await, json!("undefined"));
    let rows = browser.eval("[...document.querySelectorAll('.answers li')].map(r => r.className + ':' + r.querySelector('.result').textContent)").await;
    let wanted = [
        "found:1 found0.83 · retrieve",
        "found:1 found0.83 · retrieve",
        "miss:nothing there",
        "shed:no answer",
        "error:error",
    ];
    assert_eq!(rows, json!(wanted));

    feeding.abort();
    browser.until("document.querySelector('.age').dataset.level === 'warn'").await;
    server.hub.camera_status(&camera("gate"), json!({"state": "stalled", "reason": HOSTILE}));
    browser.until("document.querySelector('.card').dataset.state === 'stalled'").await;
    assert_eq!(browser.eval("typeof window.pwned").await, json!("undefined"));
    keep("live-stalled.png", &browser.screenshot().await, 1280);
    assert_eq!(browser.complaints, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_of_cameras_fits_the_screen_and_comes_back_after_the_daemon_was_away() {
    let server = Server::start(Options::default()).await;
    let addr = server.addr;
    let feeding = feed_for_ever(&server, &["door", "gate", "hall", "yard"], others());
    let mut browser = Browser::start(1600, 900, false).await;
    browser.open(&format!("http://{addr}/")).await;
    browser.until("document.querySelectorAll('.card .box').length === 8").await;
    let order = browser.eval("[...document.querySelectorAll('.card')].map(c => c.dataset.camera).join()").await;
    assert_eq!(order, json!("door,gate,hall,yard"));
    let fits = "document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth \
                && [...document.querySelectorAll('.picture')].every(p => p.clientWidth > 400)";
    browser.until(fits).await;
    assert!(browser.eval("document.getElementById('banner').textContent").await.as_str().unwrap().contains("model"));
    keep("live-desktop.png", &browser.screenshot().await, 1600);

    browser.eval("document.querySelectorAll('.card')[1].click()").await;
    browser.until("document.querySelectorAll('.card:not([hidden])').length === 1 && location.hash === '#gate'").await;
    browser.until("document.querySelector('.card:not([hidden]) .picture').clientWidth > 900").await;
    browser.key("Escape").await;
    browser.until("document.querySelectorAll('.card:not([hidden])').length === 4").await;

    assert_eq!(browser.complaints, Vec::<String>::new());
    feeding.abort();
    server.stop().await;
    browser.until("document.body.dataset.link === 'lost'").await;
    browser.until("document.getElementById('banner').textContent.includes('does not answer')").await;
    keep("live-away.png", &browser.screenshot().await, 1600);
    let server = Server::start_at(addr, Options::default()).await;
    let feeding = feed_for_ever(&server, &["gate"], Vec::new());
    browser.until("document.body.dataset.link === 'live' && document.querySelectorAll('.card').length === 1").await;
    browser.until("document.querySelectorAll('.card .box').length === 1").await;
    feeding.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_shows_one_column_and_an_empty_daemon_says_what_to_do() {
    let server = Server::start(Options::default()).await;
    let mut browser = Browser::start(390, 844, true).await;
    browser.open(&format!("http://{}/", server.addr)).await;
    browser.until("!document.getElementById('empty').hidden").await;
    keep("live-empty.png", &browser.screenshot().await, 780);

    let feeding = feed_for_ever(&server, &["gate", "yard"], others());
    browser.until("document.querySelectorAll('.card .box').length === 4").await;
    let narrow = "document.documentElement.scrollWidth <= innerWidth \
                  && new Set([...document.querySelectorAll('.card')].map(c => c.offsetLeft)).size === 1";
    browser.until(narrow).await;
    keep("live-phone.png", &browser.screenshot().await, 780);
    assert_eq!(browser.complaints, Vec::<String>::new());
    feeding.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bookmark_of_a_camera_that_is_gone_leads_to_the_others_and_an_old_scene_goes_with_its_source() {
    let server = Server::start(Options::default()).await;
    server.hub.set_state("model", json!("a model"));
    let feeding = feed_for_ever(&server, &["gate", "yard"], Vec::new());
    let mut browser = Browser::start(1000, 700, false).await;
    browser.open(&format!("http://{}/#attic", server.addr)).await;
    browser.until("location.hash === '' && document.querySelectorAll('.card:not([hidden]) .box').length === 2").await;

    feeding.abort();
    server.hub.forget_picture(&camera("gate"), u64::MAX);
    let waits = "document.querySelector('[data-camera=gate] .veil').textContent.includes('Waiting for the first')";
    browser.until(waits).await;
    let boxes = "[...document.querySelectorAll('.card')].map(c => c.querySelectorAll('.box').length).join()";
    assert_eq!(browser.eval(boxes).await, json!("0,1"));
    let painted =
        "document.querySelector('[data-camera=gate] canvas').getContext('2d').getImageData(5, 5, 1, 1).data[3]";
    assert_eq!(browser.eval(painted).await, json!(0));
    server.stop().await;
}

/// A query that was not asked on a frame, and what is remembered of it.
fn shed(id: &str, text: &str, boxes: &[[f32; 4]]) -> Value {
    let mut query = answer(id, text, boxes);
    query["status"] = json!("shed");
    query["reason"] = json!("busy: the device had no time");
    query
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queries_leave_the_picture_its_place_and_a_broker_that_is_away_is_told() {
    let server = Server::start(Options::default()).await;
    server.hub.ready("model", Ok(()));
    let many: Vec<_> = (0..50).map(|n| shed(&format!("q{n}"), &format!("thing number {n}"), &[])).collect();
    server.hub.query_states(many.iter().map(|query| json!({"id": query["id"], "status": "active"})).collect());
    let feeding = feed_for_ever(&server, &["gate"], many);
    let mut browser = Browser::start(1280, 800, false).await;
    browser.open(&format!("http://{}/", server.addr)).await;
    browser.until("document.querySelectorAll('.answers li').length === 51").await;
    let place = "document.querySelector('.picture').clientWidth > 600 \
                 && document.documentElement.scrollHeight <= innerHeight";
    browser.until(place).await;
    let more = "(({ scrollHeight, clientHeight }) => clientHeight > 100 && scrollHeight > clientHeight)";
    assert_eq!(browser.eval(&format!("{more}(document.querySelector('.answers'))")).await, json!(true));

    browser.until("document.querySelector('.numbers').textContent.includes(' published')").await;
    assert_eq!(browser.eval("document.getElementById('banner').hidden").await, json!(true));
    server.hub.set_state("broker", json!({"up": false, "reason": "nobody listens there"}));
    browser.until("document.getElementById('banner').textContent === 'broker: nobody listens there'").await;
    keep("live-many.png", &browser.screenshot().await, 1280);
    server.hub.set_state("broker", json!({"up": true, "reason": null}));
    browser.until("document.getElementById('banner').hidden").await;
    assert_eq!(browser.complaints, Vec::<String>::new());
    feeding.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_was_asked_is_not_called_absent_and_what_is_known_is_counted() {
    let server = Server::start(Options::default()).await;
    let ledger = Arc::new(Ledger::default());
    server.hub.camera_status(&camera("gate"), json!({"state": "live"}));
    let mut browser = Browser::start(1000, 700, false).await;
    browser.open(&format!("http://{}/", server.addr)).await;
    let corners = walker(0);
    let (red, van) = ("the red thing", "a white van");
    let frames = [
        (vec![answer("red", red, &[corners])], "1 the red thing", "1 found"),
        (vec![shed("red", red, &[]), shed("van", van, &[corners])], "1 a white van", "no answer,1 known"),
        (vec![shed("red", red, &[]), shed("van", van, &[])], "not answered", "no answer,no answer"),
        (vec![answer("red", red, &[]), shed("van", van, &[])], "nothing found", "nothing there,no answer"),
    ];
    for (seq, (queries, seen, rows)) in (0..).zip(frames) {
        let frame = frame("gate", seq, red_thing(seq, Size::new(640, 360)), true, &ledger);
        server.hub.frame(&frame, message(&frame, &queries));
        let label = "document.querySelector('.card canvas')?.getAttribute('aria-label')";
        browser.until(&format!("{label} === 'gate: {seen}'")).await;
        let said = "[...document.querySelectorAll('.answers .result span')].map(s => s.textContent).join()";
        assert_eq!(browser.eval(said).await, json!(rows), "frame {seq}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tab_that_is_opened_in_the_background_costs_nothing_after_a_while() {
    let server = Server::start(Options::default()).await;
    let mut browser = Browser::start(1000, 700, false).await;
    browser.before("Object.defineProperty(document, 'hidden', { get: () => true })").await;
    browser.open(&format!("http://{}/", server.addr)).await;
    let viewers = "(await (await fetch('api/status')).json()).viewers.now";
    for now in [1, 0] {
        browser.until(&format!("(async () => {viewers} === {now})()")).await;
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
    server.stop().await;
}
