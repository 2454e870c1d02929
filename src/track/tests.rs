//! Tracking against worlds whose truth is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use proptest::prelude::*;

use super::*;
use crate::types::{Answer, BBox, EventKind, Match, Method, Query, QueryId, ScoreKind, Status, TrackEvent, Via};

fn query_rev(id: &str, rev: u32) -> Arc<Query> {
    Arc::new(Query {
        id: QueryId::new(id).unwrap(),
        rev,
        text: id.into(),
        cameras: None,
        method: Method::Auto,
        threshold: None,
        worth: crate::types::Worth::default(),
    })
}

fn query(id: &str) -> Arc<Query> {
    query_rev(id, 1)
}

fn found(corners: [f32; 4], score: f32) -> Match {
    let [x1, y1, x2, y2] = corners;
    Match {
        bbox: BBox::new(x1, y1, x2, y2).unwrap(),
        score,
        score_kind: ScoreKind::Proposal,
        track: None,
        via: Via { method: Method::Retrieve, model: "m".into(), crop: None, fresh: true },
    }
}

fn ok(query: &Arc<Query>, matches: Vec<Match>) -> Answer {
    Answer { query: Arc::clone(query), status: Status::Ok, matches }
}

fn shed(query: &Arc<Query>) -> Answer {
    Answer { query: Arc::clone(query), status: Status::Shed("busy".into()), matches: vec![] }
}

/// A tracker with a clock in milliseconds.
struct Bench {
    tracker: Tracker,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { tracker: Tracker::new(TrackConfig::default()), start: Instant::now() }
    }

    fn update(&mut self, ms: u64, answers: &mut [Answer]) -> Vec<TrackEvent> {
        let captured = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        self.tracker.update(answers, self.start + Duration::from_millis(ms), captured)
    }

    fn expire(&mut self, ms: u64) -> Vec<TrackEvent> {
        self.tracker.expire(self.start + Duration::from_millis(ms))
    }

    fn count(&self, id: &str) -> Option<usize> {
        self.tracker.presence().find(|(q, _)| q.as_str() == id).map(|(_, n)| n)
    }
}

fn kinds(events: &[TrackEvent]) -> Vec<(EventKind, u64, &str)> {
    events.iter().map(|e| (e.kind, e.track, e.query.id.as_str())).collect()
}

const BOX: [f32; 4] = [100.0, 100.0, 160.0, 220.0];

