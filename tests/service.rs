//! `groundd run` as its users meet it: real cameras, a real broker, signals, faults.

mod control;
mod ends;
mod http;
mod messages;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::MutexGuard,
    time::{Duration, Instant},
};

use groundd::ingest::{
    self,
    rtsp_server::{RtspServer, RtspServerOptions},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    alone, free_port, h264,
    process::{Listener, Mosquitto, Process, groundd},
    proxy::{Mode, Proxy},
    vlc, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a clip, a broker, and configurations for the daemon.
struct World {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    broker: Mosquitto,
    clip: PathBuf,
}

impl World {
    fn new() -> Self {
        let alone = alone();
        let folder = tempfile::tempdir().unwrap();
        let clip = folder.path().join("clip.mp4");
        h264(&clip, "640x360", 10, 100);
        ingest::init().unwrap();
        Self { _alone: alone, broker: Mosquitto::start(folder.path()), clip, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn server(&self, port: u16) -> RtspServer {
        serve(self.clip.clone(), port)
    }

    fn configure(&self, cameras: &[(&str, &str)], queries: &[(&str, &str)], more: &str) -> PathBuf {
        let port = self.broker.port;
        let mut text = format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nspool_dir = \"spool\"\n{more}\n");
        for (id, uri) in cameras {
            // VLC serves RTSP over UDP only.
            let transport = if *id == "vlc" { "udp" } else { "tcp" };
            text += &format!("[[camera]]\nid = \"{id}\"\nuri = \"{uri}\"\ntransport = \"{transport}\"\n");
            text += "fps = 5.0\nstall_seconds = 2.0\n";
        }
        for (id, words) in queries {
            text += &format!("[[query]]\nid = \"{id}\"\ntext = \"{words}\"\n");
        }
        let path = self.path().join("groundd.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, config: &Path) -> Process {
        let mut command = groundd();
        command.args(["run", "--config", config.to_str().unwrap()]);
        Process::start(command, self.path(), "groundd")
    }

    /// Messages of `topic` in what a subscriber wrote.
    fn messages(subscriber: &Listener, topic: &str) -> Vec<Value> {
        let prefix = format!("{topic} ");
        let lines = subscriber.lines();
        lines
            .iter()
            .filter_map(|l| l.strip_prefix(&prefix))
            .filter_map(|json| serde_json::from_str(json).ok())
            .collect()
    }

    fn await_live(&self, camera: &str, daemon: &Process) {
        let topic = format!("groundd/{camera}/status");
        daemon.wait_for(&format!("{camera} live"), PATIENCE, || {
            self.broker.retained(&topic).filter(|s| s.contains("\"live\""))
        });
    }

    /// When the camera's status last changed.
    fn since(&self, camera: &str) -> String {
        let status: Value = serde_json::from_str(&self.broker.kept(&format!("groundd/{camera}/status"))).unwrap();
        status["since"].to_string()
    }
}

fn serve(clip: PathBuf, port: u16) -> RtspServer {
    let options = RtspServerOptions { clip, mounts: vec!["cam".into()], port, ..Default::default() };
    RtspServer::start(options).unwrap()
}

/// A camera at the demo's street, which is busy: people come and go, so there are events all the time.
fn street() -> RtspServer {
    serve(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo.mp4"), 0)
}

/// Frames a second of `camera` over `window`, and the median of their age in milliseconds.
fn rate_and_age(subscriber: &Listener, camera: &str, window: Duration) -> (f64, f64) {
    let topic = format!("groundd/{camera}/detections");
    let before = World::messages(subscriber, &topic).len();
    std::thread::sleep(window);
    let messages = World::messages(subscriber, &topic);
    let mut ages: Vec<f64> = messages[before..].iter().map(|m| m["time"]["age_ms"].as_f64().unwrap()).collect();
    ages.sort_by(f64::total_cmp);
    let median = ages.get(ages.len() / 2).copied().unwrap_or(f64::INFINITY);
    (ages.len() as f64 / window.as_secs_f64(), median)
}

#[test]
fn four_cameras_of_two_makes_and_one_that_dies_and_comes_back() {
    let world = World::new();
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let _steady: Vec<RtspServer> = ports[..2].iter().map(|port| world.server(*port)).collect();
    let mut fragile = Some(world.server(ports[2]));
    let _vlc = Process::start(vlc(world.path(), ports[3], &world.clip), world.path(), "vlc");
    let uris: Vec<String> = ports.iter().map(|port| format!("rtsp://127.0.0.1:{port}/cam")).collect();
    let cameras = [("a", &*uris[0]), ("b", &*uris[1]), ("fragile", &*uris[2]), ("vlc", &*uris[3])];
    let config = world.configure(&cameras, &[("person", "person")], "");
    let mut daemon = world.run(&config);
    let subscriber = world.broker.subscribe("all", &["groundd/#"]);
    for (camera, _) in cameras {
        world.await_live(camera, &daemon);
    }
    let window = Duration::from_secs(4);
    let (rate_before, age_before) = rate_and_age(&subscriber, "a", window);
    assert!(rate_before > 3.0, "5 a second are asked for, {rate_before} came\n{}", daemon.log());

    fragile.take();
    wait_for("the dead camera's status", PATIENCE, || {
        world.broker.retained("groundd/fragile/status").filter(|s| !s.contains("\"live\""))
    });
    // The film of VLC's camera has a gap where it begins again, and this machine may be busy for a moment. What a dead camera
    // costs the others, it costs them in each window.
    for camera in ["a", "b", "vlc"] {
        let mut windows = Vec::new();
        let untouched = (0..3).any(|_| {
            let (rate, age) = rate_and_age(&subscriber, camera, window);
            windows.push((rate, age));
            rate > 0.8 * rate_before && age < 2.0 * age_before + 50.0
        });
        assert!(
            untouched,
            "{camera}: frames a second and their age {windows:?} after {rate_before} and {age_before} ms"
        );
    }

    let returned = Instant::now();
    fragile = Some(world.server(ports[2]));
    world.await_live("fragile", &daemon);
    let away = returned.elapsed();
    // 2 s and one keyframe, which the clip has every second.
    assert!(away < Duration::from_millis(3200), "live again after {away:?}");
    assert!(daemon.is_running());
    drop(fragile);

    daemon.signal(Signal::TERM);
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    assert_eq!(world.broker.kept("groundd/status"), "offline");
}

#[test]
fn a_daemon_that_is_killed_is_reported_offline_and_a_broker_that_dies_loses_no_event() {
    let mut world = World::new();
    let server = street();
    let config = world.configure(&[("gate", &server.url("cam"))], &[("person", "person")], "");
    // The daemon goes to its broker by a way that can be closed.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::to(world.broker.port));
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(&format!("mqtt://127.0.0.1:{}", world.broker.port), &proxy.url())).unwrap();
    // At QoS 0 the broker writes to the subscriber before it acknowledges, and keeps nothing back that would die with it.
    let subscriber = world.broker.listen("events", &["groundd/gate/events"], &["-q", "0", "-F", "%t %p"]);
    let mut daemon = world.run(&config);
    world.await_live("gate", &daemon);
    assert_eq!(world.broker.kept("groundd/status"), "online");
    let before = daemon.rss_kb();

    for _ in 0..3 {
        proxy.set(Mode::Refuse);
        world.broker.kill();
        std::thread::sleep(Duration::from_secs(2));
        assert!(daemon.is_running(), "{}", daemon.log());
        world.broker.restart();
        // What the daemon sends before the subscriber is back nobody hears.
        world.broker.settle(&subscriber);
        proxy.set(Mode::Pass);
        wait_for("the retained status on the new broker", PATIENCE, || {
            world.broker.retained("groundd/status").filter(|s| s == "online")
        });
        world.await_live("gate", &daemon);
    }
    // Told every half minute; an event may just be on its way then.
    let stats = wait_for("all events acknowledged", Duration::from_secs(100), || {
        let stats: Value = serde_json::from_str(&world.broker.retained("groundd/stats")?).ok()?;
        let (reconnects, acked) = (stats["mqtt"]["reconnects"].as_u64(), stats["mqtt"]["events_acked"].as_u64());
        (reconnects >= Some(3) && acked > Some(0) && stats["mqtt"]["events_waiting"] == 0).then_some(stats)
    });
    assert_eq!(stats["mqtt"]["events_lost"], 0, "{stats}");
    world.broker.settle(&subscriber);
    let number = |event: &Value| event["event_seq"].as_u64().unwrap_or_else(|| panic!("{event}"));
    let heard: Vec<u64> = World::messages(&subscriber, "groundd/gate/events").iter().map(number).collect();
    // What the broker had when it died may come again, without having been acknowledged.
    let mut seen = BTreeSet::new();
    let once: Vec<u64> = heard.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert_eq!(once, (once[0]..).take(once.len()).collect::<Vec<_>>(), "lost or out of order");
    // Of the same start: as many as were acknowledged, and those that came since.
    let acked = stats["mqtt"]["events_acked"].as_u64().unwrap();
    assert!(once.len() as u64 >= acked, "{acked} were acknowledged, {} heard", once.len());
    let grown = daemon.rss_kb().saturating_sub(before);
    assert!(grown < 40_000, "memory grew by {grown} kB over three outages");

    let subscriber = world.broker.subscribe("status", &["groundd/status"]);
    daemon.kill();
    wait_for("the last will", PATIENCE, || {
        subscriber.lines().contains(&"groundd/status offline".to_owned()).then_some(())
    });
}

#[test]
fn a_reload_touches_only_what_changed_and_a_wrong_file_changes_nothing() {
    let world = World::new();
    let server = world.server(0);
    let url = server.url("cam");
    let config = world.configure(&[("stays", &url), ("goes", &url)], &[("person", "person")], "");
    let mut daemon = world.run(&config);
    world.await_live("stays", &daemon);
    world.await_live("goes", &daemon);
    let live_since = world.since("stays");

    fs::write(&config, "[[camera]]\nid = 7\n").unwrap();
    daemon.signal(Signal::HUP);
    wait_for("the refusal in the log", PATIENCE, || daemon.log().contains("old one stays in force").then_some(()));
    assert!(daemon.is_running());
    world.await_live("goes", &daemon);

    world.configure(&[("stays", &url), ("comes", &url)], &[("person", "person"), ("car", "red car")], "");
    daemon.signal(Signal::HUP);
    world.await_live("comes", &daemon);
    wait_for("the old camera's status to go", PATIENCE, || world.broker.cleared("groundd/goes/status").then_some(()));
    let subscriber = world.broker.subscribe("stays", &["groundd/stays/detections"]);
    let message = wait_for("both queries answered", PATIENCE, || {
        World::messages(&subscriber, "groundd/stays/detections")
            .pop()
            .filter(|m| m["queries"].as_array().unwrap().len() == 2)
    });
    assert!(message["seq"].as_u64().unwrap() > 0);
    assert_eq!(world.since("stays"), live_since, "an unchanged camera was touched");
    assert!(world.broker.kept("groundd/query/car/state").contains("active"));
}

/// Collects what the daemon tells systemd.
struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    said: Vec<String>,
}

impl NotifySocket {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, said: Vec::new() }
    }

    /// Waits until systemd would have heard `line`, `count` times in all.
    fn hears(&mut self, line: &str, count: usize, daemon: &Process) {
        daemon.wait_for(&format!("{line} x{count}"), PATIENCE, || {
            let mut buffer = [0; 4096];
            while let Ok(n) = self.socket.recv(&mut buffer) {
                self.said.extend(String::from_utf8_lossy(&buffer[..n]).lines().map(str::to_owned));
            }
            (self.said.iter().filter(|said| said.starts_with(line)).count() >= count).then_some(())
        });
    }
}

