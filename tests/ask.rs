//! Asking once: what is saved, what it costs in events, and that the savings say so.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use groundd::{
    config::QueryConfig,
    daemon::{Pipeline, Plan, Revisions, Sinks, new_epoch},
    ground::{self, AskConfig, Grounder, ModelConfig},
    ingest::{self, CameraConfig},
    track::TrackConfig,
    types::{Answer, BBox, CameraId, Frame, Job, Ledger, Query, QueryId, Rgb, ShedReason, Status, Work, Worth},
};
use serde_json::{Value, json};

use crate::support::{
    ground::*,
    h264,
    process::{finish, groundd},
};

/// The demo's queries.
const QUERIES: [&str; 5] = ["person", "person in a red jacket", "red car", "bus", "dog"];

/// One object as the answer to one query: its boxes by frame.
type Event = BTreeMap<u64, BBox>;

/// What came of watching a file.
struct Watched {
    /// By query, in the order they began.
    events: Vec<(String, Event)>,
    frames: u64,
    work: Arc<Work>,
    messages: Vec<Value>,
}

/// Watches every frame of a file; `ask` is how queries are asked, `None` asks all of them always.
fn watch(file: &Path, queries: &[&str], ask: Option<&AskConfig>) -> Watched {
    ingest::init().unwrap();
    let folders = [Path::new(env!("CARGO_MANIFEST_DIR")).join("models")];
    let mut grounder = ground::load(&ModelConfig { threads: 1, ..ModelConfig::default() }, &folders).unwrap();
    if let Some(ask) = ask {
        grounder.ask(ask, true);
    }
    let work = grounder.work();
    let lines = Arc::<Mutex<Vec<Value>>>::default();
    let sink = {
        let lines = Arc::clone(&lines);
        move |line: &[u8]| {
            lines.lock().unwrap().push(serde_json::from_slice(line).unwrap());
            Ok(())
        }
    };
    let configs = queries.iter().enumerate().map(|(i, text)| {
        let id = QueryId::new(&format!("q{i}")).unwrap();
        (id.clone(), QueryConfig::new(id, text))
    });
    let plan = Plan {
        every_frame: true,
        films: [CameraId::new("cam0").unwrap()].into(),
        finite: true,
        staleness: Duration::from_secs(1),
        max_batch: 1,
        track: TrackConfig::default(),
        snapshot_every: None,
        pipelines: None,
    };
    let id = CameraId::new("cam0").unwrap();
    let cameras = BTreeMap::from([(id.clone(), CameraConfig::new(id, file.to_str().unwrap()))]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let sinks = Sinks { lines: Some(Box::new(sink)), ..Sinks::default() };
        let queries = Revisions::default().apply(&configs.collect());
        let mut pipeline = Pipeline::start(grounder, plan, sinks, queries, new_epoch());
        pipeline.set_cameras(&cameras).await;
        tokio::time::timeout(Duration::from_mins(20), pipeline.finished()).await.expect("the file ends");
        pipeline.stop().await.unwrap();
    });
    let messages = std::mem::take(&mut *lines.lock().unwrap());
    let mut events: BTreeMap<(String, u64), Event> = BTreeMap::new();
    for message in &messages {
        for query in message["queries"].as_array().unwrap() {
            for found in query["matches"].as_array().unwrap() {
                let [x1, y1, x2, y2] = serde_json::from_value::<[f32; 4]>(found["box"].clone()).unwrap();
                let bbox = BBox::new(x1, y1, x2, y2).unwrap();
                let key = (query["text"].as_str().unwrap().to_owned(), found["track"].as_u64().unwrap());
                events.entry(key).or_default().insert(message["frame"]["pts_ms"].as_u64().unwrap(), bbox);
            }
        }
    }
    // Announced ones: what was seen once is no event.
    let events = events.into_iter().filter(|(_, event)| event.len() >= 2).map(|((text, _), event)| (text, event));
    Watched { events: events.collect(), frames: messages.len() as u64, work, messages }
}

