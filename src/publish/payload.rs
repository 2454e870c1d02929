//! The messages of the contract as JSON, each serialised once. Knows no topics, no broker and no stage: it takes plain
//! data. `detections.schema.json` and `events.schema.json` beside this file say the same for other programs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::PublishStats;
use crate::types::{
    Answer, BBox, CameraId, Clock, DropReason, EventKind, Frame, Grounding, Ledger, Match, QueryId, ScoreKind,
    ShedReason, Status, TrackEvent, Via, Work,
};

/// Version of every message below that has one.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Detections<'a> {
    v: u32,
    camera: &'a CameraId,
    seq: u64,
    epoch: &'a str,
    time: Times,
    frame: Picture,
    queries: Vec<QueryAnswer<'a>>,
}

#[derive(Serialize)]
struct Times {
    captured: String,
    clock: Clock,
    decoded_ms: f64,
    queued_ms: f64,
    inferred_ms: f64,
    age_ms: f64,
}

#[derive(Serialize)]
struct Picture {
    pts_ms: u64,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct QueryAnswer<'a> {
    id: &'a QueryId,
    rev: u32,
    text: &'a str,
    status: &'static str,
    reason: Option<&'a str>,
    matches: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(rename = "box")]
    bbox: &'a BBox,
    score: f64,
    score_kind: ScoreKind,
    track: Option<u64>,
    via: &'a Via,
}

/// How old a frame's pixels are. `now` and `now_instant` are the same moment: the age counts from the sender's clock where the
/// frame has one, else from the data's arrival here, whatever becomes of this machine's clock, and is never negative.
pub fn age(frame: &Frame, now: SystemTime, now_instant: Instant) -> Duration {
    match frame.capture.clock {
        Clock::Ntp => now.duration_since(frame.capture.at).unwrap_or_default(),
        Clock::Arrival => now_instant.saturating_duration_since(frame.arrived_at()),
    }
}

/// One analysed frame, for `<base>/<camera>/detections`. `now` and `now_instant` are the same moment, by which its [`age`] goes.
pub fn detections(grounding: &Grounding, epoch: &str, now: SystemTime, now_instant: Instant) -> Bytes {
    let frame = &grounding.frame;
    let age = age(frame, now, now_instant);
    json(&Detections {
        v: VERSION,
        camera: &frame.camera,
        seq: frame.seq,
        epoch,
        time: Times {
            captured: rfc3339(frame.capture.at),
            clock: frame.capture.clock,
            decoded_ms: tenths(frame.decode_time),
            queued_ms: tenths(grounding.timings.queued),
            inferred_ms: tenths(grounding.timings.inferred),
            age_ms: tenths(age),
        },
        frame: Picture { pts_ms: whole_ms(frame.pts), width: frame.source().width, height: frame.source().height },
        queries: grounding.answers.iter().map(answer).collect(),
    })
}

fn answer(answer: &Answer) -> QueryAnswer<'_> {
    let (status, reason) = match &answer.status {
        Status::Ok => ("ok", None),
        Status::Shed(why) => ("shed", Some(why.as_str())),
        Status::Error(why) => ("error", Some(why.as_str())),
    };
    QueryAnswer {
        id: &answer.query.id,
        rev: answer.query.rev,
        text: &answer.query.text,
        status,
        reason,
        matches: answer.matches.iter().map(found).collect(),
    }
}

fn found(found: &Match) -> Found<'_> {
    let Match { bbox, score, score_kind, track, via } = found;
    Found { bbox, score: score_of(*score), score_kind: *score_kind, track: *track, via }
}

#[derive(Serialize)]
struct Event<'a> {
    v: u32,
    #[serde(rename = "type")]
    kind: EventKind,
    camera: &'a CameraId,
    track: u64,
    query: QueryRef<'a>,
    first_seen: String,
    last_seen: String,
    frames: u64,
    #[serde(rename = "box")]
    bbox: &'a BBox,
    best: BestMatch<'a>,
    epoch: &'a str,
    #[serde(rename = "event_seq")]
    seq: u64,
}

#[derive(Serialize)]
struct QueryRef<'a> {
    id: &'a QueryId,
    rev: u32,
    text: &'a str,
}

#[derive(Serialize)]
struct BestMatch<'a> {
    #[serde(rename = "box")]
    bbox: &'a BBox,
    score: f64,
    score_kind: ScoreKind,
    at: String,
}

/// One step of an object's life, for `<base>/<camera>/events`. `event_seq` counts the camera's events within `epoch`:
/// subscribers find re-sent events by it.
pub fn event(camera: &CameraId, event: &TrackEvent, epoch: &str, event_seq: u64) -> Bytes {
    let best = &event.best.found;
    json(&Event {
        v: VERSION,
        kind: event.kind,
        camera,
        track: event.track,
        query: QueryRef { id: &event.query.id, rev: event.query.rev, text: &event.query.text },
        first_seen: rfc3339(event.first_seen),
        last_seen: rfc3339(event.last_seen),
        frames: event.frames,
        bbox: &event.bbox,
        best: BestMatch {
            bbox: &best.bbox,
            score: score_of(best.score),
            score_kind: best.score_kind,
            at: rfc3339(event.best.at),
        },
        epoch,
        seq: event_seq,
    })
}

