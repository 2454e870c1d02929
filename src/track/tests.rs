//! Tracking against worlds whose truth is known.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{objects::MAX_OBJECTS, tracker::MAX_TRACKS, *};
use crate::types::{Answer, BBox, EventKind, Match, Method, Query, QueryId, ScoreKind, Status, TrackEvent, Via};

mod worlds;

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
    Answer { query: Arc::clone(query), status: Status::Ok, matches, complete: true }
}

/// Not everything that may match was looked at.
fn incomplete(query: &Arc<Query>, matches: Vec<Match>) -> Answer {
    Answer { complete: false, ..ok(query, matches) }
}

fn shed(query: &Arc<Query>) -> Answer {
    Answer { status: Status::Shed("busy".into()), ..ok(query, vec![]) }
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
        self.tracker.presence().find(|(q, _)| q.as_str() == id).and_then(|(_, n)| n)
    }
}

fn kinds(events: &[TrackEvent]) -> Vec<(EventKind, u64, &str)> {
    events.iter().map(|e| (e.kind, e.track, e.query.id.as_str())).collect()
}

const BOX: [f32; 4] = [100.0, 100.0, 160.0, 220.0];

#[test]
fn an_object_is_not_seen_in_the_future_of_a_clock_that_was_set_back() {
    let (mut bench, q) = (Bench::new(), query("q"));
    let hour = Duration::from_hours(1);
    let mut seen = |ms: u64, clock: SystemTime| {
        bench.tracker.update(&mut [ok(&q, vec![found(BOX, 0.9)])], bench.start + Duration::from_millis(ms), clock)
    };
    let ahead = SystemTime::UNIX_EPOCH + 9 * hour;
    seen(0, ahead);
    seen(500, ahead + Duration::from_millis(500));
    let right = ahead - hour + Duration::from_secs(6);
    let update = seen(6000, right);
    assert_eq!(kinds(&update), [(EventKind::Update, 1, "q")]);
    assert_eq!((update[0].first_seen, update[0].last_seen, update[0].best.at), (right, right, right));
    // A camera's clock that comes to be doubted is a few seconds off.
    let late = seen(12_000, right - Duration::from_secs(9));
    assert_eq!(late[0].last_seen, right);
}

