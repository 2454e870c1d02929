//! `groundd bench` as a user runs it: a slice short enough for every test run.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    alone, h264,
    process::{Process, finish, groundd, processes},
    wait_for,
};

/// Another "system", which watches the camera and answers the same picture again and again while it lives. What it starts
/// besides would outlive it.
fn peer(folder: &Path) -> String {
    let path = folder.join("peer.sh");
    let script = format!(
        "#!/bin/sh\nport=${{4#*:}}\nsleep 600 & echo $! > '{}'\n\
        while kill -0 $$ && mosquitto_pub -h 127.0.0.1 -p \"$port\" -t bench/0/detections -m '{{\"mark\":5,\"boxes\":[]}}'; do sleep 0.2; done &\n\
        exec '{}' watch --query person \"$7\"\n",
        folder.join("left").display(),
        groundd().get_program().display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn one_camera_gives_a_table_a_file_and_a_drawing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    h264(&folder.path().join("clip.mp4"), "640x360", 10, 40);
    let mut command = groundd();
    // The camera's clock is known once its first report has come, within the first seconds.
    command.args(["bench", "--streams", "1", "--seconds", "2", "--warm-up", "5", "--query", "person"]);
    command.args(["--clip", &file("clip.mp4"), "--json", &file("bench.json"), "--plot", &file("bench.svg")]);
    command.args(["--peer", &format!("echo={}", peer(folder.path())), "--peer", "broken=/nonexistent/program"]);
    command.args(["--absent", "missing=not to be had here", "--isolation"]);
    let mut bench = Process::start(command, folder.path(), "bench");
    let status = bench.wait(Duration::from_mins(3));
    assert!(status.success(), "{}", bench.log());

    let table = bench.lines().join("\n");
    for words in ["analysed/s", "over bare", "groundd", "echo", "not to be had here", "cannot start", "p50 / p95 / p99"]
    {
        assert!(table.contains(words), "{words:?} is not in\n{table}");
    }
    let json: Value = serde_json::from_str(&fs::read_to_string(file("bench.json")).unwrap()).unwrap();
    let positive = |value: &Value| value.as_f64().is_some_and(|n| n.is_finite() && n > 0.0);
    for name in ["engine_ms", "engine_busy_ms", "decode_ms"] {
        assert!(positive(&json["bare"][name]), "{name}: {}", json["bare"]);
    }
    assert!(json["file"].as_str().is_some_and(|file| file.ends_with("vision.onnx")), "{}", json["file"]);
    let cases = json["cases"].as_array().unwrap();
    let named = |name: &str| cases.iter().find(|case| case["system"] == name).unwrap();
    let own = named("groundd");
    for name in ["offered_per_s", "analysed_per_s", "cpu_ms_per_frame", "over_bare", "of_possible", "rss_mb"] {
        assert!(positive(&own[name]), "{name}: {own}");
    }
    assert!(positive(&own["bare"]["engine_ms"]) && own["bare"] != named("echo")["bare"], "measured around each: {own}");
    assert!(own["unanswered"].as_f64().is_some_and(|part| (0.0..=1.0).contains(&part)), "{own}");
    assert!((own["offered_per_s"].as_f64().unwrap() - 10.0).abs() < 0.5, "{own}");
    for case in [own, named("echo")] {
        let delay = &case["latency_ms"];
        let part = |name: &str| delay[name].as_f64().unwrap();
        assert!(part("p50") > 0.0 && part("p50") <= part("p95") && part("p95") <= part("p99"), "{case}");
    }
    // The picture that the other system names is shown every four seconds.
    assert!(named("echo")["latency_ms"]["p99"].as_f64().unwrap() < 4100.0, "{}", named("echo"));
    assert!(own["latency_ms"]["p50"].as_f64().unwrap() < 3000.0, "{own}");
    for stage in ["arrive", "decode", "queue", "infer", "publish"] {
        assert!(own["stages_ms"][stage]["count"].as_u64() > Some(0), "{stage}: {own}");
    }
    for name in ["broken", "missing"] {
        assert!(named(name)["note"].is_string() && named(name)["analysed_per_s"].is_null(), "{}", named(name));
    }
    let left = fs::read_to_string(file("left")).unwrap();
    let left = fs::read_to_string(format!("/proc/{}/stat", left.trim())).unwrap_or_default();
    assert!(!left.contains("(sleep) S"), "the end of the other system left this running: {left}");
    let habits: Vec<_> = json["beside"].as_array().unwrap().iter().map(|row| &row["neighbour"]).collect();
    assert_eq!(habits, ["steady", "floods", "stalls", "reconnects"]);
    for row in json["beside"].as_array().unwrap() {
        // The first camera sends ten a second, the flooding one forty, which are not counted.
        let analysed = row["camera"]["analysed_per_s"].as_f64().unwrap();
        assert!((3.0..12.0).contains(&analysed), "{row}");
    }
    let drawing = fs::read_to_string(file("bench.svg")).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.trim_end().ends_with("</svg>") && drawing.contains("groundd"));
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_starts() {
    for arguments in [&["--streams", "0"][..], &["--streams", "1,x"], &["--peer", "nameless"], &["--seconds", "0"]] {
        let output = finish(groundd().arg("bench").args(arguments));
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    let output = finish(groundd().args(["bench", "--clip", "/nonexistent/clip.mp4"]));
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    for option in ["--json", "--plot"] {
        let output = finish(groundd().args(["bench", option, "/nonexistent/out"]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(64) && said.contains(option) && said.contains("/nonexistent/out"),
            "{said}"
        );
    }
}

#[test]
fn a_clip_with_more_pictures_than_there_are_numbers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("long.mp4");
    h264(&clip, "320x180", 25, 1100);
    let output = finish(groundd().args(["bench", "--clip"]).arg(&clip));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for words in ["long.mp4", " pictures", "no more than 1024", "-frames:v 1024"] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

#[test]
fn a_signal_ends_everything_that_was_started() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    h264(&clip, "640x360", 10, 40);
    let mut command = groundd();
    // Long enough to be found in the middle of its first case.
    command.args(["bench", "--streams", "1", "--seconds", "1", "--warm-up", "600", "--clip"]).arg(&clip);
    command.env("TMPDIR", folder.path());
    let mut bench = Process::start(command, folder.path(), "bench");
    let pid = bench.pid();
    wait_for("the service to be measured", Duration::from_mins(2), || {
        assert!(bench.is_running(), "{}", bench.log());
        processes(folder.path(), pid).iter().any(|line| line.contains("run --config")).then_some(())
    });
    bench.signal(Signal::TERM);
    let status = bench.wait(Duration::from_secs(30));
    assert_eq!(status.code(), Some(69), "{}", bench.log());
    assert!(bench.log().contains("ended by a signal"), "{}", bench.log());
    // Broker, subscriber, camera and service were killed; that they are gone may take the kernel a moment.
    wait_for("the end of all of them", Duration::from_secs(10), || {
        processes(folder.path(), pid).is_empty().then_some(())
    });
    let names = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let temporary: Vec<String> = names.filter(|name| name.starts_with("groundd-bench-")).collect();
    assert!(temporary.is_empty(), "{temporary:?}");
}
