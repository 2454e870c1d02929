//! Bad input: every mistake gets the documented exit code and an error that names the thing, the place and the remedy.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::Path, process::Command, time::Duration};

use sha2::{Digest, Sha256};

use crate::support::{
    free_port, h264,
    process::{Mosquitto, Process, assert_sober, fails, finish, finish_into, groundd},
    wait_for,
};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

fn watch(arguments: &[&str]) -> Command {
    let mut command = groundd();
    command.arg("watch").args(arguments);
    command
}

#[test]
fn wrong_command_lines() {
    fails(&mut groundd(), USAGE, &["Usage"]);
    fails(groundd().arg("dance"), USAGE, &["dance"]);
    fails(&mut watch(&["--query", "car"]), USAGE, &["<URI>"]);
    fails(&mut watch(&["test://"]), USAGE, &["--query"]);
    fails(&mut watch(&["test://", "--query", ""]), USAGE, &["empty", "person in a red jacket"]);
    fails(&mut watch(&["test://", "--query", &"car ".repeat(2_500)]), USAGE, &["characters", "500"]);
    fails(&mut watch(&["test://", "--query", "car", "--method", "magic"]), USAGE, &["magic", "retrieve"]);
    fails(&mut watch(&["test://", "--query", "car", "--seconds", "0"]), USAGE, &["seconds"]);
    fails(&mut watch(&["test://", "--query", "car", "--fps", "5000"]), USAGE, &["fps", "1000"]);
    fails(&mut watch(&["test://", "--query", "car", "--detail", "9"]), USAGE, &["detail", "0.25 to 4"]);
    fails(&mut watch(&["test://", "--query", "car", "--threads", "5000"]), USAGE, &["threads", "1024"]);
    fails(watch(&["test://", "--query"]).arg(OsString::from_vec(vec![b'c', 0xff])), USAGE, &["UTF-8"]);
    fails(groundd().args(["--log", "groundd=loud", "models", "list"]), USAGE, &["groundd=loud"]);
    fails(groundd().args(["demo", "gopher://host/x"]), USAGE, &["gopher", "rtsp"]);
}

