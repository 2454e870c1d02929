//! Helpers for the ingest tests: clips drawn by ffmpeg, cameras that are watched, and bounded waiting.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use groundd::{
    ingest::{self, Camera, CameraConfig, GstOpener, Options, Policy, Restart, RtspServer, RtspServerOptions, State},
    types::{DropReason, Frame, Size},
};
use tempfile::TempDir;
use tokio::sync::Notify;

pub(crate) const CANVAS: Size = Size { width: 512, height: 288 };

/// Draws a clip with ffmpeg: `input` is a lavfi source, `output` the encoder's arguments.
pub(crate) fn draw(folder: &Path, name: &str, input: &str, output: &str) -> PathBuf {
    let path = folder.join(name);
    let done = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", input])
        .args(output.split_whitespace())
        .arg(&path)
        .status()
        .expect("ffmpeg is installed");
    assert!(done.success(), "ffmpeg cannot draw {name}");
    path
}

/// Frames in a file, by ffprobe's count.
pub(crate) fn count_frames(clip: &Path) -> u64 {
    let args = ["-v", "error", "-count_frames", "-select_streams", "v:0"];
    let show = ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"];
    let out = Command::new("ffprobe").args(args).args(show).arg(clip).output().expect("ffprobe is installed");
    String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
}

/// Two seconds of H.264 at 15 a second with a keyframe twice a second.
pub(crate) fn h264(folder: &Path, name: &str, size: &str) -> PathBuf {
    draw(
        folder,
        name,
        &format!("testsrc2=s={size}:r=15:d=2"),
        "-c:v libx264 -preset ultrafast -g 8 -bf 0 -pix_fmt yuv420p",
    )
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn config(uri: &str, more: &str) -> CameraConfig {
    toml::from_str(&format!("id = \"gate\"\nuri = {uri:?}\n{more}")).unwrap()
}

pub(crate) fn serve(clip: &Path) -> RtspServer {
    serve_at(clip, 0).unwrap()
}

pub(crate) fn serve_at(clip: &Path, port: u16) -> Result<RtspServer, ingest::IngestError> {
    RtspServer::start(RtspServerOptions { clip: clip.into(), mounts: vec!["cam".into()], port, ..Default::default() })
}

/// A camera under test.
pub(crate) struct Rig {
    pub(crate) camera: Camera,
    pub(crate) ready: Arc<Notify>,
}

impl Rig {
    pub(crate) fn new(config: CameraConfig, policy: Policy, restart: Restart) -> Self {
        let ready = Arc::new(Notify::new());
        let options = Options {
            canvases: CANVAS.into(),
            policy,
            restart,
            ready: Arc::clone(&ready),
            pipelines: None,
            decoder_threads: 1,
        };
        Self { camera: ingest::start(config, &options, Arc::new(GstOpener), Arc::default()), ready }
    }

    pub(crate) fn live(config: CameraConfig) -> Self {
        Self::new(config, Policy::Latest, Restart::Forever)
    }

    /// The next frame; fails the test after `limit`.
    pub(crate) async fn frame(&self, limit: Duration) -> Frame {
        let until = Instant::now() + limit;
        loop {
            if let Some(frame) = self.camera.slot().take(Instant::now()) {
                return frame;
            }
            let status = self.camera.status().borrow().clone();
            let left = until.saturating_duration_since(Instant::now());
            let woken = tokio::time::timeout(left, self.ready.notified()).await;
            assert!(woken.is_ok(), "no frame within {limit:?}: {status:?} {:?}", self.camera.ended());
        }
    }

    /// Waits for a state; returns the reason.
    pub(crate) async fn state(&self, wanted: State, limit: Duration) -> Option<String> {
        let mut status = self.camera.status();
        let reached = tokio::time::timeout(limit, status.wait_for(|s| s.state == wanted)).await;
        assert!(reached.is_ok(), "not {wanted:?} within {limit:?}: {:?}", self.camera.status().borrow());
        reached.unwrap().unwrap().reason.clone()
    }

    /// The reason of the first failure.
    pub(crate) async fn failure(&self, limit: Duration) -> String {
        self.state(State::Failed, limit).await.expect("a failure has a reason")
    }

    /// All frames until the source has ended.
    pub(crate) async fn all(&self, limit: Duration) -> Vec<Frame> {
        let until = Instant::now() + limit;
        let mut frames = Vec::new();
        while !self.camera.slot().is_drained() {
            if let Some(frame) = self.camera.slot().take(Instant::now()) {
                frames.push(frame);
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::timeout(left, self.ready.notified()).await.expect("the source ends in time");
        }
        frames
    }

    /// Stops the camera and checks that the account of its frames is complete.
    pub(crate) async fn stop(self) {
        let ledger = Arc::clone(self.camera.ledger());
        let began = Instant::now();
        self.camera.stop().await;
        assert!(began.elapsed() < Duration::from_secs(6), "stopping took {:?}", began.elapsed());
        assert_eq!(ledger.in_flight(), 0, "{ledger:?}");
        let ends = ledger.published() + DropReason::ALL.iter().map(|r| ledger.dropped(*r)).sum::<u64>();
        assert_eq!(ends, ledger.decoded(), "{ledger:?}");
    }
}

pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A TCP relay that can stop relaying while it keeps its connections open: what a hung camera looks like.
pub(crate) struct Proxy {
    port: u16,
    frozen: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (frozen, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let proxy = Self { port, frozen: Arc::clone(&frozen), stopped: Arc::clone(&stopped) };
        std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                client.set_nonblocking(false).unwrap();
                let server = TcpStream::connect(("127.0.0.1", target)).unwrap();
                for (from, to) in [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))] {
                    let (frozen, stopped) = (Arc::clone(&frozen), Arc::clone(&stopped));
                    std::thread::spawn(move || relay(&from.unwrap(), &to.unwrap(), &frozen, &stopped));
                }
            }
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
    }
}

fn relay(mut from: &TcpStream, mut to: &TcpStream, frozen: &AtomicBool, stopped: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = vec![0; 65536];
    while !stopped.load(SeqCst) {
        if frozen.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    // The other side must learn of it; it may know already.
    to.shutdown(Shutdown::Both).ok();
}

/// A child process that ends with the test, whatever its outcome.
pub(crate) struct Child(std::process::Child);

impl Child {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("installed"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