#[test]
fn systemd_hears_ready_reloading_watchdog_and_stopping() {
    let world = World::new();
    let mut systemd = NotifySocket::new(world.path());
    let config = world.configure(&[("gate", "test://")], &[("person", "person")], "");
    let mut command = groundd();
    command.args(["run", "--config", config.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &systemd.path).env("WATCHDOG_USEC", "1500000");
    let mut daemon = Process::start(command, world.path(), "groundd");
    systemd.hears("READY=1", 1, &daemon);
    systemd.hears("WATCHDOG=1", 2, &daemon);
    daemon.signal(Signal::HUP);
    systemd.hears("RELOADING=1", 1, &daemon);
    systemd.hears("MONOTONIC_USEC=", 1, &daemon);
    systemd.hears("READY=1", 2, &daemon);
    daemon.signal(Signal::TERM);
    systemd.hears("STOPPING=1", 1, &daemon);
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
}

#[test]
fn a_watch_at_the_same_broker_leaves_the_service_alone_and_nothing_behind() {
    let world = World::new();
    let config = world.configure(&[("gate", "test://")], &[("person", "person"), ("odd", "purple xylophone")], "");
    let daemon = world.run(&config);
    world.await_live("gate", &daemon);
    wait_for("an answer", PATIENCE, || world.broker.retained("groundd/gate/person/present"));
    let heard = world.broker.subscribe("heard", &["groundd/status", "groundd/cam0/+/present"]);
    let mut watch = groundd();
    let broker = format!("mqtt://127.0.0.1:{}", world.broker.port);
    watch.args(["watch", "test://", "--query", "person", "--seconds", "4", "--broker", &broker]);
    let mut watch = Process::start(watch, world.path(), "watch");
    assert!(watch.wait(PATIENCE).success(), "{}", watch.log());
    world.broker.settle(&heard);
    let lines = heard.lines();
    assert!(lines.contains(&"groundd/cam0/person/present OFF".to_owned()), "{lines:?}");
    let told: Vec<_> = lines.iter().filter(|line| line.starts_with("groundd/status")).collect();
    assert_eq!(told, ["groundd/status online"], "{}", daemon.log());
    for topic in ["groundd/cam0/person/present", "groundd/cam0/person/count", "groundd/cam0/status"] {
        assert!(world.broker.cleared(topic), "{topic}");
    }
    // Nobody can say that a thing is not there which nobody can look for.
    assert!(world.broker.cleared("groundd/gate/odd/present"));
}

#[test]
fn every_frame_is_accounted_for_in_the_statistics() {
    let world = World::new();
    let server = world.server(0);
    let config = world.configure(&[("gate", &server.url("cam"))], &[("person", "person")], "");
    let text = fs::read_to_string(&config).unwrap().replace("fps = 5.0\n", "");
    fs::write(&config, text).unwrap();
    let mut daemon = world.run(&config);
    let subscriber = world.broker.subscribe("all", &["groundd/stats", "groundd/gate/detections"]);
    world.await_live("gate", &daemon);
    std::thread::sleep(Duration::from_secs(5));
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    let stats = wait_for("the last statistics", PATIENCE, || {
        World::messages(&subscriber, "groundd/stats")
            .pop()
            .filter(|s| s["cameras"]["gate"]["decoded"].as_u64() > Some(10))
    });
    let frames = &stats["cameras"]["gate"];
    let dropped: u64 = frames["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    let published = frames["published"].as_u64().unwrap();
    assert_eq!(frames["decoded"].as_u64().unwrap(), published + dropped, "{frames}");
    assert_eq!(frames["in_flight"], 0);
    assert_eq!(frames["dropped"]["lost"], 0, "a frame fell out of the program: {frames}");
    assert_eq!(World::messages(&subscriber, "groundd/gate/detections").len() as u64, published);
}
