//! What goes wrong with cameras, and what the person who must put it right is told.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use groundd::{
    ingest::{
        self, BoxFuture, CameraConfig, End, Flow, Opener, Outlet, Picture, Policy, Restart, RestartReason, RtspServer,
        RtspServerOptions, Source, State,
    },
    types::{Capture, Clock, Letterbox, Rgb},
};

use super::support::{CANVAS, Proxy, Rig, SOON, config, folder, h264, serve};
use crate::support::until;

fn guarded(clip: &Path) -> RtspServer {
    let credentials = Some(("root".to_owned(), "s3:cr@t".to_owned()));
    let options =
        RtspServerOptions { clip: clip.into(), mounts: vec!["cam".into()], credentials, ..Default::default() };
    RtspServer::start(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_refused_and_accepted_and_never_shown() {
    let folder = folder();
    let server = guarded(&h264(folder.path(), "a.mp4", "320x180"));
    let secret = folder.path().join("password");
    fs::write(&secret, "s3:cr@t\n").unwrap();
    let url = server.url("cam");

    let rig = Rig::live(config(&url, ""));
    let reason = rig.failure(SOON).await;
    assert!(reason.contains(&url) && reason.contains("wants a user name"), "{reason}");
    assert!(rig.camera.restarts().of(RestartReason::Unauthorized) >= 1);
    rig.stop().await;

    let wrong = url.replace("rtsp://", "rtsp://root:hunter2@");
    let rig = Rig::live(config(&wrong, ""));
    let reason = rig.failure(SOON).await;
    assert!(reason.contains("refuses this user name and password"), "{reason}");
    assert!(!reason.contains("hunter2") && !reason.contains("root"), "{reason}");
    rig.stop().await;

    let inside = url.replace("rtsp://", "rtsp://root:s3%3Acr%40t@");
    let file = format!("username = \"root\"\npassword_file = {secret:?}");
    for right in [config(&inside, ""), config(&url, &file)] {
        let rig = Rig::live(right);
        rig.frame(SOON).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_an_unknown_name_and_a_closed_port_are_told_apart() {
    let folder = folder();
    let server = serve(&h264(folder.path(), "a.mp4", "320x180"));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (uri, reason, words) in [
        (server.url("nothing"), RestartReason::NotFound, "no such path"),
        ("rtsp://camera.invalid/a".to_owned(), RestartReason::Unreachable, "cannot be resolved"),
        (format!("rtsp://127.0.0.1:{closed}/a"), RestartReason::Unreachable, "connection refused"),
        (format!("http://127.0.0.1:{closed}/a"), RestartReason::Unreachable, "connection refused"),
    ] {
        let rig = Rig::live(config(&uri, ""));
        let text = rig.failure(SOON).await;
        assert!(text.contains(words) && text.contains(&uri), "{text}");
        assert!(rig.camera.restarts().of(reason) >= 1, "{uri}: {text}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_missing_garbage_or_cut_short_are_named() {
    let folder = folder();
    let whole = fs::read(h264(folder.path(), "a.mp4", "320x180")).unwrap();
    let garbage = folder.path().join("garbage.mp4");
    // Not random: every run must see the same garbage.
    fs::write(&garbage, (0..100_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect::<Vec<_>>())
        .unwrap();
    let cut = folder.path().join("cut.mp4");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for (path, words) in [
        (folder.path().join("missing.mp4"), "there is no file"),
        (garbage, "not a video that can be played"),
        (cut, "is it whole?"),
    ] {
        let rig = Rig::new(config(path.to_str().unwrap(), "stall_seconds = 1.0"), Policy::Latest, Restart::Once);
        assert!(rig.all(SOON).await.is_empty(), "{}", path.display());
        let text = rig.camera.ended().unwrap().unwrap_err();
        assert!(text.contains(words) && text.contains(path.to_str().unwrap()), "{text}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_fails_and_holds_up_nobody() {
    let folder = folder();
    let server = serve(&h264(folder.path(), "a.mp4", "320x180"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rtsp://{}/cam", silent.local_addr().unwrap());
    let hung = Rig::live(config(&uri, "stall_seconds = 1.0"));
    let well = Rig::live(config(&server.url("cam"), ""));
    well.frame(SOON).await;
    let text = hung.failure(SOON).await;
    assert!(text.contains(&uri), "{text}");
    // While the other is stuck in its next attempt, this one goes on, and both stop in time.
    well.frame(Duration::from_secs(2)).await;
    hung.stop().await;
    well.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_falls_silent_is_stalled_and_comes_back() {
    let folder = folder();
    let server = serve(&h264(folder.path(), "a.mp4", "320x180"));
    let proxy = Proxy::to(server.port());
    let rig = Rig::live(config(&format!("rtsp://127.0.0.1:{}/cam", proxy.port()), "stall_seconds = 1.5"));
    rig.frame(SOON).await;
    proxy.freeze(true);
    let frozen = Instant::now();
    let reason = rig.state(State::Stalled, SOON).await.unwrap();
    assert!(reason.contains("no picture for 1.5 s"), "{reason}");
    assert!(frozen.elapsed() < Duration::from_secs(4), "{:?}", frozen.elapsed());
    proxy.freeze(false);
    rig.state(State::Live, SOON).await;
    assert_eq!(rig.camera.restarts().of(RestartReason::Stalled), 1);
    rig.stop().await;
}

/// Opens sources that never give a picture and never stop. Keeps what the last of them offers its pictures to.
#[derive(Default)]
struct Hangs(Mutex<Option<Outlet>>);

impl Opener for Hangs {
    fn open<'a>(
        &'a self,
        _: &'a CameraConfig,
        _: Option<&'a Path>,
        outlet: Outlet,
    ) -> BoxFuture<'a, Result<Box<dyn Source>, End>> {
        *self.0.lock().unwrap() = Some(outlet);
        Box::pin(async { Ok(Box::new(Hung) as Box<dyn Source>) })
    }
}

struct Hung;

impl Source for Hung {
    fn ended(&mut self) -> BoxFuture<'_, End> {
        Box::pin(std::future::pending())
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_whose_teardown_hangs_is_left_behind() {
    let options = ingest::Options {
        canvases: CANVAS.into(),
        policy: Policy::Latest,
        restart: Restart::Forever,
        ready: Arc::default(),
        pipelines: None,
        decoder_threads: 1,
    };
    let opener = Arc::new(Hangs::default());
    let (given, ledger) = (Arc::clone(&opener) as Arc<dyn Opener>, Arc::default());
    let camera = ingest::start(config("test://", ""), &options, given, Arc::clone(&ledger));
    until("the camera to be opened", || opener.0.lock().unwrap().is_some()).await;
    let outlet = opener.0.lock().unwrap().clone().unwrap();
    let (slot, began) = (Arc::clone(camera.slot()), Instant::now());
    camera.stop().await;
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    // What was left behind goes on, and nothing comes of it.
    assert_eq!(outlet.offer(black()), Flow::Closed);
    assert!(slot.take(Instant::now()).is_none());
    assert_eq!(ledger.in_flight(), 0, "{ledger:?}");
}

fn black() -> Picture {
    Picture {
        capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
        pts: Duration::ZERO,
        decoded_at: Instant::now(),
        decode_time: Duration::ZERO,
        view: Letterbox::fit(CANVAS, 1.0, CANVAS),
        canvas: Rgb { size: CANVAS, data: vec![0; CANVAS.area() * 3].into() }.into(),
        full: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_does_not_wait_for_a_model_that_is_stuck() {
    let folder = folder();
    let clip = h264(folder.path(), "a.mp4", "320x180");
    let rig = Rig::new(config(clip.to_str().unwrap(), ""), Policy::Every { capacity: 1 }, Restart::Forever);
    // Nobody takes a frame: the producer waits for room, which is no stall of the camera.
    let slot = Arc::clone(rig.camera.slot());
    let ledger = Arc::clone(rig.camera.ledger());
    let began = Instant::now();
    while ledger.decoded() < 2 {
        assert!(began.elapsed() < SOON, "{ledger:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ledger.decoded(), 2, "one waits, one is held");
    rig.camera.stop().await;
    drop(slot);
    assert_eq!(ledger.in_flight(), 0, "{ledger:?}");
}

#[test]
fn check_says_beforehand_what_would_fail_later() {
    let folder = folder();
    let clip = h264(folder.path(), "a.mp4", "320x180");
    let (clip, here) = (clip.to_str().unwrap(), folder.path().to_str().unwrap());
    // Opened, it would wait for somebody who writes to it.
    let pipe = folder.path().join("pipe.mp4");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(folder.path().join("broken.launch"), "nosuchelement name=source ! appsink name=out").unwrap();
    fs::write(folder.path().join("sinkless.launch"), "fakesrc name=source ! fakesink").unwrap();
    fs::write(folder.path().join("mine.launch"), "# fine\nfilesrc name=source ! decodebin ! appsink name=out").unwrap();
    let check =
        |uri: &str, more: &str| ingest::check(&config(uri, more), Some(folder.path())).map_err(|e| e.to_string());
    for (uri, more) in [
        ("rtsp://127.0.0.1:1/never-asked", ""),
        (clip, ""),
        (clip, "pipeline = \"mine\""),
        ("test://ball", ""),
        ("http://127.0.0.1:1/", ""),
    ] {
        assert_eq!(check(uri, more), Ok(()), "{uri}");
    }
    for (uri, more, words) in [
        ("gopher://x/", "", "not a kind of camera"),
        ("rtsp://", "", "host"),
        ("rtsp://admin:20/hunter@127.0.0.1/", "", "%2F"),
        ("admin:hunter@127.0.0.1/", "", "percent-encoded"),
        ("/nowhere/clip.mp4", "", "/nowhere/clip.mp4"),
        ("/nowhere/clip.mp4", "", "check the path and that this user may read it"),
        (here, "", "not a file"),
        (pipe.to_str().unwrap(), "", "not a file"),
        ("/dev/video99", "", "plugged in"),
        ("rtsp://h/", "password_file = \"/nowhere/pw\"", "`username`"),
        ("rtsp://me@h/", "password_file = \"/nowhere/pw\"", "password_file: cannot read `/nowhere/pw`"),
        ("rtsps://h/", &format!("ca_file = {clip:?}"), "no PEM certificate"),
        (" ", "", "`uri`"),
        ("rtsp://h/", "fps = 0.0", "`fps`"),
        ("rtsp://h/", "fps = 1001.0", "`fps`"),
        ("rtsp://h/", "stall_seconds = -1.0", "`stall_seconds`"),
        ("rtsp://h/", "stall_seconds = nan", "`stall_seconds`"),
        ("rtsp://h/", "latency_ms = 10001", "`latency_ms`"),
        (clip, "pipeline = \"broken\"", "nosuchelement"),
        (clip, "pipeline = \"sinkless\"", "`out`"),
        (clip, "pipeline = \"absent\"", "absent"),
    ] {
        let error = check(uri, more).unwrap_err();
        assert!(error.contains(words) && error.contains("`gate`"), "{uri}: {error}");
        assert!(!error.contains("hunter"), "{error}");
    }
}

#[test]
fn probe_says_what_a_camera_sends_or_why_it_does_not() {
    let folder = folder();
    let server = serve(&h264(folder.path(), "a.mp4", "320x180"));
    let found = ingest::probe(&config(&server.url("cam"), ""), None, SOON).unwrap();
    assert!(found.starts_with("H264 320x180 @ 15"), "{found}");
    let error = ingest::probe(&config(&server.url("other"), ""), None, SOON).unwrap_err().to_string();
    assert!(error.contains("no such path") && error.contains("`gate`"), "{error}");
}
