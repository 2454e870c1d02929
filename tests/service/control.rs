//! Queries and cameras set by messages: a real broker keeps them, `mosquitto_pub` writes them.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{PATIENCE, World};
use crate::support::{
    process::{Process, finish},
    wait_for,
};

const OPEN: &str = "[mqtt.control]\nquery = [\"*\"]\ncamera = [\"*\"]\n";

/// Publishes a retained message; `stamp` is what a broker that names senders would add.
fn set(world: &World, topic: &str, payload: &str, stamp: Option<&str>) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &world.broker.port.to_string(), "-V", "5", "-q", "1", "-r", "-t", topic]);
    if payload.is_empty() {
        command.arg("-n")
    } else {
        command.args(["-m", payload])
    };
    if let Some(name) = stamp {
        command.args(["-D", "publish", "user-property", "username", name]);
    }
    assert!(finish(&mut command).status.success());
}

/// Waits until the state of a query or camera (`query/dog`) is such.
fn state(world: &World, of: &str, daemon: &Process, such: impl Fn(&Value) -> bool) -> Value {
    let topic = format!("groundd/{of}/state");
    daemon.wait_for(&topic, PATIENCE, || {
        let state = serde_json::from_str(&world.broker.retained(&topic)?).unwrap();
        such(&state).then_some(state)
    })
}

fn gone(world: &World, topic: &str) {
    wait_for(&format!("{topic} to go"), PATIENCE, || world.broker.cleared(topic).then_some(()));
}

#[test]
fn queries_come_change_pause_and_go_by_message() {
    let world = World::new();
    // Written before the daemon is there: the broker keeps it.
    set(&world, "groundd/query/dog/set", "{\"text\":\"dog\"}", None);
    let config = world.configure(&[("gate", "test://")], &[("person", "person")], OPEN);
    let daemon = world.run(&config);
    state(&world, "query/dog", &daemon, |s| s["status"] == "active" && s["rev"] == 1);
    let subscriber = world.broker.subscribe("gate", &["groundd/gate/detections"]);
    let asked = |wanted: &[(&str, u64)]| {
        let asked = |m: &Value| -> Vec<(String, u64)> {
            let one = |q: &Value| (q["text"].as_str().unwrap().to_owned(), q["rev"].as_u64().unwrap());
            m["queries"].as_array().unwrap().iter().map(one).collect()
        };
        let wanted: Vec<_> = wanted.iter().map(|(text, rev)| ((*text).to_owned(), *rev)).collect();
        daemon.wait_for(&format!("{wanted:?} to be asked"), PATIENCE, || {
            World::messages(&subscriber, "groundd/gate/detections").last().filter(|m| asked(m) == wanted).map(drop)
        });
    };
    asked(&[("dog", 1), ("person", 1)]);

    set(&world, "groundd/query/dog/set", "{\"text\":\"red car\",\"cameras\":[\"gate\"]}", None);
    state(&world, "query/dog", &daemon, |s| s["status"] == "active" && s["rev"] == 2);
    asked(&[("red car", 2), ("person", 1)]);

    set(&world, "groundd/query/dog/set", "{\"text\":7}", None);
    let refused = state(&world, "query/dog", &daemon, |s| s["reason"].is_string());
    assert!(refused["reason"].as_str().unwrap().contains("`text`"), "{refused}");
    assert_eq!((&refused["status"], &refused["rev"]), (&"active".into(), &2.into()), "what was in force stays so");
    asked(&[("red car", 2), ("person", 1)]);

    set(&world, "groundd/query/dog/set", "{\"text\":\"red car\",\"paused\":true}", None);
    state(&world, "query/dog", &daemon, |s| s["status"] == "paused" && s["reason"].is_null());
    asked(&[("person", 1)]);

    set(&world, "groundd/query/cat/set", "not JSON", None);
    state(&world, "query/cat", &daemon, |s| s["status"] == "failed" && s["reason"].as_str().unwrap().contains("JSON"));
    for id in ["dog", "cat"] {
        set(&world, &format!("groundd/query/{id}/set"), "", None);
        gone(&world, &format!("groundd/query/{id}/state"));
    }
    asked(&[("person", 1)]);
}

