//! The messages against their schemas and against what they looked like yesterday.

use std::sync::Arc;

use jsonschema::{Validator, validator_for};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::types::{Best, Capture, Frame, Letterbox, Method, Query, Rgb, ScoreKind, Size, Timings};

fn schema(text: &str) -> Validator {
    validator_for(&serde_json::from_str(text).unwrap()).unwrap()
}

fn detections_schema() -> Validator {
    schema(include_str!("detections.schema.json"))
}

fn events_schema() -> Validator {
    schema(include_str!("events.schema.json"))
}

fn check(schema: &Validator, payload: &Bytes) -> Value {
    let value: Value = serde_json::from_slice(payload).unwrap();
    let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}\n{value:#}");
    value
}

fn query(id: &str) -> Arc<Query> {
    Arc::new(Query {
        id: QueryId::new(id).unwrap(),
        rev: 3,
        text: "person in a \"red\" jacket – größer".into(),
        cameras: None,
        method: Method::Auto,
        threshold: None,
        worth: crate::types::Worth::default(),
    })
}

fn found(score: f32, crop: Option<BBox>, track: Option<u64>) -> Match {
    Match {
        bbox: BBox::new(10.123_456, 20.0, 110.999, 220.5).unwrap(),
        score,
        score_kind: ScoreKind::TokenProb,
        track,
        via: Via { method: Method::Retrieve, model: "nano@0123abcd".into(), crop, fresh: true },
    }
}

fn captured() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_120)
}

fn grounding(clock: Clock, answers: Vec<Answer>, now: Instant) -> Grounding {
    let size = Size::new(4, 2);
    let frame = Frame {
        camera: CameraId::new("gate").unwrap(),
        origin: 0,
        seq: 1841,
        capture: Capture { at: captured(), clock },
        pts: Duration::from_micros(61_366_900),
        decoded_at: now.checked_sub(Duration::from_millis(27)).unwrap(),
        decode_time: Duration::from_micros(4_140),
        view: Letterbox::fit(Size::new(1920, 1080), 1.0, size),
        canvas: Rgb::new(size, vec![0; 24]).unwrap().into(),
        full: None,
        ticket: Arc::new(Ledger::default()).open(),
    };
    let timings = Timings {
        queued: Duration::from_micros(1_980),
        inferred: Duration::from_micros(18_260),
        done_at: now,
        batch: 1,
    };
    Grounding { frame: Arc::new(frame), answers, timings }
}

fn answers() -> Vec<Answer> {
    let crop = BBox::new(0.0, 0.0, 960.0, 540.0);
    let answer = |id: &str, status, matches| Answer { query: query(id), status, matches, complete: true };
    vec![
        answer("red-jacket", Status::Ok, vec![found(0.830_04, crop, Some(17)), found(f32::NAN, None, None)]),
        answer("nothing", Status::Ok, vec![]),
        answer("saved", Status::Shed("the model is busy".into()), vec![]),
        answer("broken", Status::Error("the model gave no box".into()), vec![]),
    ]
}

#[test]
fn a_frame_is_the_message_of_the_contract() {
    let now = Instant::now();
    let grounding = grounding(Clock::Ntp, answers(), now);
    let payload = detections(&grounding, "e1", captured() + Duration::from_micros(31_490), now);
    check(&detections_schema(), &payload);
    // The text, not the value: the order of the keys is part of what people see.
    insta::assert_snapshot!(std::str::from_utf8(&payload).unwrap());
}

#[test]
fn the_age_counts_from_whose_clock_there_is_and_is_never_negative() {
    let now = Instant::now();
    let age = |clock, at| {
        let value = check(&detections_schema(), &detections(&grounding(clock, vec![], now), "e", at, now));
        value["time"]["age_ms"].as_f64().unwrap()
    };
    assert!((age(Clock::Ntp, captured() + Duration::from_millis(250)) - 250.0).abs() < 1e-9);
    // A camera whose clock is ahead.
    assert!(age(Clock::Ntp, captured() - Duration::from_secs(9)).abs() < 1e-9);
    // Arrival: 27 ms since it was decoded, 4.14 ms for decoding; our wall clock may jump as it likes.
    assert!((age(Clock::Arrival, SystemTime::UNIX_EPOCH) - 31.1).abs() < 1e-9);
}