#[test]
fn an_object_is_new_then_updated_then_ended() {
    let (mut bench, q) = (Bench::new(), query("q"));
    assert!(bench.update(0, &mut [ok(&q, vec![found(BOX, 0.6)])]).is_empty());
    assert_eq!(bench.count("q"), Some(0));
    let new = bench.update(500, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    assert_eq!(kinds(&new), [(EventKind::New, 1, "q")]);
    assert_eq!((new[0].frames, new[0].best.found.score), (2, 0.9));
    assert_eq!(bench.count("q"), Some(1));
    let mut update = Vec::new();
    for ms in (1000..=6000).step_by(500) {
        update.extend(bench.update(ms, &mut [ok(&q, vec![found(BOX, 0.5)])]));
    }
    assert_eq!(kinds(&update), [(EventKind::Update, 1, "q")]);
    assert_eq!(update[0].best.at, SystemTime::UNIX_EPOCH + Duration::from_millis(500));
    assert!(bench.update(7900, &mut [ok(&q, vec![])]).is_empty());
    let end = bench.update(8100, &mut [ok(&q, vec![])]);
    assert_eq!(kinds(&end), [(EventKind::End, 1, "q")]);
    assert_eq!(end[0].last_seen, SystemTime::UNIX_EPOCH + Duration::from_secs(6));
    assert_eq!(bench.count("q"), Some(0));
    assert!(bench.expire(99_000).is_empty());
}

#[test]
fn one_object_has_one_id_for_all_queries() {
    let (mut bench, a, b) = (Bench::new(), query("a"), query("b"));
    let slightly_off = [102.0, 101.0, 163.0, 222.0];
    let mut answers = [ok(&a, vec![found(BOX, 0.9)]), ok(&b, vec![found(slightly_off, 0.4)])];
    bench.update(0, &mut answers);
    assert_eq!(answers.each_ref().map(|x| x.matches[0].track), [Some(1), Some(1)]);
    // One query loses it for good; the object and its other query live on.
    let mut all = Vec::new();
    for ms in (200..=4000).step_by(200) {
        let seen = if ms < 1000 { vec![found(slightly_off, 0.4)] } else { vec![] };
        all.extend(bench.update(ms, &mut [ok(&a, vec![found(BOX, 0.9)]), ok(&b, seen)]));
    }
    assert_eq!(kinds(&all), [(EventKind::New, 1, "a"), (EventKind::New, 1, "b"), (EventKind::End, 1, "b")]);
    assert_eq!((bench.count("a"), bench.count("b")), (Some(1), Some(0)));
}

#[test]
fn boxes_of_two_queries_that_come_to_lie_on_each_other_are_one_object_then() {
    let (mut bench, a, b) = (Bench::new(), query("a"), query("b"));
    let seen = |upper| [ok(&a, vec![found(BOX, 0.9)]), ok(&b, vec![found(upper, 0.8)])];
    for ms in [0, 100] {
        let mut answers = seen([100.0, 100.0, 160.0, 180.0]);
        bench.update(ms, &mut answers);
        assert_eq!(answers.map(|answer| answer.matches[0].track), [Some(1), Some(2)], "they overlap by two thirds");
    }
    let events = bench.update(200, &mut seen([100.0, 100.0, 160.0, 190.0]));
    assert_eq!(kinds(&events), [(EventKind::End, 2, "b"), (EventKind::New, 1, "b")]);
    assert_eq!((bench.count("a"), bench.count("b")), (Some(1), Some(1)));
    assert_eq!(events[1].first_seen, SystemTime::UNIX_EPOCH, "it was there before");
}

#[test]
fn two_matches_of_one_query_are_two_objects_however_close() {
    let (mut bench, q) = (Bench::new(), query("q"));
    let close = [105.0, 100.0, 165.0, 220.0];
    for ms in [0, 100, 200] {
        let mut answers = [ok(&q, vec![found(BOX, 0.9), found(close, 0.8)])];
        bench.update(ms, &mut answers);
        let ids: Vec<_> = answers[0].matches.iter().map(|m| m.track).collect();
        assert_eq!(ids, [Some(1), Some(2)]);
    }
}

#[test]
fn a_shed_query_keeps_its_objects_for_a_while() {
    let (mut bench, q) = (Bench::new(), query("q"));
    bench.update(0, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    bench.update(100, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    for ms in (500..=8000).step_by(500) {
        assert!(bench.update(ms, &mut [shed(&q)]).is_empty(), "{ms}");
        assert!(bench.expire(ms).is_empty());
    }
    assert_eq!(bench.count("q"), Some(1));
    assert_eq!(kinds(&bench.update(8200, &mut [shed(&q)])), [(EventKind::End, 1, "q")]);
}

#[test]
fn what_a_shed_query_remembers_is_told_its_track_and_believed_no_longer_than_nothing() {
    let (mut bench, q) = (Bench::new(), query("q"));
    bench.update(0, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    bench.update(100, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    let remembered = |corners| Answer { matches: vec![found(corners, 0.9)], ..shed(&q) };
    for ms in (500..=8000).step_by(500) {
        // One that is known, and one that nobody has seen.
        let mut answers =
            [Answer { matches: vec![found(BOX, 0.9), found([400.0, 10.0, 430.0, 60.0], 0.8)], ..shed(&q) }];
        assert!(bench.update(ms, &mut answers).is_empty(), "{ms}");
        assert_eq!(answers[0].matches.iter().map(|m| m.track).collect::<Vec<_>>(), [Some(1), None]);
    }
    assert_eq!(kinds(&bench.update(8200, &mut [remembered(BOX)])), [(EventKind::End, 1, "q")]);
}

#[test]
fn a_silent_camera_ends_its_objects() {
    let (mut bench, q) = (Bench::new(), query("q"));
    bench.update(0, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    bench.update(100, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    assert!(bench.expire(2000).is_empty());
    assert_eq!(kinds(&bench.expire(2200)), [(EventKind::End, 1, "q")]);
    assert_eq!(bench.count("q"), Some(0));
}

#[test]
fn a_camera_slower_than_objects_are_lost_still_has_some() {
    let (mut bench, q) = (Bench::new(), query("q"));
    let mut events = Vec::new();
    for ms in (0..=30_000).step_by(500) {
        // A frame every 10 s, one every 2.5 s from 15 s on.
        if (ms < 15_000 && ms % 10_000 == 0) || (ms >= 15_000 && ms % 2500 == 0) {
            events.extend(bench.update(ms, &mut [ok(&q, vec![found(BOX, 0.9)])]));
        }
        events.extend(bench.expire(ms));
    }
    assert_eq!(kinds(&events)[0], (EventKind::New, 2, "q"));
    assert!(events.iter().all(|event| event.kind != EventKind::End) && bench.count("q") == Some(1));
    // The first frame without it is the end, and so is the second that does not come.
    let mut gone = Bench { tracker: Tracker::new(TrackConfig::default()), ..bench };
    for ms in [0, 2500, 5000] {
        gone.update(ms, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    }
    assert!(gone.expire(10_000).is_empty());
    assert_eq!(kinds(&gone.expire(10_001)), [(EventKind::End, 1, "q")]);
    gone.update(20_000, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    gone.update(22_500, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    // The same one: it stood where it stood before the silence.
    assert_eq!(kinds(&gone.update(25_000, &mut [ok(&q, vec![])])), [(EventKind::End, 1, "q")]);
}

#[test]
fn a_camera_that_comes_back_shows_the_same_objects_where_they_stood_and_only_there() {
    let q = query("q");
    let back = |before: &dyn Fn(&mut Bench), ms: u64, at: [f32; 4]| {
        let mut bench = Bench::new();
        bench.update(0, &mut [ok(&q, vec![found(BOX, 0.9)])]);
        bench.update(100, &mut [ok(&q, vec![found(BOX, 0.9)])]);
        before(&mut bench);
        let mut answers = [ok(&q, vec![found(at, 0.9)])];
        bench.update(ms, &mut answers);
        let id = answers[0].matches[0].track.unwrap();
        assert_eq!(kinds(&bench.update(ms + 100, &mut answers)), [(EventKind::New, id, "q")]);
        id
    };
    let silence = |bench: &mut Bench| assert_eq!(kinds(&bench.expire(2500)), [(EventKind::End, 1, "q")]);
    let away = BOX.map(|v| v + 1000.0);
    assert_eq!(back(&silence, 30_000, BOX), 1);
    assert_eq!(back(&silence, 30_000, away), 2);
    assert_eq!(back(&silence, 90_000, BOX), 2);
    // It went while the camera looked: what comes later is something else.
    let gone = |bench: &mut Bench| {
        for ms in (200..=2600).step_by(200) {
            bench.update(ms, &mut [ok(&q, vec![])]);
        }
        bench.expire(6000);
    };
    assert_eq!(back(&gone, 30_000, BOX), 2);
}

#[test]
fn a_query_that_is_removed_or_changed_ends_what_was_open() {
    let (mut bench, a, b) = (Bench::new(), query("a"), query("b"));
    let frame = |a: &Arc<Query>| [ok(a, vec![found(BOX, 0.9)]), ok(&b, vec![found(BOX, 0.9)])];
    bench.update(0, &mut frame(&a));
    bench.update(100, &mut frame(&a));
    let changed = bench.update(200, &mut frame(&query_rev("a", 2)));
    assert_eq!(kinds(&changed), [(EventKind::End, 1, "a")]);
    assert_eq!(changed[0].query.rev, 1);
    let again = bench.update(300, &mut frame(&query_rev("a", 2)));
    assert_eq!((kinds(&again), again[0].query.rev), (vec![(EventKind::New, 1, "a")], 2));
    let removed = bench.update(400, &mut [ok(&b, vec![found(BOX, 0.9)])]);
    assert_eq!(kinds(&removed), [(EventKind::End, 1, "a")]);
    assert_eq!(bench.count("a"), None);
}

#[test]
fn an_unsure_box_keeps_an_object_but_does_not_steal_it() {
    let (mut bench, q) = (Bench::new(), query("q"));
    bench.update(0, &mut [ok(&q, vec![found(BOX, 0.9)])]);
    // The unsure box fits the prediction better, the sure one well enough.
    let mut answers = [ok(&q, vec![found(BOX, 0.3), found([110.0, 100.0, 170.0, 220.0], 0.9)])];
    bench.update(100, &mut answers);
    assert_eq!(answers[0].matches.iter().map(|m| m.track).collect::<Vec<_>>(), [Some(2), Some(1)]);
    let mut answers = [ok(&q, vec![found([110.0, 100.0, 170.0, 220.0], 0.3)])];
    bench.update(200, &mut answers);
    assert_eq!(answers[0].matches[0].track, Some(1));
}

/// Part of the frame time it is late, whether it is dropped, and for each object whether it is seen and the noise.
type LaneFrame = (f64, bool, Vec<(bool, f32)>);

/// Objects that move along lanes of their own, seen now and then.
#[derive(Debug, Clone)]
struct Lanes {
    /// Speed (sizes a second) and width of each.
    objects: Vec<(f32, f32)>,
    fps: f64,
    frames: Vec<LaneFrame>,
}

fn lanes() -> impl Strategy<Value = Lanes> {
    let objects = proptest::collection::vec((-0.8f32..0.8, 40.0f32..120.0), 1..5);
    let seen = proptest::collection::vec((proptest::bool::weighted(0.85), -0.03f32..0.03), 5);
    let frame = (0.0f64..0.3, proptest::bool::weighted(0.1), seen);
    (objects, 2.0f64..30.0, proptest::collection::vec(frame, 10..60)).prop_map(|(objects, fps, frames)| Lanes {
        objects,
        fps,
        frames,
    })
}

proptest! {
    #[test]
    fn ids_are_unique_and_stable_for_what_does_not_cross(world in lanes()) {
        let q = query("q");
        // A loss longer than this is an end; the world may have gaps of several frames at 2 a second.
        let config = TrackConfig { lost_seconds: 4.0, ..TrackConfig::default() };
        let mut bench = Bench { tracker: Tracker::new(config), start: Instant::now() };
        let mut ids: BTreeMap<usize, u64> = BTreeMap::new();
        let mut last_seen: BTreeMap<usize, f64> = BTreeMap::new();
        for (i, (late, dropped, seen)) in world.frames.iter().enumerate() {
            if *dropped { continue }
            let t = (i as f64 + late) / world.fps;
            let mut matches = Vec::new();
            let mut truth = Vec::new();
            for (o, (speed, width)) in world.objects.iter().enumerate() {
                let (shown, noise) = seen[o];
                let size = width * 2f32.sqrt();
                // Longer out of sight, nothing could know where it went without a settled speed.
                if !shown && last_seen.get(&o).is_some_and(|s| t - s < 0.7) { continue }
                #[expect(clippy::cast_possible_truncation)]
                let x = 2000.0 + speed * size * t as f32 + noise * size;
                let y = 1000.0 * o as f32;
                matches.push(found([x, y, x + width, y + 2.0 * width], 0.4 + 0.1 * o as f32));
                truth.push(o);
                last_seen.insert(o, t);
            }
            let mut answers = [ok(&q, matches)];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            bench.update((t * 1000.0) as u64, &mut answers);
            for (o, found) in truth.iter().zip(&answers[0].matches) {
                let id = found.track.unwrap();
                prop_assert_eq!(*ids.entry(*o).or_insert(id), id, "object {} at {}", o, t);
            }
        }
        let all: BTreeSet<u64> = ids.values().copied().collect();
        prop_assert_eq!(all.len(), ids.len());
        prop_assert_eq!(all.last().copied().unwrap_or(0), ids.len() as u64);
    }

    #[test]
    fn every_life_is_new_updates_end_and_presence_is_what_is_open(
        frames in proptest::collection::vec(
            (
                0u64..1500,
                proptest::collection::vec(
                    (0u8..5, proptest::collection::vec((0f32..300.0, 0f32..300.0, any::<f32>()), 0..6)), 3,
                ),
                any::<bool>(),
            ),
            1..40,
        ),
    ) {
        let mut bench = Bench::new();
        let mut open: BTreeMap<(u64, String), bool> = BTreeMap::new();
        let mut ms = 0;
        for (step, queries, quiet) in frames {
            ms += step;
            let mut answers = Vec::new();
            for (i, (kind, boxes)) in queries.into_iter().enumerate() {
                let q = query_rev(&format!("q{i}"), 1 + u32::from(kind == 3));
                let boxes = boxes.iter().map(|(x, y, s)| found([*x, *y, x + 60.0, y + 60.0], *s)).collect();
                match kind {
                    0 => {}
                    1 => answers.push(shed(&q)),
                    _ => answers.push(ok(&q, boxes)),
                }
            }
            let events = if quiet { bench.expire(ms) } else { bench.update(ms, &mut answers) };
            for event in events {
                let key = (event.track, event.query.id.to_string());
                match event.kind {
                    EventKind::New => prop_assert_eq!(open.insert(key, true), None),
                    EventKind::Update => prop_assert!(open.contains_key(&key)),
                    EventKind::End => prop_assert_eq!(open.remove(&key), Some(true)),
                }
                prop_assert!(event.frames >= 2 && event.first_seen <= event.last_seen);
            }
            for answer in answers.iter().filter(|_| !quiet) {
                let ids: Vec<_> = answer.matches.iter().filter_map(|m| m.track).collect();
                prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
                prop_assert_eq!(ids.len(), answer.matches.len());
            }
            let present: BTreeMap<String, usize> =
                bench.tracker.presence().map(|(id, n)| (id.to_string(), n)).collect();
            for (id, n) in &present {
                prop_assert_eq!(open.keys().filter(|(_, q)| q == id).count(), *n);
            }
            prop_assert_eq!(present.values().sum::<usize>(), open.len());
        }
    }

    #[test]
    fn nothing_that_can_be_a_box_makes_it_panic(
        frames in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec((any::<[f32; 4]>(), any::<f32>()), 0..20)), 1..20,
        ),
        lost in any::<f32>(), confirm in any::<u32>(), update in any::<f32>(),
    ) {
        let config = TrackConfig { lost_seconds: lost, confirm_frames: confirm, update_seconds: update };
        let mut bench = Bench { tracker: Tracker::new(config), start: Instant::now() };
        for (ms, boxes) in frames {
            let matches = boxes.into_iter().filter_map(|([a, b, c, d], s)| {
                BBox::new(a, b, c, d).map(|b| found(b.corners(), s))
            });
            bench.update(ms.into(), &mut [ok(&query("q"), matches.collect())]);
            bench.expire(u64::from(ms) / 2);
        }
    }
}

#[test]
fn objects_are_where_they_were_going_for_each_query_they_answer() {
    let (start, mut tracker) = (Instant::now(), Tracker::new(TrackConfig::default()));
    let (a, b) = (query("a"), query("b"));
    for step in 0..10u8 {
        let x = f32::from(step) * 10.0;
        let mut answers = vec![ok(&a, vec![found([x, 0.0, x + 20.0, 40.0], 0.9)]), ok(&b, vec![])];
        if step < 5 {
            answers[1].matches.push(found([x, 0.0, x + 20.0, 40.0], 0.9));
        }
        tracker.update(&mut answers, start + Duration::from_millis(100) * u32::from(step), SystemTime::now());
    }
    let predicted = tracker.predicted(start + Duration::from_millis(1100));
    assert_eq!(predicted.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    for (_, bbox) in predicted {
        assert!((bbox.corners()[0] - 110.0).abs() < 6.0, "{bbox:?}");
    }
}

#[test]
fn a_flood_of_boxes_is_bounded() {
    let (mut bench, q) = (Bench::new(), query("q"));
    let started = Instant::now();
    for frame in 0..8u64 {
        let matches = (0..2000u16).map(|i| {
            let (x, y) = (f32::from(i % 50) * 70.0 + frame as f32 * 3000.0, f32::from(i / 50) * 70.0);
            found([x, y, x + 60.0, y + 60.0], 0.5)
        });
        bench.update(frame * 33, &mut [ok(&q, matches.collect())]);
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