/// Of the events in `truth` that last at least `least`: how many there are, and how many `found` knows of.
#[allow(clippy::print_stdout, reason = "what was missed is worth seeing")]
fn recall(truth: &Watched, found: &Watched, least: Duration) -> (usize, usize) {
    // Matched on at least every other picture as long as it lasted: two flickers that happen to be a second apart are no
    // event of a second.
    let pts = |message: Option<&Value>| message.and_then(|m| m["frame"]["pts_ms"].as_u64()).unwrap_or_default();
    let spans = pts(truth.messages.last()) - pts(truth.messages.first());
    let pictures = truth.frames.saturating_sub(1);
    let lasting = |event: &&(String, Event)| {
        let (first, last) = (event.1.keys().next().unwrap(), event.1.keys().next_back().unwrap());
        let offered = (last - first) * pictures / spans.max(1);
        u128::from(last - first) >= least.as_millis() && event.1.len() as u64 * 2 > offered
    };
    let known = |(text, event): &&(String, Event)| {
        let same = |(other, boxes): &(String, Event)| {
            other == text && event.iter().any(|(pts, bbox)| boxes.get(pts).is_some_and(|b| b.iou(bbox) >= 0.5))
        };
        found.events.iter().any(same)
    };
    let (known, missed): (Vec<_>, Vec<_>) = truth.events.iter().filter(lasting).partition(|event| known(event));
    for (text, event) in &missed {
        println!(
            "missed: {text}, {} times, {:?} to {:?} ms",
            event.len(),
            event.keys().next(),
            event.keys().next_back()
        );
    }
    (known.len() + missed.len(), known.len())
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo.mp4")
}

/// With the bundled model, whatever its weights are; a scripted model's street, with many more events, is held to the
/// same in `ground::ask`.
#[test]
fn the_street_is_asked_a_tenth_as_often_and_hardly_an_event_is_missed() {
    let always = watch(&demo(), &QUERIES, None);
    let once = watch(&demo(), &QUERIES, Some(&AskConfig::default()));
    assert_eq!((always.frames, once.frames), (300, 300));
    assert_eq!(always.work.asked(), 300 * QUERIES.len() as u64);
    let (asked, reused) = (once.work.asked(), once.work.reused());
    // A file waits: the only reason for not saying anything is that nothing can be said yet.
    let waiting = once.work.shed(ShedReason::Waiting);
    assert_eq!(asked + reused + waiting, 300 * QUERIES.len() as u64);
    assert!(asked * 10 <= always.work.asked(), "{asked} questions instead of {}", always.work.asked());
    let (events, known) = recall(&always, &once, Duration::from_secs(1));
    assert!(events >= 10, "the street has only {events} events");
    // In whole events: of less than 34 one is more than three in a hundred.
    let missed = events - known;
    assert!(
        missed <= (events * 3).div_ceil(100),
        "{known} of {events} events of a second are known; {asked} questions"
    );
    // Every reused answer says so, and every fresh one is one that was asked.
    let mut fresh = 0;
    let mut unsaid = 0;
    for query in once.messages.iter().flat_map(|m| m["queries"].as_array().unwrap()) {
        if query["status"] != "ok" {
            assert!(
                query["reason"].as_str().unwrap().starts_with("waiting") && query["matches"] == json!([]),
                "{query}"
            );
            unsaid += 1;
            continue;
        }
        let says: Vec<&Value> = query["matches"].as_array().unwrap().iter().map(|m| &m["via"]["fresh"]).collect();
        assert!(says.windows(2).all(|w| w[0] == w[1]), "{query}");
        fresh += u64::from(says.first().is_some_and(|fresh| **fresh == true));
    }
    assert_eq!(unsaid, waiting);
    assert!(fresh > 0 && fresh <= asked, "{fresh} fresh answers of {asked} asked");
}