#[test]
fn help_goes_to_stdout_and_is_no_error() {
    for arguments in [&["--help"][..], &["watch", "--help"], &["models", "verify", "--help"], &["--version"]] {
        let output = finish(groundd().args(arguments));
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn sources_that_cannot_be_watched() {
    fails(&mut watch(&["/no/such/file.mp4", "--query", "car"]), UNAVAILABLE, &["/no/such/file.mp4"]);
    let nobody = format!("rtsp://127.0.0.1:{}/x", free_port());
    fails(&mut watch(&[&nobody, "--query", "car"]), UNAVAILABLE, &["127.0.0.1", "refused"]);
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.mp4");
    fs::write(&garbage, "this is not a film").unwrap();
    fails(&mut watch(&[garbage.to_str().unwrap(), "--query", "car"]), UNAVAILABLE, &["garbage.mp4"]);
    fails(&mut watch(&["gopher://host/x", "--query", "car"]), USAGE, &["gopher", "rtsp"]);
}

#[test]
fn a_password_never_shows_in_an_error() {
    let nobody = format!("rtsp://admin:hunter2@127.0.0.1:{}/x", free_port());
    let output = finish(watch(&[&nobody, "--query", "car"]).args(["--log", "trace"]));
    assert_eq!(output.status.code(), Some(UNAVAILABLE));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_none() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = finish_into(&mut watch(&["test://", "--query", "car", "--seconds", "20"]), full());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
    assert!(said.contains("cannot write the output"), "{said}");
    let output = finish_into(groundd().args(["models", "list"]), full());
    assert_eq!(output.status.code(), Some(UNAVAILABLE));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(finish_into(groundd().args(["models", "list"]), writer).status.success());
}

#[test]
fn a_login_in_the_brokers_url_is_taken_and_a_wrong_url_is_said_before_the_model_is_loaded() {
    let wrong = finish(&mut watch(&["test://", "--query", "car", "--broker", "http://me:secret@host"]));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(USAGE), "{said}");
    assert!(said.contains("mqtt.url") && !said.contains("secret") && !said.contains("loading"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::guarded(folder.path(), "me", "right");
    let watching = |password: &str, seconds: &str| {
        let url = format!("mqtt://me:{password}@127.0.0.1:{}", broker.port);
        watch(&["test://", "--query", "car", "--seconds", seconds, "--broker", &url])
    };
    let heard = broker.subscribe("heard", &["groundd/cam0/detections"]);
    let mut good = Process::start(watching("right", "20"), folder.path(), "good");
    wait_for("a message", Duration::from_secs(15), || (!heard.lines().is_empty()).then_some(()));
    good.kill();
    let refused = finish(&mut watching("hunter2", "2"));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(UNAVAILABLE), "{said}");
    assert!(said.contains("the broker got nothing") && said.contains("user `me`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

/// A copy of nano that may be broken.
fn model_copy(folder: &Path) -> std::path::PathBuf {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano"), folder.join("nano"));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

#[test]
fn models_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let model = model_copy(folder.path());
    let dir = model.to_str().unwrap();
    let onnx = model.join("vision.onnx");
    let whole = fs::read(&onnx).unwrap();

    fails(&mut watch(&["test://", "--query", "car", "--model", "no-such-model"]), CONFIG, &["no-such-model"]);

    let mut bent = whole.clone();
    bent[1000] ^= 1;
    fs::write(&onnx, &bent).unwrap();
    fails(&mut watch(&["test://", "--query", "car", "--model", dir]), CONFIG, &["vision.onnx", "SHA-256"]);
    fails(groundd().args(["models", "verify", dir]), CONFIG, &["vision.onnx", "SHA-256"]);

    fs::remove_file(&onnx).unwrap();
    fails(&mut watch(&["test://", "--query", "car", "--model", dir]), CONFIG, &["vision.onnx"]);

    // The right hash over the wrong content: only the runtime can tell.
    let garbage = b"not a network".repeat(10);
    fs::write(&onnx, &garbage).unwrap();
    let hex = |bytes: &[u8]| {
        let digits: Vec<String> = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        digits.concat()
    };
    let manifest = fs::read_to_string(model.join("model.toml")).unwrap();
    let manifest = manifest
        .replace(&hex(&whole), &hex(&garbage))
        .replace(&format!("bytes = {}", whole.len()), &format!("bytes = {}", garbage.len()));
    fs::write(model.join("model.toml"), &manifest).unwrap();
    fails(&mut watch(&["test://", "--query", "car", "--model", dir]), CONFIG, &["vision.onnx"]);

    fs::write(model.join("model.toml"), manifest.replace("family = \"nano\"", "family = \"giant\"")).unwrap();
    fails(&mut watch(&["test://", "--query", "car", "--model", dir]), CONFIG, &["giant", "nano"]);
}

#[test]
fn a_runtime_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), "[model]\nlibrary = \"/no/such/libonnxruntime.so\"\n");
    fails(groundd().args(["run", "--config", &config]), UNAVAILABLE, &["/no/such/libonnxruntime.so"]);
    // No machine has so many GPUs: where there is one, it is not the one that is asked for.
    let config = write_config(folder.path(), "[model]\nprovider = \"cuda\"\ndevice = 1000\n");
    fails(groundd().args(["run", "--config", &config]), UNAVAILABLE, &["CUDA"]);
}

const CAMERA: &str = "[[camera]]\nid = \"gate\"\nuri = \"test://\"\n";

fn write_config(folder: &Path, more: &str) -> String {
    let path = folder.join("groundd.toml");
    fs::write(&path, format!("{CAMERA}{more}")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn configurations_that_cannot_be_meant() {
    let folder = tempfile::tempdir().unwrap();
    let run = |path: &str| {
        let mut command = groundd();
        command.args(["run", "--config", path]);
        command
    };
    fails(&mut run("/no/such.toml"), CONFIG, &["/no/such.toml"]);
    let cases: [(&str, &[&str]); 7] = [
        ("[mqtt]\nurll = \"x\"\n", &["line 5", "urll", "url"]),
        ("[mqtt]\nkeep_alive_seconds = \"soon\"\n", &["line 5", "keep_alive_seconds"]),
        ("[mqtt]\nurl = \"http://broker\"\n", &[":5:", "mqtt.url", "http://", "mqtt://"]),
        ("[[query]]\nid = \"q\"\ntext = \"\"\n", &["line 6", "empty"]),
        ("[[query]]\nid = \"a/b\"\ntext = \"car\"\n", &["line 5", "a/b"]),
        ("[[query]]\nid = \"q\"\ntext = \"car\"\ncameras = [\"yard\"]\n", &["yard", "gate"]),
        ("[[camera]]\nid = \"gate\"\nuri = \"test://\"\n", &[":4:", "gate"]),
    ];
    for (more, words) in cases {
        fails(&mut run(&write_config(folder.path(), more)), CONFIG, words);
        fails(groundd().args(["check", "--config", &write_config(folder.path(), more), "--offline"]), CONFIG, words);
    }
    let path = folder.path().join("empty.toml");
    fs::write(&path, "").unwrap();
    fails(&mut run(path.to_str().unwrap()), CONFIG, &["[[camera]]"]);
    fs::write(&path, b"[model]\npath = \"\xff\"\n").unwrap();
    fails(&mut run(path.to_str().unwrap()), CONFIG, &["empty.toml:2", "UTF-8"]);
}

#[test]
fn a_port_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = write_config(folder.path(), &format!("[http]\nlisten = \"{address}\"\n"));
    fails(groundd().args(["run", "--config", &config]), UNAVAILABLE, &[&address, "in use"]);
}

#[test]
fn check_names_every_problem_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("film.mp4");
    h264(&film, "320x240", 10, 10);
    let text = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n\
         [[camera]]\nid = \"good\"\nuri = \"{}\"\n[[camera]]\nid = \"bad\"\nuri = \"/no/such/film.mp4\"\n\
         [[query]]\nid = \"q\"\ntext = \"flibbertigibbet\"\n",
        free_port(),
        film.display()
    );
    let config = folder.path().join("groundd.toml");
    fs::write(&config, text).unwrap();
    let output = finish(groundd().args(["check", "--config", config.to_str().unwrap()]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // The highest of what its problems would end with one by one.
    assert_eq!(output.status.code(), Some(CONFIG), "{said}");
    // What a reload is refused for: a camera that is away and a word that the model does not know are not among it.
    let syntax = finish(groundd().args(["check", "--syntax", "--config", config.to_str().unwrap()]));
    assert!(syntax.status.success(), "{}", String::from_utf8_lossy(&syntax.stdout));
    for line in ["ok    model", "ok    camera good: ", "FAIL  camera bad: ", "FAIL  query q: ", "FAIL  broker: "] {
        assert!(said.contains(line), "`{line}` is missing from:\n{said}");
    }
    assert!(said.contains("320x240"), "the probe says what the camera sends:\n{said}");
    assert_sober(&output);
}

#[test]
fn a_reload_is_not_refused_for_a_camera_that_cannot_work_but_for_one_that_cannot_be_meant() {
    let folder = tempfile::tempdir().unwrap();
    let odd = |rest: &str| write_config(folder.path(), &format!("[[camera]]\nid = \"odd\"\n{rest}\n"));
    let config = odd("uri = \"test://\"\npipeline = \"nope\"");
    fails(groundd().args(["check", "--offline", "--config", &config]), CONFIG, &["FAIL  camera odd: ", "`nope`"]);
    let output = finish(groundd().args(["check", "--syntax", "--config", &config]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("warn  camera odd: ") && said.contains("`nope`"), "{said}");
    let config = odd("uri = \"gopher://host/x\"");
    fails(groundd().args(["check", "--syntax", "--config", &config]), CONFIG, &["odd", "gopher"]);
}

#[test]
fn check_knows_that_events_cannot_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), "[mqtt]\nspool_dir = \"/proc/nope\"\n");
    fails(groundd().args(["check", "--offline", "--config", &config]), CONFIG, &["FAIL  broker", "/proc/nope"]);
    // One that would be made at the start is not made by a check.
    let config = write_config(folder.path(), "[mqtt]\nspool_dir = \"later/spool\"\n");
    let output = finish(groundd().args(["check", "--offline", "--config", &config]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!folder.path().join("later").exists());
    // What the file does not name is the folder that systemd keeps for the service.
    let check = |more: &str, state: &str| {
        let mut command = groundd();
        command.args(["check", "--offline", "--config", &write_config(folder.path(), more)]);
        command.env("STATE_DIRECTORY", state);
        command
    };
    // The first of them, if it keeps several.
    for state in ["/proc/nope", "/proc/nope:/tmp"] {
        fails(check("", state), CONFIG, &["FAIL  broker", "`/proc/nope`"]);
    }
    assert!(finish(&mut check("[mqtt]\nspool_dir = \"later/spool\"\n", "/proc/nope")).status.success());
}

#[test]
fn models_can_be_listed_and_looked_at() {
    let list = finish(groundd().args(["models", "list"]));
    assert!(String::from_utf8_lossy(&list.stdout).contains("nano"));
    let info = finish(groundd().args(["models", "info", "nano"]));
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    for word in ["licence", "Apache-2.0", "retrieve", "sha256", "provenance"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(finish(groundd().args(["models", "verify", "nano"])).status.success());
}

#[test]
fn a_camera_that_wants_a_password_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("film.mp4");
    h264(&film, "320x240", 10, 20);
    groundd::ingest::init().unwrap();
    let server = groundd::ingest::rtsp_server::RtspServer::start(groundd::ingest::rtsp_server::RtspServerOptions {
        clip: film,
        mounts: vec!["door".into()],
        credentials: Some(("viewer".into(), "right".into())),
        ..Default::default()
    })
    .unwrap();
    fails(&mut watch(&[&server.url("door"), "--query", "car"]), UNAVAILABLE, &["401", "password"]);
    let wrong = server.url("door").replace("rtsp://", "rtsp://viewer:wrong@");
    fails(&mut watch(&[&wrong, "--query", "car"]), UNAVAILABLE, &["401", "password"]);
    let right = server.url("door").replace("rtsp://", "rtsp://viewer:right@");
    let mut command = watch(&[&right, "--query", "car", "--seconds", "20"]);
    command.args(["--log", "warn"]);
    let mut good = Process::start(command, folder.path(), "good");
    wait_for("a frame", Duration::from_secs(15), || (!good.lines().is_empty()).then_some(()));
    good.kill();
}