#[test]
fn a_camera_comes_and_goes_by_message_and_its_password_stays_inside() {
    let world = World::new();
    let server = world.server(0);
    let daemon = world.run(&world.configure(&[("gate", "test://")], &[("person", "person")], OPEN));
    let everything =
        world.broker.subscribe("all", &["groundd/gate/#", "groundd/yard/#", "groundd/camera/+/state", "groundd/stats"]);
    let url = server.url("cam").replace("rtsp://", "rtsp://me:s3cret@");
    set(&world, "groundd/camera/yard/set", &format!("{{\"uri\":\"{url}\",\"fps\":5}}"), None);
    state(&world, "camera/yard", &daemon, |s| s["status"] == "active" && s["reason"].is_null());
    world.await_live("yard", &daemon);

    set(&world, "groundd/camera/yard/set", "{\"uri\":\"rtsp://h/s\",\"password_file\":\"/etc/shadow\"}", None);
    let refused = state(&world, "camera/yard", &daemon, |s| s["reason"].is_string());
    assert!(refused["reason"].as_str().unwrap().contains("password_file"), "{refused}");
    world.await_live("yard", &daemon);

    set(&world, "groundd/camera/yard/set", "", None);
    gone(&world, "groundd/camera/yard/state");
    gone(&world, "groundd/yard/status");
    assert!(!everything.lines().is_empty());
    assert!(!everything.lines().join("\n").contains("s3cret") && !daemon.log().contains("s3cret"));
}

#[test]
fn a_camera_that_cannot_work_says_so_and_keeps_nobody_from_being_watched() {
    let (world, pipelines) = (World::new(), tempfile::tempdir().unwrap());
    let own = format!("[ingest]\npipelines = {:?}\n", pipelines.path());
    let config = world.configure(&[("gate", "test://")], &[("person", "person")], &own);
    let text = std::fs::read_to_string(&config).unwrap();
    let table = |id: &str| format!("[[camera]]\nid = \"{id}\"\nuri = \"test://\"\npipeline = \"nope\"\n");
    std::fs::write(&config, format!("{text}{}", table("odd"))).unwrap();
    let daemon = world.run(&config);
    let told = state(&world, "camera/odd", &daemon, |s| s["status"] == "failed");
    assert!(told["reason"].as_str().unwrap().contains("`nope`"), "{told}");
    state(&world, "camera/gate", &daemon, |s| s["status"] == "active" && s["reason"].is_null());
    world.await_live("gate", &daemon);

    // A reload takes such a one as a start does.
    std::fs::write(&config, format!("{text}{}{}", table("odd"), table("new"))).unwrap();
    daemon.signal(Signal::HUP);
    state(&world, "camera/new", &daemon, |s| s["status"] == "failed");
    assert!(!daemon.log().contains("old one stays in force"), "{}", daemon.log());

    // What was missing lies beside the configuration, which need not change for it.
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/test.launch");
    std::fs::copy(template, pipelines.path().join("nope.launch")).unwrap();
    daemon.signal(Signal::HUP);
    state(&world, "camera/odd", &daemon, |s| s["status"] == "active" && s["reason"].is_null());
}