/// Real footage: `GROUNDD_FOOTAGE=DIR cargo test -- --ignored --nocapture real_footage`.
#[test]
#[ignore = "needs video files, and minutes"]
fn on_real_footage_this_is_what_asking_once_saves_and_misses() {
    let folder = std::env::var("GROUNDD_FOOTAGE").expect("GROUNDD_FOOTAGE names a folder with videos");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut sums = [0usize; 4];
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "mp4" || e == "avi")) {
        let always = watch(file, &QUERIES, None);
        let once = watch(file, &QUERIES, Some(&AskConfig::default()));
        let (all, long) = (recall(&always, &once, Duration::ZERO), recall(&always, &once, Duration::from_secs(1)));
        let part = |n: u64, of: u64| n as f64 / of.max(1) as f64;
        println!(
            "{:40} {:5} frames, looked at {:.2}, asked {:.3}, events {}/{}, of a second or more {}/{}",
            file.file_name().unwrap().to_string_lossy(),
            once.frames,
            part(once.work.looked(), once.frames),
            part(once.work.asked(), always.work.asked()),
            all.1,
            all.0,
            long.1,
            long.0
        );
        for (sum, n) in sums.iter_mut().zip([all.1, all.0, long.1, long.0]) {
            *sum += n;
        }
    }
    println!("all: events {}/{}, of a second or more {}/{}", sums[0], sums[1], sums[2], sums[3]);
}

#[test]
fn a_still_picture_costs_next_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let still = folder.path().join("still.mp4");
    // One picture of the street, for ten seconds.
    let done = std::process::Command::new("ffmpeg")
        .args(["-loglevel", "error", "-i"])
        .arg(demo())
        .args(["-vf", "select=eq(n\\,0),loop=149:1:0,setpts=N/15/TB", "-r", "15", "-frames:v", "150"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"])
        .arg(&still)
        .status()
        .unwrap();
    assert!(done.success());
    let once = watch(&still, &QUERIES, Some(&AskConfig::default()));
    assert_eq!(once.frames, 150);
    assert_eq!(once.work.looked() + once.work.still(), 150);
    assert!(once.work.looked() <= 15, "looked at {} of 150 equal pictures", once.work.looked());
    assert!(once.work.asked() <= 40, "{} questions about one picture", once.work.asked());
    // And yet every frame is answered, and its objects stay the same objects.
    assert!(!once.events.is_empty());
    // What scores near the bar may come and go with the encoder's noise; most do not.
    let steady = once.events.iter().filter(|(_, event)| event.len() > 140).count();
    assert!(steady * 2 > once.events.len(), "{:?}", once.events.iter().map(|e| e.1.len()).collect::<Vec<_>>());
}

#[test]
fn live_watching_reuses_and_every_frame_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    h264(&clip, "320x240", 10, 30);
    let fresh = |arguments: &[&str]| -> Vec<bool> {
        let mut command = groundd();
        command.args(["watch", clip.to_str().unwrap(), "--query", "person", "--threshold", "0"]);
        let output = finish(command.args(arguments));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let flags = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        flags.filter_map(|m| m["queries"][0]["matches"][0]["via"]["fresh"].as_bool()).collect()
    };
    let every = fresh(&["--every-frame"]);
    assert!(every.len() == 30 && every.iter().all(|fresh| *fresh), "{every:?}");
    let live = fresh(&[]);
    assert!(live.contains(&true) && live.contains(&false), "{live:?}");
}

/// A loaded tiny model that asks by `config`, and its account.
fn tiny_asking(config: &AskConfig) -> (Box<dyn Grounder>, Arc<Work>) {
    let mut model = load(&tiny());
    model.ask(config, false);
    let work = model.work();
    (model, work)
}

fn named(text: &str, worth: Worth) -> Arc<Query> {
    let id = QueryId::new(&text.replace(' ', "-")).unwrap();
    Arc::new(Query { id, worth, ..(*query(text)).clone() })
}

/// A frame of `camera` that arrived at `at`.
fn frame_at(ledger: &Arc<Ledger>, camera: &str, regions: &[Region], at: Instant) -> Arc<Frame> {
    let mut frame = Arc::into_inner(frame(ledger, picture(regions))).unwrap();
    (frame.camera, frame.decoded_at) = (CameraId::new(camera).unwrap(), at);
    Arc::new(frame)
}

