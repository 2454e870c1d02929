//! The publisher against a real mosquitto, over networks that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use groundd::{
    publish::{MqttConfig, Publisher, Refused, Will, connect},
    types::Pulse,
};

#[path = "support/broker.rs"]
mod broker;
mod flow;
mod presence;
mod refusals;

use crate::support::{
    free_port,
    process::{Process, resident_kb},
    proxy::{Mode, Proxy},
    until,
};
use broker::{Broker, Subscriber};

fn config(url: String) -> MqttConfig {
    MqttConfig { url, client_id: Some("groundd-test".into()), keep_alive_seconds: 5, ..MqttConfig::default() }
}

fn will() -> Will {
    Will::status(&MqttConfig::default()).unwrap()
}

fn start(config: &MqttConfig) -> Publisher {
    connect(config, Some(will()), Pulse::new("publish")).unwrap()
}

async fn started(config: &MqttConfig) -> Publisher {
    let publisher = start(config);
    up(&publisher).await;
    publisher
}

async fn up(publisher: &Publisher) {
    until("the connection", || publisher.connection().borrow().up).await;
}

async fn down(publisher: &Publisher) -> String {
    until("the loss", || !publisher.connection().borrow().up).await;
    publisher.connection().borrow().reason.clone().unwrap()
}

/// Why there is no connection, once it has been tried.
async fn reason(publisher: &Publisher) -> String {
    let mut connection = publisher.connection();
    let tried = connection.wait_for(|c| c.reason.as_deref().is_some_and(|r| r != "not connected yet"));
    tokio::time::timeout(Duration::from_secs(15), tried).await.unwrap().unwrap().reason.clone().unwrap()
}

fn number(n: u64) -> Bytes {
    Bytes::from(n.to_string())
}

#[tokio::test]
async fn each_kind_of_message_arrives_as_its_kind() {
    let broker = Broker::open();
    let subscriber = Subscriber::exact(broker.port, "groundd/#").await;
    // Not the default, so that it is seen where it comes from.
    let settings = MqttConfig { detections_expiry_seconds: 37, ..config(broker.url()) };
    let publisher = started(&settings).await;
    publisher.live("groundd/c/detections".into(), Bytes::from_static(b"{}")).unwrap();
    publisher.state("groundd/c/q/present".into(), Bytes::from_static(b"ON"));
    publisher.event("groundd/c/events".into(), number(1));
    until("all messages", || subscriber.count() >= 4).await;
    let expiry = subscriber.heard().iter().find(|m| m.topic.ends_with("detections")).unwrap().expiry;
    assert!(expiry.is_some_and(|s| (36..=37).contains(&s)), "{expiry:?}");
    assert_eq!(subscriber.on("groundd/c/events"), ["1"]);
    // Who listens already is not told whether a message is kept.
    let mut kinds: Vec<_> = subscriber.heard().into_iter().map(|m| (m.topic, m.qos, m.retain)).collect();
    kinds.sort();
    let expected = [("c/detections", 0u8), ("c/events", 1), ("c/q/present", 1), ("status", 1)];
    assert_eq!(kinds, expected.map(|(topic, qos)| (format!("groundd/{topic}"), qos, false)));
    // Retained are the states, and nothing else.
    let late = Subscriber::new(broker.port, "groundd/#").await;
    until("the retained ones", || late.count() >= 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut retained: Vec<_> = late.heard().iter().map(|m| (m.topic.clone(), m.text().to_owned(), m.retain)).collect();
    retained.sort();
    let expected = [("groundd/c/q/present", "ON"), ("groundd/status", "online")];
    assert_eq!(retained, expected.map(|(t, p)| (t.to_owned(), p.to_owned(), true)));
    // An empty payload clears.
    publisher.state("groundd/c/q/present".into(), Bytes::new());
    let stats = publisher.close(Duration::from_secs(5)).await;
    assert_eq!((stats.events_acked, stats.events_waiting, stats.states_waiting, stats.refused), (1, 0, 0, 0));
    let after = Subscriber::new(broker.port, "groundd/#").await;
    until("the status", || after.count() >= 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        after.heard().iter().map(|m| (m.topic.as_str(), m.text())).collect::<Vec<_>>(),
        [("groundd/status", "offline")]
    );
}

/// Kills the broker again and again while events keep coming; the subscriber is always back before the publisher is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_load_loses_no_event() {
    let mut broker = Broker::open();
    let proxy = Proxy::to(broker.port).await;
    let subscriber = Subscriber::new(broker.port, "groundd/c/events").await;
    let publisher = started(&config(proxy.url())).await;
    publisher.state("groundd/c/q/count".into(), number(2));
    let mut sent = 0u64;
    let mut slowest = Duration::ZERO;
    for round in 2..=5 {
        for _ in 0..400 {
            publisher.event("groundd/c/events".into(), number(sent));
            sent += 1;
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        // A burst, so that the window is full of unacknowledged events when it dies.
        for _ in 0..300 {
            publisher.event("groundd/c/events".into(), number(sent));
            sent += 1;
        }
        proxy.set(Mode::Refuse);
        broker.kill();
        for _ in 0..100 {
            publisher.event("groundd/c/events".into(), number(sent));
            sent += 1;
        }
        down(&publisher).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.start();
        subscriber.subscribed(round).await;
        proxy.set(Mode::Pass);
        let back = Instant::now();
        up(&publisher).await;
        slowest = slowest.max(back.elapsed());
    }
    until("all acknowledgements", || publisher.stats().events_acked == sent).await;
    let heard: Vec<u64> = subscriber.on("groundd/c/events").iter().map(|n| n.parse().unwrap()).collect();
    let mut seen = BTreeSet::new();
    let first: Vec<u64> = heard.iter().copied().filter(|n| seen.insert(*n)).collect();
    println!(
        "sent {sent}, lost {}, sent again {}, slowest reconnect {slowest:?}",
        sent - first.len() as u64,
        heard.len() - first.len()
    );
    assert_eq!(first, (0..sent).collect::<Vec<_>>(), "lost or out of order");
    // A message comes twice only because its acknowledgement was on the way when the broker died.
    assert!(heard.len() - first.len() <= 4 * 64, "{} duplicates", heard.len() - first.len());
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert_eq!(publisher.connection().borrow().reconnects, 4);
    // The broker forgot everything when it was killed; retained values are there again all the same.
    let late = Subscriber::new(broker.port, "groundd/#").await;
    until("the retained values", || late.count() >= 2).await;
    assert_eq!((late.on("groundd/status"), late.on("groundd/c/q/count")), (vec!["online".into()], vec!["2".into()]));
}

#[tokio::test]
async fn a_broker_that_restarts_is_found_again_soon() {
    let mut broker = Broker::open();
    let publisher = started(&config(broker.url())).await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        broker.kill();
        down(&publisher).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.start();
        let back = Instant::now();
        up(&publisher).await;
        waits.push(back.elapsed());
    }
    println!("found again after {waits:?}");
    waits.sort();
    assert!(waits[1] < Duration::from_secs(1), "{waits:?}");
}

