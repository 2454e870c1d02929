//! What several tests need: video clips, running processes, patience with a limit.

pub mod ground;
pub mod hub;
pub mod process;
pub mod proxy;
pub mod vlm;
pub mod watched;

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use groundd::{daemon::Plan, track::TrackConfig};

/// A pipeline that runs as a service's does.
pub fn plan(staleness: Duration) -> Plan {
    Plan {
        every_frame: false,
        films: BTreeSet::new(),
        finite: false,
        staleness,
        max_batch: 0,
        track: TrackConfig::default(),
        snapshot_every: None,
        pipelines: None,
    }
}

/// Renders `frames` frames of a moving test picture with ffmpeg's `arguments` for the codec.
pub fn clip(path: &Path, size: &str, rate: u32, frames: u32, codec: &[&str]) {
    let source = format!("testsrc2=size={size}:rate={rate}");
    let output = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-f", "lavfi", "-i", &source])
        .args(["-frames:v", &frames.to_string(), "-pix_fmt", "yuv420p"])
        .args(codec)
        .arg(path)
        .output()
        .expect("ffmpeg is installed by `make test`");
    assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
}

/// H.264 with a keyframe every second and no reordering, as cameras send it.
pub fn h264(path: &Path, size: &str, rate: u32, frames: u32) {
    let gop = rate.to_string();
    let codec = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", &gop];
    clip(path, size, rate, frames, &codec);
}

/// The first `frames` pictures of the demo's street, half as wide and high: there is something to find on each.
pub fn street(path: &Path, frames: u32) {
    let output = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-i"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo.mp4"))
        .args(["-frames:v", &frames.to_string(), "-vf", "scale=640:360", "-pix_fmt", "yuv420p"])
        .args(["-c:v", "libx264", "-preset", "ultrafast"])
        .arg(path)
        .output()
        .expect("ffmpeg is installed by `make test`");
    assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
}

/// The largest difference between numbers that should be the same; what is not a number is infinitely far from any.
#[track_caller]
pub fn worst(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let apart = |(a, b): (&f32, &f32)| (a - b).abs();
    // `f32::max` alone would pass over it.
    let counted = |distance: f32| if distance.is_nan() { f32::INFINITY } else { distance };
    got.iter().zip(expected).map(apart).map(counted).fold(0.0, f32::max)
}

/// Polls until `found` yields something; panics, saying what was awaited, after `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, found: impl FnMut() -> Option<T>) -> T {
    within(limit, found).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}

/// Polls until `found` yields something, but no longer than `limit`.
pub fn within<T>(limit: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let value = found();
        if value.is_some() || started.elapsed() >= limit {
            return value;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for `ready` where others go on meanwhile, at most 20 seconds.
pub async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tests that measure times hold this: beside one another they would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port of 127.0.0.1 that nobody uses now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// VLC as a camera: an RTSP server that shares no code with GStreamer's. It shows `clip`, which lies in `folder`.
pub fn vlc(folder: &Path, port: u16, clip: &Path) -> Command {
    use std::os::unix::fs::PermissionsExt;
    // VLC refuses to run as root, so the folder must be readable by somebody else.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("env");
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.args(["cvlc", "--no-audio", "--loop", "--quiet"]).env("HOME", folder);
    command.arg(format!("--sout=#rtp{{sdp=rtsp://127.0.0.1:{port}/cam}}")).arg("--sout-keep").arg(clip);
    command
}
