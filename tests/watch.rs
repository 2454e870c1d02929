//! `groundd watch` on real video files, as a user runs it.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    alone, h264,
    process::{Mosquitto, Process, finish, groundd},
    proxy::{Mode, Proxy},
    street, wait_for,
};

fn watch(arguments: &[&str]) -> Output {
    finish(groundd().arg("watch").args(arguments))
}

fn messages(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))).collect()
}

fn contract() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/publish/detections.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_frame_of_a_file_is_one_valid_line_in_order_and_again_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    street(&file, 24);
    let file = file.to_str().unwrap();
    let run = || {
        let output = watch(&[file, "--query", "person", "--query", "red car", "--every-frame", "--threshold", "0"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        messages(&output)
    };
    let first = run();
    assert_eq!(first.len(), 24);
    let schema = contract();
    for (i, message) in first.iter().enumerate() {
        assert!(
            schema.is_valid(message),
            "{:?}",
            schema.iter_errors(message).map(|e| e.to_string()).collect::<Vec<_>>()
        );
        assert_eq!(message["seq"], i);
        assert_eq!(message["camera"], "cam0");
        assert_eq!(message["frame"]["width"], 640);
        assert_eq!(message["frame"]["height"], 360);
        let ids: Vec<&str> = message["queries"].as_array().unwrap().iter().map(|q| q["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["person", "red-car"]);
        // What holds of matches would hold of none as well.
        let found = |query: &Value| query["status"] == "ok" && query["matches"][0].is_object();
        assert!(message["queries"].as_array().unwrap().iter().all(found), "{message}");
    }
    let pts: Vec<u64> = first.iter().map(|m| m["frame"]["pts_ms"].as_u64().unwrap()).collect();
    assert!(pts.windows(2).all(|w| w[0] < w[1]), "{pts:?}");
    let answers = |messages: &[Value]| messages.iter().map(|m| m["queries"].to_string()).collect::<Vec<_>>();
    assert_eq!(answers(&first), answers(&run()));
}

#[test]
fn several_cameras_are_named_in_order_and_all_of_their_frames_come() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
    h264(&a, "320x240", 10, 12);
    h264(&b, "640x360", 10, 7);
    let output = watch(&[a.to_str().unwrap(), b.to_str().unwrap(), "--query", "dog", "--every-frame"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = messages(&output);
    for (camera, frames) in [("cam0", 12), ("cam1", 7)] {
        let seqs: Vec<u64> =
            messages.iter().filter(|m| m["camera"] == camera).map(|m| m["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (0..frames).collect::<Vec<_>>(), "{camera}");
    }
}

#[test]
fn a_word_the_model_does_not_know_is_said_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "320x240", 10, 3);
    let output = watch(&[file.to_str().unwrap(), "--query", "purple xylophone", "--every-frame"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = messages(&output);
    assert_eq!(messages.len(), 3);
    for message in &messages {
        let query = &message["queries"][0];
        assert_eq!(query["status"], "error");
        assert!(query["reason"].as_str().unwrap().contains("xylophone"), "{query}");
        assert_eq!(query["matches"], Value::Array(vec![]));
    }
}

#[test]
fn pictures_older_than_is_allowed_are_told_of_instead_of_silence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "640x360", 10, 20);
    let output = watch(&[file.to_str().unwrap(), "--query", "dog", "--staleness-ms", "1", "--seconds", "3"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty(), "{:?}", messages(&output));
    let times = told.matches("not published: 1 ms are allowed").count();
    assert!((1..=2).contains(&times), "said once before and once behind the model, not for every picture: {told}");
    assert!(told.contains("--staleness-ms"), "names the remedy: {told}");
}

#[test]
fn a_reader_that_leaves_ends_the_watch_quietly() {
    let pipe = format!("{} watch test://ball --query person --seconds 20 | head -n 2", env!("CARGO_BIN_EXE_groundd"));
    let started = Instant::now();
    let output = finish(Command::new("bash").args(["-o", "pipefail", "-c", &pipe]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(messages(&output).len(), 2);
    assert!(started.elapsed().as_secs() < 15, "it went on without a reader");
}

#[test]
fn a_reader_that_does_not_read_cannot_keep_the_watch_from_ending() {
    let _alone = alone();
    let mut command = groundd();
    command.args(["watch", "test://ball", "--seconds", "3"]);
    // Long lines, so that the pipe is full after a few pictures, however slow the machine.
    for n in 0..12 {
        command.args(["--query", &format!("{n} {}", "xylophone ".repeat(24))]);
    }
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    let status = wait_for("the end", Duration::from_secs(20), || watch.try_wait().unwrap());
    assert_eq!(status.code(), Some(69), "after {:?}", started.elapsed());
    let told = std::io::read_to_string(watch.stderr.take().unwrap()).unwrap();
    assert!(told.contains("cannot write the output"), "{told}");
}

#[test]
fn every_frame_waits_for_a_broker_and_a_full_log_stops_nothing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "320x240", 10, 25);
    let broker = Mosquitto::start(folder.path());
    let subscriber = broker.subscribe("heard", &["groundd/cam0/detections"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::to(broker.port));
    proxy.set(Mode::Refuse);
    // What is logged cannot be written, and there is something to log: that there is no broker yet.
    let line = format!(
        "exec {} watch {} --query person --every-frame --broker {} 2>/dev/full",
        env!("CARGO_BIN_EXE_groundd"),
        file.display(),
        proxy.url()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &line]);
    let mut watch = Process::start(command, folder.path(), "watch");
    std::thread::sleep(Duration::from_secs(3));
    assert!(watch.is_running(), "it did not wait");
    proxy.set(Mode::Pass);
    assert!(watch.wait(Duration::from_secs(20)).success());
    assert_eq!(watch.lines().len(), 25);
    wait_for("all frames at the broker", Duration::from_secs(5), || (subscriber.lines().len() == 25).then_some(()));
    for topic in ["groundd/status", "groundd/cam0/status", "groundd/cam0/person/present", "groundd/cam0/person/count"] {
        assert!(broker.cleared(topic), "{topic}");
    }
}

#[test]
fn a_film_that_is_over_shows_nobody_while_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    street(&file, 25);
    let broker = Mosquitto::start(folder.path());
    let count = "groundd/cam0/person/count";
    let heard = broker.subscribe("heard", &[count]);
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut command = groundd();
    command.args(["watch", file.to_str().unwrap(), "test://", "--query", "person", "--every-frame", "--broker", &url]);
    let mut watch = Process::start(command, folder.path(), "watch");
    let said = || heard.lines().iter().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    wait_for("the film's end", Duration::from_mins(1), || {
        let said = said();
        (said.len() > 1 && said.last().is_some_and(|last| last == count)).then_some(())
    });
    assert!(watch.is_running(), "the camera goes on: {}", watch.log());
    watch.signal(Signal::INT);
    assert_eq!(watch.wait(Duration::from_secs(20)).code(), Some(0), "{}", watch.log());
}

#[test]
fn an_interrupt_or_a_closed_terminal_ends_the_watch_as_the_end_of_a_film_does() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let arguments = ["watch", "test://", "--query", "person", "--broker", &url];
    let topics = ["groundd/cam0/status", "groundd/cam0/person/present", "groundd/cam0/person/count"];
    for (signal, patient) in [(Signal::INT, false), (Signal::HUP, false), (Signal::HUP, true)] {
        // Whoever runs the tests may have said `nohup` as well.
        let with = if patient { ["nohup", "--"] } else { ["env", "--default-signal=HUP"] };
        let mut command = Command::new(with[0]);
        command.args([with[1], env!("CARGO_BIN_EXE_groundd")]).args(arguments);
        let mut watch = Process::start(command, folder.path(), "watch");
        for topic in topics {
            watch.wait_for(topic, Duration::from_secs(30), || broker.retained(topic));
        }
        watch.signal(signal);
        if patient {
            std::thread::sleep(Duration::from_secs(1));
            assert!(watch.is_running(), "whoever said `nohup` wants it to go on: {}", watch.log());
            watch.signal(Signal::TERM);
        }
        assert_eq!(watch.wait(Duration::from_secs(20)).code(), Some(0), "{}", watch.log());
        for topic in topics {
            assert!(broker.cleared(topic), "{topic}");
        }
    }
}

#[test]
fn a_camera_without_a_picture_in_the_time_that_is_given_is_a_failure() {
    // Its connection is taken, and nobody says anything on it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rtsp://{}/x", silent.local_addr().unwrap());
    let output = watch(&["test://", &uri, "--query", "person", "--seconds", "3"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("camera cam1: no picture came") && told.contains("--seconds"), "{told}");
    assert!(!messages(&output).is_empty(), "the other one is watched all the same: {told}");
}

#[test]
fn onnx_runtime_does_not_tell_its_maker() {
    let home = tempfile::tempdir().unwrap();
    let mut command = groundd();
    command.env_remove("ORT_DISABLE_TELEMETRY").env("HOME", home.path()).env_remove("XDG_CACHE_HOME");
    let output = finish(command.args(["watch", "test://", "--query", "person", "--seconds", "3"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Its events wait in a database below the user's cache until they can be sent.
    assert!(!home.path().join(".cache/Microsoft").exists());
}

#[test]
fn a_broker_that_was_never_there_is_said_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "320x240", 10, 5);
    let broker = format!("mqtt://127.0.0.1:{}", crate::support::free_port());
    let output = watch(&[file.to_str().unwrap(), "--query", "person", "--broker", &broker]);
    assert_eq!(output.status.code(), Some(69));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the broker got nothing") && told.contains("127.0.0.1"), "{told}");
    assert!(!messages(&output).is_empty(), "the lines come all the same");
}
