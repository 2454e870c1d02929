//! `/metrics`: the format and every number in it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use groundd::{
    http::Broker,
    types::{Answer, DropReason, Grounding, Ledger, Method, Query, QueryId, Status, Timings, Worth},
};

use super::{camera, client::get, gate, shot};

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
    Grounding { frame, answers: vec![Answer { query, status, matches: Vec::new() }], timings }
}

#[tokio::test]
async fn metrics_are_valid_openmetrics_and_hold_every_number() {
    let (server, ledger) = gate().await;
    let metrics = server.hub.metrics();
    metrics.grounding(&grounding(&ledger, Status::Ok), Duration::from_millis(31));
    metrics.grounding(&grounding(&ledger, Status::Shed("busy".to_owned())), Duration::from_millis(31));
    metrics.batch(3);
    metrics.camera_restart(&camera("gate"));
    metrics.broker(Broker { connected: true, connects: 2, messages: 40, outbox: 5, outbox_dropped: 1 });
    ledger.open().drop_for(DropReason::Superseded);
    let text = get(server.addr, "/metrics").await.text().to_owned();
    check_openmetrics(&text);
    for line in [
        "groundd_stage_seconds_count{stage=\"infer\"} 2",
        "groundd_age_seconds_count 2",
        "groundd_batch_frames_sum 3.0",
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
        "groundd_outbox_events 5",
        "groundd_outbox_dropped_total 1",
        "groundd_build_info{version=\"0.0.0-test\",epoch=\"epoch-1\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in:\n{text}");
    }
    metrics.remove_query(&QueryId::new("red").unwrap());
    assert!(!metrics.text().unwrap().contains("query=\"red\""), "a removed query's numbers stay");
    server.stop().await;
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