fn bright() -> Region {
    Region { corners: [0, 0, 51, 51], objectness: 204, brightness: 255 }
}

fn dark() -> Region {
    Region { corners: [102, 102, 204, 255], objectness: 255, brightness: 51 }
}

fn fresh(answer: &Answer) -> Vec<bool> {
    assert_eq!(answer.status, Status::Ok);
    answer.matches.iter().map(|m| m.via.fresh).collect()
}

#[test]
fn a_new_query_is_answered_from_what_was_seen_before_it_came() {
    let (ledger, start) = (Arc::new(Ledger::default()), Instant::now());
    let (mut model, work) = tiny_asking(&AskConfig::default());
    let (old, new) = (named("bright", Worth::default()), named("dark", Worth::default()));
    let mut ask = |ms: u64, queries: &[&Arc<Query>]| {
        let frame = frame_at(&ledger, "a", &[bright(), dark()], start + Duration::from_millis(ms));
        let job = Job { frame, queries: queries.iter().map(|q| Arc::clone(q)).collect() };
        model.ground(&batch(vec![job])).unwrap().remove(0)
    };
    assert_eq!(fresh(&ask(0, &[&old])[0]), [true]);
    assert_eq!(fresh(&ask(66, &[&old])[0]), [false]);
    let both = ask(133, &[&new, &old]);
    // From what was seen, not from this very picture, however alike they are.
    assert_eq!((fresh(&both[0]), fresh(&both[1])), (vec![false], vec![false]));
    assert!((found(&both[0])[0].1 - 0.8).abs() < 1e-6);
    // The picture never changed: it was looked at once.
    assert_eq!((work.looked(), work.still(), work.asked(), work.reused()), (1, 2, 2, 2));
    // A query that changed is another one, even if its name is not.
    let changed = Arc::new(Query { rev: 2, text: "light".to_owned(), ..(*old).clone() });
    let answers = ask(200, &[&new, &changed]);
    assert_eq!((fresh(&answers[0]), fresh(&answers[1])), (vec![false], vec![false]));
    assert_eq!((work.looked(), work.asked()), (1, 3));
}

#[test]
fn cameras_do_not_share_what_they_saw_and_two_frames_of_one_come_in_order() {
    let (ledger, start) = (Arc::new(Ledger::default()), Instant::now());
    // The tiny model's pictures differ by a few pixels, which no camera's would: every one is looked at.
    let (mut model, work) = tiny_asking(&AskConfig { change: 0.0, ..AskConfig::default() });
    let query = named("dark", Worth::default());
    let job = |camera: &str, regions: &[Region], ms: u64| {
        let frame = frame_at(&ledger, camera, regions, start + Duration::from_millis(ms));
        Job { frame, queries: vec![Arc::clone(&query)] }
    };
    let jobs =
        vec![job("a", &[dark()], 0), job("b", &[bright()], 0), job("a", &[bright()], 66), job("a", &[dark()], 133)];
    let answers = model.ground(&batch(jobs)).unwrap();
    let matches: Vec<usize> = answers.iter().map(|row| row[0].matches.len()).collect();
    assert_eq!(matches, [1, 0, 0, 1]);
    assert_eq!((work.looked(), work.still()), (4, 0));
}

#[test]
fn asking_always_is_what_it_was_without_a_desk() {
    let (ledger, start) = (Arc::new(Ledger::default()), Instant::now());
    let (mut always, work) = tiny_asking(&AskConfig { once: false, ..AskConfig::default() });
    let mut plain = load(&tiny());
    for ms in 0..20u8 {
        let regions = [bright(), Region { brightness: ms * 12, ..dark() }];
        let frame = frame_at(&ledger, "a", &regions, start + Duration::from_millis(u64::from(ms) * 66));
        let queries = ["bright", "dark", "sure left"].map(|text| named(text, Worth::default())).to_vec();
        let jobs = || batch(vec![Job { frame: Arc::clone(&frame), queries: queries.clone() }]);
        let show = |rows: &[Vec<Answer>]| format!("{rows:?}");
        assert_eq!(show(&always.ground(&jobs()).unwrap()), show(&plain.ground(&jobs()).unwrap()));
    }
    assert_eq!((work.asked(), work.looked(), work.reused(), work.still()), (60, 20, 0, 0));
}