#[test]
fn nobody_is_obeyed_who_is_not_named() {
    let world = World::new();
    let cameras = [("gate", "test://")];
    let named = "[mqtt.control]\nquery = [\"ops\"]\nstamp = \"username\"\n";
    let mut daemon = world.run(&world.configure(&cameras, &[("person", "person")], named));
    set(&world, "groundd/query/dog/set", "{\"text\":\"dog\"}", Some("eve"));
    state(&world, "query/dog", &daemon, |s| s["status"] == "failed" && s["reason"].as_str().unwrap().contains("`eve`"));
    set(&world, "groundd/query/dog/set", "{\"text\":\"dog\"}", Some("ops"));
    state(&world, "query/dog", &daemon, |s| s["status"] == "active");
    // Cameras are nobody's to set here: the topic is not even read.
    set(&world, "groundd/camera/yard/set", "{\"uri\":\"rtsp://127.0.0.1:9/s\"}", Some("ops"));
    set(&world, "groundd/query/dog/set", "", Some("ops"));
    gone(&world, "groundd/query/dog/state");
    assert!(world.broker.cleared("groundd/camera/yard/state") && world.broker.cleared("groundd/yard/status"));
    daemon.kill();
}

#[test]
fn what_an_earlier_start_told_is_taken_back() {
    let world = World::new();
    let cameras = [("gate", "test://"), ("yard", "test://")];
    let discovery = "discovery_prefix = \"homeassistant\"\n";
    let mut daemon = world.run(&world.configure(&cameras, &[("person", "person"), ("bus", "bus")], discovery));
    let gone_soon = ["query/bus/state", "gate/bus/present", "gate/bus/count", "yard/status", "yard/person/count"];
    for topic in gone_soon {
        daemon.wait_for(topic, PATIENCE, || world.broker.retained(&format!("groundd/{topic}")));
    }
    daemon.kill();
    let heard = world.broker.listen("second", &["groundd/#"], &["-q", "1", "-F", "%t %l %p"]);
    let daemon = world.run(&world.configure(&cameras[..1], &[("person", "person")], discovery));
    for topic in gone_soon {
        gone(&world, &format!("groundd/{topic}"));
    }
    // Nobody is told who is there by one that is online and does not look.
    let lines = heard.lines();
    let online = lines.iter().position(|line| line == "groundd/status 6 online").unwrap();
    for topic in gone_soon.iter().filter(|topic| !topic.starts_with("query/")) {
        let cleared = lines.iter().position(|line| *line == format!("groundd/{topic} 0 ")).unwrap();
        assert!(cleared < online, "{topic} stood while it was online: {lines:?}");
    }
    for topic in ["query/person/state", "gate/person/count", "gate/status"] {
        world.broker.kept(&format!("groundd/{topic}"));
    }
    daemon.wait_for("the entities to be those of one query on one camera", PATIENCE, || {
        let listed = world.broker.listed("homeassistant/#").join("\n");
        (listed.contains("person") && !listed.contains("bus") && !listed.contains("yard")).then_some(())
    });
}

#[test]
fn entities_that_go_do_so_before_those_that_take_their_place_come() {
    let world = World::new();
    let discovery = "discovery_prefix = \"homeassistant\"\n";
    let daemon = world.run(&world.configure(&[("gate", "test://")], &[("person", "person")], discovery));
    daemon.wait_for("a person's entities", PATIENCE, || {
        world.broker.listed("homeassistant/#").iter().any(|line| line.contains("person")).then_some(())
    });
    let heard = world.broker.listen("changes", &["homeassistant/#"], &["-q", "1", "-F", "%t %l"]);
    world.configure(&[("gate", "test://")], &[("bus", "bus")], discovery);
    daemon.signal(Signal::HUP);
    let named = |line: &String, what: &str| line.contains(what);
    let lines = daemon.wait_for("the exchange of three entities for three", PATIENCE, || {
        let lines = heard.lines();
        (lines.iter().filter(|line| named(line, "bus")).count() >= 3
            && lines.iter().filter(|line| named(line, "person") && line.ends_with(" 0")).count() >= 3)
            .then_some(lines)
    });
    let last_gone = lines.iter().rposition(|line| named(line, "person") && line.ends_with(" 0")).unwrap();
    let first_come = lines.iter().position(|line| named(line, "bus")).unwrap();
    assert!(last_gone < first_come, "{lines:?}");
}
