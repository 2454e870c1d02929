//! What the service says of its own accord: events, topics under another base, and what a reload changes.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use super::{PATIENCE, World, street};
use crate::support::wait_for;

/// Until somebody has come and gone in the street.
const A_WHILE: Duration = Duration::from_secs(40);

#[test]
fn events_are_valid_and_numbered_and_every_object_begins_and_ends() {
    let world = World::new();
    let server = street();
    let config = world.configure(&[("gate", &server.url("cam"))], &[("person", "person")], "");
    let heard = world.broker.subscribe("events", &["groundd/gate/events"]);
    let mut daemon = world.run(&config);
    wait_for("the first events", A_WHILE, || (heard.lines().len() >= 3).then_some(()));
    // Long enough for some to last and others to end.
    std::thread::sleep(Duration::from_secs(6));
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    world.broker.settle(&heard);

    let schema: Value = serde_json::from_str(include_str!("../../src/publish/events.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let events = World::messages(&heard, "groundd/gate/events");
    assert_eq!(events.len(), heard.lines().len(), "not JSON: {:?}", heard.lines());
    let first = events[0]["event_seq"].as_u64().unwrap();
    let mut lives: BTreeMap<(u64, String), Vec<&str>> = BTreeMap::new();
    for (event, number) in events.iter().zip(first..) {
        assert!(schema.is_valid(event), "{event}");
        assert_eq!(event["event_seq"], number, "{event}");
        assert_eq!(event["epoch"], events[0]["epoch"], "{event}");
        let object = (event["track"].as_u64().unwrap(), event["query"]["id"].to_string());
        lives.entry(object).or_default().push(event["type"].as_str().unwrap());
    }
    // An object of before a silence of its camera is found again under its number, and begins anew.
    let follows = |pair: &[&str]| matches!(pair, ["new" | "update", "update" | "end"] | ["end", "new"]);
    for (object, life) in &lives {
        let whole = life.first() == Some(&"new") && life.last() == Some(&"end");
        assert!(whole && life.windows(2).all(follows), "{object:?}: {life:?}");
    }
}

#[test]
fn every_topic_lies_under_the_base_topic_and_the_last_will_too() {
    let world = World::new();
    let server = street();
    let more = "base_topic = \"site/a\"\ndiscovery_prefix = \"homeassistant\"\nsnapshot_seconds = 1.0\n";
    let config = world.configure(&[("gate", &server.url("cam"))], &[("person", "person")], more);
    // Topics alone: the payload of a snapshot is a picture.
    let heard = world.broker.listen("topics", &["#"], &["-q", "1", "-F", "%t"]);
    let mut daemon = world.run(&config);
    for topic in [
        "site/a/status",
        "site/a/stats",
        "site/a/camera/gate/state",
        "site/a/query/person/state",
        "site/a/gate/status",
        "site/a/gate/detections",
        "site/a/gate/events",
        "site/a/gate/person/present",
        "site/a/gate/person/count",
        "site/a/gate/person/snapshot",
        "homeassistant/sensor/site_a/gate-person-4-count/config",
    ] {
        wait_for(topic, A_WHILE, || heard.lines().iter().any(|heard| heard == topic).then_some(()));
    }
    let ours = |topic: &String| topic.starts_with("site/a/") || topic.starts_with("homeassistant/");
    assert!(heard.lines().iter().all(ours), "{:?}", heard.lines());
    let entities = world.broker.listed("homeassistant/#").join("\n");
    assert!(entities.contains("site/a/gate/person/count") && !entities.contains("\"groundd/"), "{entities}");

    assert_eq!(world.broker.kept("site/a/status"), "online");
    daemon.kill();
    wait_for("the last will", PATIENCE, || world.broker.retained("site/a/status").filter(|status| status == "offline"));
    assert!(heard.lines().iter().all(ours), "{:?}", heard.lines());
}

#[test]
fn a_camera_that_is_away_does_not_keep_a_reload_from_being_taken() {
    let world = World::new();
    let server = world.server(0);
    let url = server.url("cam");
    let config = world.configure(&[("gate", &url)], &[("person", "person")], "");
    let mut daemon = world.run(&config);
    world.await_live("gate", &daemon);
    let live_since = world.since("gate");

    let cameras = [("gate", &*url), ("yard", "/no/such/film.mp4")];
    world.configure(&cameras, &[("person", "person"), ("car", "red car")], "");
    daemon.signal(Signal::HUP);
    wait_for("the new query", PATIENCE, || {
        world.broker.retained("groundd/query/car/state").filter(|state| state.contains("active"))
    });
    wait_for("what is wrong with the new camera", PATIENCE, || {
        world.broker.retained("groundd/yard/status").filter(|status| status.contains("/no/such/film.mp4"))
    });
    assert!(daemon.is_running(), "{}", daemon.log());
    assert_eq!(world.since("gate"), live_since, "an unchanged camera was touched");
}

#[test]
fn silence_says_of_nobody_that_they_are_gone_and_pictures_outlive_a_restart() {
    let world = World::new();
    let server = street();
    let (url, more) = (server.url("cam"), "snapshot_seconds = 1.0\n");
    let (present, state) = ("groundd/gate/person/present", "groundd/query/person/state");
    let pictured = |name: &str| {
        let topic = "groundd/gate/person/snapshot";
        let heard = world.broker.listen(name, &[topic], &["-q", "1", "-F", "%t %l"]);
        heard.lines().iter().any(|line| line.strip_prefix(topic).is_some_and(|length| length.trim() != "0"))
    };
    let config = world.configure(&[("gate", &url)], &[("person", "person"), ("dog", "dog")], more);
    let heard = world.broker.subscribe("present", &[present]);
    let mut daemon = world.run(&config);
    wait_for("somebody", A_WHILE, || world.broker.retained(present).filter(|present| present == "ON"));
    wait_for("a picture", A_WHILE, || pictured("first").then_some(()));
    world.broker.settle(&heard);
    let before = heard.lines().len();
    drop(server);
    let gone = |topic: &str| world.broker.cleared(topic).then_some(());
    wait_for("who is there to be taken back", PATIENCE, || gone(present));
    world.broker.settle(&heard);
    let after = heard.lines().split_off(before);
    assert!(!after.iter().any(|line| line.contains("OFF")), "{after:?}");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());

    // The camera stays away, and one query is gone.
    world.configure(&[("gate", &url)], &[("person", "person")], more);
    let daemon = world.run(&config);
    wait_for("the other query to be taken back", A_WHILE, || gone("groundd/query/dog/state"));
    assert!(world.broker.kept(state).contains("active") && pictured("second"), "{}", daemon.log());
}

#[test]
fn the_files_staleness_is_what_is_published_by_and_other_tables_wait_for_a_restart() {
    let world = World::new();
    let camera = [("gate", "test://ball")];
    let stale = "[schedule]\nstaleness_ms = 1\n";
    let config = world.configure(&camera, &[("person", "person")], stale);
    let heard = world.broker.subscribe("told", &["groundd/stats", "groundd/gate/detections"]);
    let mut daemon = world.run(&config);
    world.await_live("gate", &daemon);

    world.configure(&camera, &[("person", "person")], &format!("{stale}[track]\nlost_seconds = 7.5\n"));
    daemon.signal(Signal::HUP);
    daemon.wait_for("the reload", PATIENCE, || daemon.log().contains("reloaded").then_some(()));
    let log = daemon.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("only after a restart")).collect();
    assert!(told.len() == 1 && told[0].contains("[track]"), "{log}");

    std::thread::sleep(Duration::from_secs(3));
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    world.broker.settle(&heard);
    let stats = World::messages(&heard, "groundd/stats").pop().unwrap();
    let frames = &stats["cameras"]["gate"];
    assert!(frames["published"] == 0 && frames["dropped"]["stale"].as_u64() >= Some(3), "{stats}");
    assert_eq!(World::messages(&heard, "groundd/gate/detections").len(), 0);
}