fn track_event(kind: EventKind) -> TrackEvent {
    TrackEvent {
        kind,
        track: 17,
        query: query("red-jacket"),
        first_seen: captured(),
        last_seen: captured() + Duration::from_millis(1500),
        frames: 12,
        bbox: BBox::new(1.0, 2.0, 3.0, 4.0).unwrap(),
        best: Best { found: found(0.912_345, None, Some(17)), at: captured() },
    }
}

#[test]
fn events_and_gaps_follow_their_schema() {
    let camera = CameraId::new("gate").unwrap();
    for kind in [EventKind::New, EventKind::Update, EventKind::End] {
        check(&events_schema(), &event(&camera, &track_event(kind), "e1", 7));
    }
    check(&events_schema(), &gap(3, captured(), captured() + Duration::from_mins(1)));
    insta::assert_snapshot!(std::str::from_utf8(&event(&camera, &track_event(EventKind::Update), "e1", 7)).unwrap());
}

#[test]
fn the_schemas_refuse_what_the_contract_does_not_have() {
    let now = Instant::now();
    let mut value: Value =
        serde_json::from_slice(&detections(&grounding(Clock::Ntp, answers(), now), "e", captured(), now)).unwrap();
    value["queries"][0]["matches"][0]["extra"] = 1.into();
    assert!(!detections_schema().is_valid(&value));
    let mut value: Value =
        serde_json::from_slice(&event(&CameraId::new("c").unwrap(), &track_event(EventKind::New), "e", 0)).unwrap();
    value.as_object_mut().unwrap().remove("event_seq");
    assert!(!events_schema().is_valid(&value));
}

#[test]
fn small_messages_say_what_the_contract_says() {
    let text = |payload: Bytes| String::from_utf8(payload.to_vec()).unwrap();
    assert_eq!(text(present(true)) + &text(present(false)) + &text(count(3)), "ONOFF3");
    assert_eq!(
        text(camera_status(CameraState::Stalled, captured(), Some("no data"))),
        r#"{"state":"stalled","since":"2026-01-31T12:00:00.120Z","reason":"no data"}"#
    );
    assert_eq!(text(set_state(2, SetState::Active, None)), r#"{"rev":2,"status":"active","reason":null}"#);
    let (id, ledger) = (CameraId::new("gate").unwrap(), Arc::new(Ledger::default()));
    ledger.open().drop_for(DropReason::Broker);
    let work = Work::default();
    work.look(false);
    work.answer(true);
    work.leave(ShedReason::Deadline);
    let stats = stats("e", Duration::from_secs(90), [(&id, &*ledger)], &work, &PublishStats::default());
    let stats: Value = serde_json::from_slice(&stats).unwrap();
    assert_eq!(stats["cameras"]["gate"]["dropped"]["broker"], 1);
    assert_eq!((&stats["work"]["still"], &stats["work"]["asked"]), (&1.into(), &1.into()));
    assert_eq!((&stats["work"]["shed"]["deadline"], &stats["work"]["shed"]["busy"]), (&1.into(), &0.into()));
    assert_eq!((&stats["uptime_s"], &stats["mqtt"]["events_lost"]), (&90.into(), &0.into()));
}

proptest! {
    #[test]
    fn any_time_is_shown_and_any_number_is_a_number(
        seconds in any::<u64>(), before in any::<bool>(), score in any::<f32>(),
    ) {
        let span = Duration::from_secs(seconds);
        let at = if before {
            SystemTime::UNIX_EPOCH.checked_sub(span)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(span)
        };
        let shown = rfc3339(at.unwrap_or(SystemTime::UNIX_EPOCH));
        prop_assert!(shown.len() == 24 && shown.ends_with('Z'), "{}", shown);
        let now = Instant::now();
        let answer = Answer { query: query("q"), status: Status::Ok, matches: vec![found(score, None, Some(1))], complete: true };
        check(&detections_schema(), &detections(&grounding(Clock::Arrival, vec![answer], now), "e", captured(), now));
    }
}
