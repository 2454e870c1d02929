//! `/metrics`: the format and every number in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use groundd::{
    http::{Broker, Hub},
    ingest::State,
    types::{Answer, DropReason, Grounding, Ledger, Method, Query, QueryId, ShedReason, Status, Timings, Work, Worth},
};
use serde_json::json;

use super::{
    Server, camera,
    client::{Events, get},
    gate, shot,
};

fn grounding(ledger: &Arc<Ledger>, status: Status) -> Grounding {
    let (frame, _) = shot("gate", 0, ledger);
    let (id, text) = (QueryId::new("red").unwrap(), "\"red\"\nhalf".to_owned());
    let query = Arc::new(Query {
        id,
        rev: 1,
        text,
        cameras: None,
        method: Method::Auto,
        threshold: None,
        worth: Worth::default(),
    });
    let timings = Timings {
        queued: Duration::from_millis(2),
        inferred: Duration::from_millis(18),
        done_at: Instant::now(),
        batch: 1,
    };
    Grounding { frame, answers: vec![Answer { query, status, matches: Vec::new(), complete: true }], timings }
}

/// A server all of whose numbers have been fed, an open live view of it, and what it tells.
async fn fed() -> (Server, Events, String) {
    let (server, ledger) = gate().await;
    let mut events = Events::open(server.addr, "/live").await;
    events.named("frame").await;
    let metrics = server.hub.metrics();
    metrics.grounding(&grounding(&ledger, Status::Ok));
    metrics.age(Duration::from_millis(31));
    // One that nobody got has no age when it was published.
    metrics.grounding(&grounding(&ledger, Status::Shed("busy".to_owned())));
    metrics.batch(3);
    metrics.camera_restart(&camera("gate"));
    metrics.broker(Broker { connected: true, connects: 2, messages: 40, outbox: 5, outbox_dropped: 1 });
    let work = Arc::new(Work::default());
    metrics.work(Arc::clone(&work));
    work.look_all(4, 7);
    work.look(false);
    work.answer(false);
    work.answer(false);
    work.leave(ShedReason::Deadline);
    ledger.open().drop_for(DropReason::Superseded);
    let text = get(server.addr, "/metrics").await.text().to_owned();
    (server, events, text)
}

#[tokio::test]
async fn metrics_are_valid_openmetrics_and_hold_every_number() {
    let (server, events, text) = fed().await;
    check_openmetrics(&text);
    for line in [
        "groundd_stage_seconds_count{stage=\"decode\"} 2",
        "groundd_stage_seconds_count{stage=\"queue\"} 2",
        "groundd_stage_seconds_count{stage=\"infer\"} 2",
        "groundd_age_seconds_count 1",
        "groundd_batch_frames_sum 3.0",
        "groundd_answers_total{query=\"red\",status=\"ok\"} 1",
        "groundd_answers_total{query=\"red\",status=\"shed\"} 1",
        "groundd_matches_total{query=\"red\"} 0",
        "groundd_camera_frames_total{camera=\"gate\",end=\"decoded\"} 4",
        "groundd_camera_frames_total{camera=\"gate\",end=\"published\"} 3",
        "groundd_camera_dropped_total{camera=\"gate\",reason=\"superseded\"} 1",
        "groundd_camera_in_flight{camera=\"gate\"} 0",
        "groundd_camera_state{camera=\"gate\",state=\"live\"} 1",
        "groundd_camera_state{camera=\"gate\",state=\"failed\"} 0",
        "groundd_camera_restarts_total{camera=\"gate\"} 1",
        "groundd_broker_connected 1",
        "groundd_broker_connects_total 2",
        "groundd_broker_messages_total 40",
        "groundd_outbox_events 5",
        "groundd_outbox_dropped_total 1",
        "groundd_frames_total{look=\"looked\"} 4",
        "groundd_frames_total{look=\"still\"} 1",
        "groundd_questions_total{answer=\"asked\"} 7",
        "groundd_questions_total{answer=\"reused\"} 2",
        "groundd_shed_total{reason=\"deadline\"} 1",
        "groundd_shed_total{reason=\"busy\"} 0",
        "groundd_live_viewers 1",
        "groundd_live_pictures_total 1",
        "groundd_build_info{version=\"0.0.0-test\",epoch=\"epoch-1\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in:\n{text}");
    }
    for name in ["resident_memory_bytes", "cpu_seconds_total", "threads", "open_fds"] {
        let value = text.lines().find_map(|l| l.strip_prefix(&format!("groundd_process_{name} "))?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 0.0), "groundd_process_{name} is {value:?} in:\n{text}");
    }
    drop(events);
    let metrics = server.hub.metrics();
    metrics.remove_query(&QueryId::new("red").unwrap());
    assert!(!metrics.text().unwrap().contains("query=\"red\""), "a removed query's numbers stay");
    server.stop().await;
}

#[tokio::test]
async fn the_readme_names_every_metric_and_no_other() {
    let (server, _events, text) = fed().await;
    let told: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    // The first cell of a row of the table of metrics: one name or several; a star at the end stands for any end.
    let named: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `groundd_").and_then(|_| line.split('|').nth(1)))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 10, "only {named:?} in the README");
    let is = |name: &str, written: &str| written.strip_suffix('*').map_or(name == written, |s| name.starts_with(s));
    for written in &named {
        assert!(told.iter().any(|name| is(name, written)), "the README has {written}, /metrics has only {told:?}");
    }
    for name in &told {
        assert!(named.iter().any(|written| is(name, written)), "/metrics has {name}, the README has only {named:?}");
    }
    server.stop().await;
}

#[test]
fn a_camera_is_in_exactly_one_of_the_states_that_its_messages_name() {
    let hub = Hub::new("0.0.0-test", "epoch-1");
    for state in [State::Connecting, State::Live, State::Stalled, State::Failed] {
        let state = json!(state);
        hub.camera_status(&camera("gate"), json!({"state": state}));
        let text = hub.metrics().text().unwrap();
        let states = text.lines().filter(|line| line.starts_with("groundd_camera_state{"));
        let on: Vec<&str> = states.filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(on, [format!("groundd_camera_state{{camera=\"gate\",state={state}}} 1")]);
    }
}

/// Every sample belongs to a described metric, every metric has HELP and TYPE once, and `# EOF` ends it.
fn check_openmetrics(text: &str) {
    assert!(text.ends_with("# EOF\n"));
    let mut described = BTreeMap::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let [what, name, value] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let before = described.insert((name.to_owned(), what.to_owned()), value.to_owned());
            assert!(before.is_none(), "{what} of {name} twice");
            assert!(name.starts_with("groundd_"), "{name}");
            continue;
        }
        let (name, value) = (line.split(['{', ' ']).next().unwrap(), line.rsplit(' ').next().unwrap());
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let base = ["_total", "_bucket", "_count", "_sum", "_info"].iter().find_map(|s| name.strip_suffix(s));
        let base = base.filter(|b| described.contains_key(&((*b).to_owned(), "TYPE".to_owned()))).unwrap_or(name);
        for what in ["HELP", "TYPE"] {
            assert!(described.contains_key(&(base.to_owned(), what.to_owned())), "{name} has no {what}");
        }
    }
}