#[tokio::test]
async fn a_cut_connection_leaves_the_last_will() {
    let broker = Broker::open();
    let proxy = Proxy::to(broker.port).await;
    let subscriber = Subscriber::new(broker.port, "groundd/status").await;
    let publisher = started(&config(proxy.url())).await;
    until("online", || subscriber.on("groundd/status") == ["online"]).await;
    proxy.set(Mode::Refuse);
    proxy.cut();
    until("offline", || subscriber.on("groundd/status") == ["online", "offline"]).await;
    assert_eq!(publisher.live("groundd/c/detections".into(), Bytes::new()), Err(Refused::Offline));
    proxy.set(Mode::Pass);
    until("online again", || subscriber.on("groundd/status") == ["online", "offline", "online"]).await;
    // A handle that is dropped is a death too.
    drop(publisher);
    until("offline again", || subscriber.on("groundd/status").len() == 4).await;
    assert_eq!(subscriber.on("groundd/status")[3], "offline");
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let broker = Broker::open();
    let proxy = Proxy::to(broker.port).await;
    let subscriber = Subscriber::new(broker.port, "groundd/c/events").await;
    let publisher = started(&config(proxy.url())).await;
    proxy.set(Mode::Swallow);
    publisher.event("groundd/c/events".into(), number(7));
    let reason = down(&publisher).await;
    assert!(reason.contains("nothing was acknowledged for 5s"), "{reason}");
    proxy.set(Mode::Pass);
    proxy.cut();
    until("the event", || subscriber.on("groundd/c/events") == ["7"]).await;
    assert_eq!(publisher.stats().events_lost, 0);
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_while_nothing_is_sent() {
    let broker = Broker::open();
    let publisher = started(&config(broker.url())).await;
    until("idleness", || publisher.stats().states_waiting == 0).await;
    broker.freeze(true);
    let reason = down(&publisher).await;
    assert!(reason.contains("stopped answering"), "{reason}");
    broker.freeze(false);
    up(&publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_refuses_live_messages_instead_of_queueing_them() {
    let broker = Broker::open();
    let proxy = Proxy::to(broker.port).await;
    let publisher = started(&config(proxy.url())).await;
    proxy.set(Mode::Slow(20_000));
    let payload = Bytes::from(vec![b'x'; 8 * 1024]);
    let started = Instant::now();
    let (mut refused, mut took) = (0, Vec::new());
    for _ in 0..3000 {
        let before = Instant::now();
        match publisher.live("groundd/c/detections".into(), payload.clone()) {
            Ok(()) => {}
            Err(Refused::Backlogged) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        took.push(before.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let stats = publisher.stats();
    println!("{:?}: {refused} refused, {} taken", started.elapsed(), stats.sent_live);
    assert_eq!((stats.dropped_live, stats.sent_live), (refused, 3000 - refused));
    // A machine that is busy may hold up a call now and then; the line would hold up nearly each.
    took.sort();
    assert!(took[2700] < Duration::from_millis(50), "live() waited: {:?} for one in ten", took[2700]);
    // 24 MB were offered to a line that carries 20 kB a second.
    assert!(refused > 1500, "{refused}");
    proxy.set(Mode::Pass);
    publisher.event("groundd/c/events".into(), number(1));
    until("the event", || publisher.stats().events_acked == 1).await;
}

#[tokio::test]
async fn without_a_broker_memory_stays_flat_and_the_gap_is_announced() {
    let port = free_port();
    let mut settings = config(format!("mqtt://127.0.0.1:{port}"));
    settings.spool_events = 100;
    let publisher = start(&settings);
    let reason = reason(&publisher).await;
    assert!(reason.contains("Connection refused") && reason.contains("mqtt.url"), "{reason}");
    let before = resident_kb("self");
    let picture = Bytes::from(vec![0; 100_000]);
    for n in 0..3000u64 {
        assert_eq!(publisher.live("groundd/c/detections".into(), picture.clone()), Err(Refused::Offline));
        publisher.state("groundd/c/q/snapshot".into(), Bytes::from(vec![n.to_le_bytes()[0]; 100_000]));
        publisher.event("groundd/c/events".into(), Bytes::from(format!("{n}{}", " ".repeat(10_000))));
    }
    let grown = resident_kb("self").saturating_sub(before);
    println!("grew by {grown} KiB while 630 MB were offered");
    assert!(grown < 20_000, "{grown} KiB");
    let stats = publisher.stats();
    assert_eq!((stats.events_waiting, stats.events_lost, stats.states_waiting), (100, 2900, 1));
    // The broker comes, on the port that was tried all along.
    let broker = Broker::with("allow_anonymous true");
    let proxy_free = Proxy::on(port, broker.port).await;
    let subscriber = Subscriber::new(broker.port, "groundd/c/events").await;
    until("the events", || publisher.stats().events_acked == 100).await;
    until("the marker", || subscriber.count() >= 101).await;
    let heard = subscriber.on("groundd/c/events");
    let marker: serde_json::Value = serde_json::from_str(&heard[0]).unwrap();
    let schema: serde_json::Value = serde_json::from_str(include_str!("../src/publish/events.schema.json")).unwrap();
    assert!(jsonschema::is_valid(&schema, &marker), "{marker}");
    assert_eq!((&marker["type"], &marker["lost"]), (&"gap".into(), &2900.into()));
    assert_eq!(heard[1].trim(), "2900");
    drop(proxy_free);
}

const SPOOL_DIR: &str = "GROUNDD_TEST_SPOOL";

/// Not a test of its own: the process that [`spooled_events_survive_kill_9`] kills.
#[tokio::test]
#[ignore = "runs in a process of its own, started by spooled_events_survive_kill_9"]
async fn spooling_child() {
    let dir = std::env::var_os(SPOOL_DIR).expect("only its parent can run this");
    let mut settings = config(format!("mqtt://127.0.0.1:{}", free_port()));
    settings.spool_dir = Some(dir.into());
    let publisher = start(&settings);
    for n in 0..1000 {
        publisher.event("groundd/c/events".into(), number(n));
    }
    until("the disk to have them", || publisher.is_spooled()).await;
    fs::write(settings.spool_dir.unwrap().join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn spooled_events_survive_kill_9() {
    let (dir, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "publish::spooling_child"]).env(SPOOL_DIR, dir.path());
    let mut child = Process::start(command, logs.path(), "child");
    until("the child", || dir.path().join("ready").exists()).await;
    child.kill();
    let broker = Broker::open();
    let subscriber = Subscriber::new(broker.port, "groundd/c/events").await;
    let mut settings = config(broker.url());
    settings.spool_dir = Some(dir.path().into());
    let publisher = started(&settings).await;
    publisher.event("groundd/c/events".into(), number(1000));
    let stats = publisher.close(Duration::from_secs(10)).await;
    assert_eq!((stats.events_acked, stats.events_waiting, stats.spool_errors), (1001, 0, 0));
    let expected: Vec<_> = (0..=1000).map(|n| n.to_string()).collect();
    until("all events", || subscriber.count() >= 1001).await;
    assert_eq!(subscriber.on("groundd/c/events"), expected);
    // What was acknowledged is not sent once more.
    let publisher = started(&settings).await;
    assert_eq!(publisher.stats().events_waiting, 0);
}

#[tokio::test]
async fn closing_takes_no_longer_than_allowed() {
    let broker = Broker::open();
    let publisher = started(&config(broker.url())).await;
    broker.freeze(true);
    publisher.event("groundd/c/events".into(), number(1));
    let started = Instant::now();
    let stats = publisher.close(Duration::from_secs(2)).await;
    // Not as long as the broker may stay silent before it is given up, five seconds and more.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(stats.events_waiting, 1);
    broker.freeze(false);
    // Without a connection there is nothing to wait for.
    let publisher = start(&config(format!("mqtt://127.0.0.1:{}", free_port())));
    let started = Instant::now();
    publisher.close(Duration::from_secs(9)).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