#[test]
fn a_query_without_time_or_means_is_shed_says_why_and_is_counted() {
    let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
    let (mut model, work) = tiny_asking(&AskConfig { once: false, ..AskConfig::default() });
    let late = named("bright", Worth { deadline: Some(Duration::from_secs(10)), ..Worth::default() });
    let poor = named("dark", Worth { budget: Some(1e-9), ..Worth::default() });
    let free = named("sure", Worth::default());
    let mut ask = |age: u64| {
        let at = now.checked_sub(Duration::from_millis(age)).unwrap();
        let frame = frame_at(&ledger, "a", &[bright(), dark()], at);
        let job = Job { frame, queries: vec![Arc::clone(&late), Arc::clone(&poor), Arc::clone(&free)] };
        model.ground(&batch(vec![job])).unwrap().remove(0)
    };
    // The first round tells what a question costs, the second brings the poor query into debt.
    ask(0);
    ask(0);
    let third = ask(20_000);
    let status = |answers: &[Answer]| answers.iter().map(|a| a.status.clone()).collect::<Vec<_>>();
    let shed = |reason: ShedReason| Status::Shed(reason.to_string());
    assert_eq!(status(&third), [shed(ShedReason::Deadline), shed(ShedReason::Budget), Status::Ok]);
    // What was known before is still told, and not as new.
    assert_eq!(third[1].matches.iter().map(|m| m.via.fresh).collect::<Vec<_>>(), [false]);
    assert_eq!((work.shed(ShedReason::Deadline), work.shed(ShedReason::Budget)), (1, 1));
}

#[test]
fn a_file_waits_for_the_model_so_neither_a_deadline_nor_a_budget_leaves_anything_undone() {
    let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
    let mut model = load(&tiny());
    model.ask(&AskConfig { once: false, ..AskConfig::default() }, true);
    let work = model.work();
    let late = named("bright", Worth { deadline: Some(Duration::from_millis(1)), ..Worth::default() });
    let poor = named("dark", Worth { budget: Some(1e-9), ..Worth::default() });
    for _ in 0..5 {
        let at = now.checked_sub(Duration::from_secs(20)).unwrap();
        let job = Job { frame: frame_at(&ledger, "a", &[bright()], at), queries: vec![late.clone(), poor.clone()] };
        for answer in model.ground(&batch(vec![job])).unwrap().remove(0) {
            assert_eq!(answer.status, Status::Ok);
        }
    }
    assert_eq!(work.asked(), 10);
}

/// Detectors answer everything in one pass over the picture: the camera's own proposals. That a busy device leaves none out is
/// shown in `ground::ask`.
#[test]
fn a_detectors_one_pass_answers_all_who_ask() {
    let ledger = Arc::new(Ledger::default());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/heads/yolox");
    let mut model = load(&dir);
    model.ask(&AskConfig::default(), false);
    let (work, size) = (model.work(), model.limits().canvases.usual());
    let queries = ["person", "car", "dog"].map(|text| named(text, Worth::default())).to_vec();
    for shade in 1..=5u8 {
        // Every picture differs from the one before.
        let canvas = Rgb::new(size, vec![shade * 50; size.area() * 3]).unwrap();
        let job = Job { frame: frame(&ledger, canvas), queries: queries.clone() };
        let answers = model.ground(&batch(vec![job])).unwrap().remove(0);
        assert!(answers.iter().all(|answer| answer.status == Status::Ok), "{answers:?}");
    }
    assert_eq!(ShedReason::ALL.map(|reason| work.shed(reason)), [0; ShedReason::ALL.len()]);
}
