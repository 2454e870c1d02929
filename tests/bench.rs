//! `groundd bench` as a user runs it: a slice short enough for every test run.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde_json::Value;

use crate::support::{
    alone, h264,
    process::{Process, groundd},
};

/// Another "system", which watches the camera and answers the same picture again and again while it lives.
fn peer(folder: &Path) -> String {
    let path = folder.join("peer.sh");
    let script = format!(
        "#!/bin/sh\nport=${{4#*:}}\n\
        while kill -0 $$ && mosquitto_pub -h 127.0.0.1 -p \"$port\" -t bench/0/detections -m '{{\"mark\":5,\"boxes\":[]}}'; do sleep 0.2; done &\n\
        exec '{}' watch --query person \"$7\"\n",
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
    for name in ["engine_ms", "decode_ms"] {
        assert!(positive(&json["bare"][name]), "{name}: {}", json["bare"]);
    }
    let cases = json["cases"].as_array().unwrap();
    let named = |name: &str| cases.iter().find(|case| case["system"] == name).unwrap();
    let own = named("groundd");
    for name in ["offered_per_s", "analysed_per_s", "cpu_ms_per_frame", "over_bare", "of_possible", "rss_mb"] {
        assert!(positive(&own[name]), "{name}: {own}");
    }
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
        let output = groundd().arg("bench").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    let output = groundd().args(["bench", "--clip", "/nonexistent/clip.mp4"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
}