/// The marker that stands for events that were dropped because the broker was away too long.
pub(super) fn gap(lost: u64, since: SystemTime, until: SystemTime) -> Bytes {
    #[derive(Serialize)]
    struct Gap {
        v: u32,
        #[serde(rename = "type")]
        kind: &'static str,
        lost: u64,
        since: String,
        until: String,
    }
    json(&Gap { v: VERSION, kind: "gap", lost, since: rfc3339(since), until: rfc3339(until) })
}

/// What a camera's connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraState {
    /// Frames arrive.
    Live,
    /// A connection is being made.
    Connecting,
    /// Connected, but no frames arrive.
    Stalled,
    /// The last attempt failed; another follows.
    Failed,
}

/// A camera's connection, for `<base>/<camera>/status`.
pub fn camera_status(state: CameraState, since: SystemTime, reason: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct CameraStatus<'a> {
        state: CameraState,
        since: String,
        reason: Option<&'a str>,
    }
    json(&CameraStatus { state, since: rfc3339(since), reason })
}

/// What became of a query or a camera that was written over MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SetState {
    /// It is in force.
    Active,
    /// It is kept but does not run.
    Paused,
    /// It was refused; the reason says why.
    Failed,
}

/// A query's state, for `<base>/query/<id>/state`; a camera's likewise.
pub fn set_state(rev: u32, status: SetState, reason: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct State<'a> {
        rev: u32,
        status: SetState,
        reason: Option<&'a str>,
    }
    json(&State { rev, status, reason })
}

/// `ON` or `OFF`, for `<base>/<camera>/<query>/present`.
pub fn present(yes: bool) -> Bytes {
    Bytes::from_static(if yes { b"ON" } else { b"OFF" })
}

/// A plain number, for `<base>/<camera>/<query>/count`.
pub fn count(objects: usize) -> Bytes {
    Bytes::from(objects.to_string())
}

/// Counters of the daemon, for `<base>/stats`.
pub fn stats<'a>(
    epoch: &str,
    uptime: Duration,
    cameras: impl IntoIterator<Item = (&'a CameraId, &'a Ledger)>,
    work: &Work,
    mqtt: &PublishStats,
) -> Bytes {
    #[derive(Serialize)]
    struct Spared {
        looked: u64,
        still: u64,
        asked: u64,
        reused: u64,
        shed: BTreeMap<&'static str, u64>,
    }
    #[derive(Serialize)]
    struct Stats<'a> {
        v: u32,
        epoch: &'a str,
        uptime_s: u64,
        cameras: BTreeMap<&'a CameraId, Account>,
        work: Spared,
        mqtt: &'a PublishStats,
    }
    #[derive(Serialize)]
    struct Account {
        decoded: u64,
        published: u64,
        in_flight: u64,
        dropped: BTreeMap<&'static str, u64>,
    }
    let account = |ledger: &Ledger| Account {
        decoded: ledger.decoded(),
        published: ledger.published(),
        in_flight: ledger.in_flight(),
        dropped: DropReason::ALL.iter().map(|r| (r.name(), ledger.dropped(*r))).collect(),
    };
    let cameras = cameras.into_iter().map(|(id, ledger)| (id, account(ledger))).collect();
    let work = Spared {
        looked: work.looked(),
        still: work.still(),
        asked: work.asked(),
        reused: work.reused(),
        shed: ShedReason::ALL.iter().map(|r| (r.name(), work.shed(*r))).collect(),
    };
    json(&Stats { v: VERSION, epoch, uptime_s: uptime.as_secs(), cameras, work, mqtt })
}

/// Every type above serialises: strings, numbers, and maps with string keys. An empty payload would clear a retained
/// topic, so should one ever fail the message says so instead.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(text) => Bytes::from(text),
        Err(error) => Bytes::from(serde_json::json!({ "v": VERSION, "error": error.to_string() }).to_string()),
    }
}

const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// UTC with milliseconds and `Z`. Times outside the years 0 to 9999 (a camera's clock can say anything) become the
/// Unix epoch.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let nanos = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(0),
        Err(before) => i128::try_from(before.duration().as_nanos()).map_or(0, |n| -n),
    };
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .filter(|at| at.year() >= 0)
        .and_then(|at| at.format(RFC3339_MS).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

fn tenths(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Four decimals; a score that is no number says nothing, so it counts as 0.
fn score_of(score: f32) -> f64 {
    if score.is_finite() { (f64::from(score) * 10_000.0).round() / 10_000.0 } else { 0.0 }
}

/// Serialises a time the way every message shows times.
pub(super) fn serialize_time<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
