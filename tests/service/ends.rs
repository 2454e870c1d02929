//! How it ends: nothing is left running, and whoever is in a hurry need not wait.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{PATIENCE, World};
use crate::support::{
    process::{Process, groundd, processes},
    wait_for,
};

#[test]
fn the_demo_shows_boxes_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = groundd();
    command.args(["demo", "--seconds", "12"]).env("TMPDIR", folder.path());
    let mut demo = Process::start(command, folder.path(), "demo");
    let pid = demo.pid();
    // All that it starts knows of the folder.
    demo.wait_for("its broker", PATIENCE, || {
        processes(folder.path(), pid).iter().any(|line| line.contains("mosquitto")).then_some(())
    });
    let status = demo.wait(Duration::from_mins(1));
    assert!(status.success(), "{}", demo.log());
    let text = demo.lines().join("\n");
    assert!(text.contains("mosquitto_sub -h 127.0.0.1 -p "), "{text}");
    assert!(text.contains("live view  http://127.0.0.1:"), "{text}");
    let last = text.rsplit("camera ").next().unwrap();
    let found = |query: &str| last.lines().any(|line| line.contains(query) && line.contains('('));
    let queries = ["person", "red jacket", "red car", "bus", "dog"];
    let seen = queries.iter().filter(|q| found(q)).count();
    assert!(seen >= 2, "only {seen} of {queries:?} have boxes in the last table:\n{last}");
    // Broker and subscriber were killed; that they are gone may take the kernel a moment.
    wait_for("the end of all of them", Duration::from_secs(10), || {
        processes(folder.path(), pid).is_empty().then_some(())
    });
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // What the test itself keeps there.
    let left: Vec<String> = left.filter(|name| !name.starts_with("demo.")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_second_signal_does_not_wait_for_a_broker_that_is_frozen() {
    let world = World::new();
    let config = world.configure(&[("gate", "test://")], &[("person", "person")], "");
    let mut daemon = world.run(&config);
    world.await_live("gate", &daemon);
    world.broker.freeze(true);
    daemon.signal(Signal::TERM);
    // Its last words wait for an acknowledgement.
    daemon.wait_for("the end to begin", PATIENCE, || daemon.log().contains("stopping").then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert!(daemon.is_running(), "it did not wait for the broker: {}", daemon.log());
    daemon.signal(Signal::TERM);
    let began = Instant::now();
    let status = daemon.wait(PATIENCE);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(status.success() && daemon.log().contains("second signal"), "{status}: {}", daemon.log());
}

#[test]
fn a_signal_while_the_model_is_loaded_is_a_quiet_end() {
    let world = World::new();
    let config = world.configure(&[("gate", "test://")], &[("person", "person")], "");
    for wait in (0..12).map(|n| Duration::from_millis(60 * n)) {
        let mut daemon = world.run(&config);
        std::thread::sleep(wait);
        daemon.signal(Signal::TERM);
        // Before it listens to signals it ends by them.
        let status = daemon.wait(PATIENCE);
        let early = wait < Duration::from_millis(200) && status.signal() == Some(Signal::TERM.as_raw());
        assert!(status.success() || early, "after {wait:?}: {status}\n{}", daemon.log());
    }
}

#[test]
fn a_start_that_is_refused_does_not_disturb_the_service_at_the_broker() {
    let world = World::new();
    let heard = world.broker.subscribe("heard", &["groundd/#"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("[http]\nlisten = \"{}\"\n", port.local_addr().unwrap());
    for (more, code, word) in [("[model]\npath = \"nope\"\n", 78, "nope"), (&*taken, 69, "in use")] {
        let config = world.configure(&[("gate", "test://")], &[("person", "person")], more);
        let mut daemon = world.run(&config);
        assert_eq!(daemon.wait(PATIENCE).code(), Some(code), "{}", daemon.log());
        assert!(daemon.log().contains(word), "{}", daemon.log());
    }
    world.broker.settle(&heard);
    assert_eq!(heard.lines(), Vec::<String>::new());
}