#[test]
fn an_object_is_new_then_updated_then_ended() {
    let (mut bench, q) = (Bench::new(), query("q"));
    assert!(bench.update(0, &mut [ok(&q, vec![found(BOX, 0.6)])]).is_empty());
    assert_eq!(bench.count("q"), None, "nobody was told of it, and nobody may say that nothing is there");
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
fn of_what_is_not_in_an_incomplete_answer_nobody_says_that_it_is_gone() {
    let q = query("q");
    let both = || vec![found(BOX, 0.9), found(BOX.map(|v| v + 400.0), 0.8)];
    // When the second of two objects ends, of which there is only the first in the answers after those `before`.
    let ends = |before: Vec<Answer>, answer: &dyn Fn(Vec<Match>) -> Answer| {
        let mut bench = Bench::new();
        let mut ms = 0;
        for answer in [ok(&q, both()), ok(&q, both())].into_iter().chain(before) {
            assert!(bench.update(ms, &mut [answer]).iter().all(|event| event.kind == EventKind::New));
            ms += 500;
        }
        assert_eq!(bench.count("q"), Some(2));
        (ms..20_000).step_by(500).find(|ms| {
            let events = bench.update(*ms, &mut [answer(vec![found(BOX, 0.9)])]);
            let kinds = kinds(&events);
            assert!(!kinds.contains(&(EventKind::End, 1, "q")));
            kinds.contains(&(EventKind::End, 2, "q"))
        })
    };
    let (complete, part) = (|found| ok(&q, found), |found| incomplete(&q, found));
    assert_eq!(ends(vec![], &complete), Some(500 + 2500));
    // As long as what a shed query had found.
    assert_eq!(ends(vec![], &part), Some(500 + 8500));
    let missed = || ok(&q, vec![found(BOX, 0.9)]);
    assert_eq!(ends(vec![missed()], &part), Some(500 + 2500), "it was looked for once, and nobody saw it since");
    assert_eq!(ends(vec![missed(), part(both())], &part), Some(1500 + 8500), "it was seen since");
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
fn what_was_missed_just_before_its_camera_fell_silent_was_not_looked_for_long_enough() {
    let (mut bench, q) = (Bench::new(), query("q"));
    for (ms, matches) in [(0, vec![found(BOX, 0.9)]), (100, vec![found(BOX, 0.9)]), (1000, vec![])] {
        bench.update(ms, &mut [ok(&q, matches)]);
    }
    assert!(bench.expire(2500).is_empty() && bench.expire(3000).is_empty());
    assert_eq!(kinds(&bench.expire(3001)), [(EventKind::End, 1, "q")]);
    let mut answers = [ok(&q, vec![found(BOX, 0.9)])];
    bench.update(5000, &mut answers);
    assert_eq!(answers[0].matches[0].track, Some(1), "it stands where it stood");
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
fn what_is_gone_when_the_camera_is_back_leaves_its_id_to_nobody() {
    let q = query("q");
    // The id of what stands there at last, when the camera was silent for 5 s and then said this again and again.
    let later = |answer: Answer, until: u64| {
        let mut bench = Bench::new();
        for ms in [0, 100] {
            bench.update(ms, &mut [ok(&q, vec![found(BOX, 0.9)])]);
        }
        assert_eq!(kinds(&bench.expire(5000)), [(EventKind::End, 1, "q")]);
        for ms in (5100..until).step_by(500) {
            bench.update(ms, &mut [answer.clone()]);
        }
        let mut answers = [ok(&q, vec![found(BOX, 0.9)])];
        bench.update(until, &mut answers);
        answers[0].matches[0].track
    };
    assert_eq!(later(ok(&q, vec![]), 35_000), Some(2));
    // It was not found at once.
    assert_eq!(later(ok(&q, vec![]), 7000), Some(1));
    // Nobody looked, or not everywhere.
    assert_eq!(later(shed(&q), 35_000), Some(1));
    assert_eq!(later(incomplete(&q, vec![]), 35_000), Some(1));
    assert_eq!(later(ok(&query("other"), vec![]), 35_000), Some(1));
}

#[test]
fn a_camera_that_is_set_again_gives_no_id_twice() {
    let q = query("q");
    let mut bench = Bench::new();
    assert_eq!(bench.tracker.last_id(), 0);
    bench.update(0, &mut [ok(&q, vec![found(BOX, 0.9), found(BOX.map(|v| v + 400.0), 0.9)])]);
    let last = bench.tracker.last_id();
    let mut again = Bench { tracker: Tracker::starting_after(TrackConfig::default(), last), ..bench };
    assert_eq!((last, again.tracker.last_id()), (2, 2));
    let mut answers = [ok(&q, vec![found(BOX, 0.9)])];
    again.update(1000, &mut answers);
    assert_eq!((answers[0].matches[0].track, again.tracker.last_id()), (Some(3), 3));
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
fn a_crowd_of_one_query_hides_no_other() {
    let (mut bench, crowd, dog) = (Bench::new(), query("crowd"), query("dog"));
    for ms in [0, 100, 200] {
        let people = (0..200u16).map(|i| {
            let (x, y) = (f32::from(i % 20) * 70.0, f32::from(i / 20) * 70.0);
            found([x, y, x + 60.0, y + 60.0], 0.9)
        });
        bench.update(ms, &mut [ok(&crowd, people.collect()), ok(&dog, vec![found([2000.0, 0.0, 2060.0, 60.0], 0.5)])]);
    }
    assert_eq!((bench.count("crowd"), bench.count("dog")), (Some(MAX_OBJECTS), Some(1)));
}

#[test]
fn a_flood_of_boxes_is_bounded() {
    let (mut bench, q) = (Bench::new(), query("q"));
    let (started, mut most) = (Instant::now(), 0usize);
    for frame in 0..8u64 {
        let matches = (0..2000u16).map(|i| {
            let (x, y) = (f32::from(i % 50) * 70.0 + frame as f32 * 3000.0, f32::from(i / 50) * 70.0);
            found([x, y, x + 60.0, y + 60.0], 0.5)
        });
        let mut answers = [ok(&q, matches.collect())];
        bench.update(frame * 33, &mut answers);
        most = most.max(answers[0].matches.iter().filter(|found| found.track.is_some()).count());
    }
    // One query: there are as many predictions as tracks.
    assert_eq!((most, bench.tracker.predicted(bench.start).len()), (MAX_OBJECTS, MAX_TRACKS));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn an_outage_is_not_taken_for_the_cameras_pace_and_a_slower_pace_is_learned_with_its_second_frame() {
    let (mut bench, q) = (Bench::new(), query("q"));
    for ms in [0, 500, 1000, 61_000] {
        bench.update(ms, &mut [ok(&q, vec![])]);
    }
    let silent = |bench: &Bench, ms: u64| bench.tracker.is_silent(bench.start + Duration::from_millis(ms));
    assert!(!silent(&bench, 62_900) && silent(&bench, 63_100), "it was at two frames a second");
    bench.update(71_000, &mut [ok(&q, vec![])]);
    bench.update(81_000, &mut [ok(&q, vec![])]);
    assert!(!silent(&bench, 95_000) && silent(&bench, 101_100), "it is at one in ten seconds");
}

#[test]
fn what_stands_still_is_the_same_when_the_camera_sends_other_pixels() {
    let (mut bench, q) = (Bench::new(), query("q"));
    let before = [300.0, 300.0, 480.0, 660.0];
    for ms in [0, 100, 200] {
        bench.update(ms, &mut [ok(&q, vec![found(before, 0.9)])]);
    }
    bench.tracker.rescale([1.0 / 3.0, 0.5]);
    let mut answers = [ok(&q, vec![found([100.0, 150.0, 160.0, 330.0], 0.8)])];
    assert!(bench.update(300, &mut answers).is_empty());
    assert_eq!((answers[0].matches[0].track, bench.count("q")), (Some(1), Some(1)));
    let end = bench.update(2500, &mut [ok(&q, vec![])]);
    assert_eq!(kinds(&end), [(EventKind::End, 1, "q")]);
    assert_eq!((end[0].bbox.corners()[0], end[0].best.found.bbox.corners()[0]), (100.0, 100.0));
}
