//! The cameras: RTSP servers in processes of their own, as real ones are on machines of their own. GStreamer's server can end
//! its whole process by an assertion when many viewers leave at once; that must not take the measurements along.

use std::{
    io::{self, Read},
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
};

use crate::{
    cli::{Failure, args, say},
    ingest::{RtspServer, RtspServerOptions, bare::Bare, timeline::Timeline},
};

const MOUNT: &str = "camera";
/// How long a camera may take to come up.
const START: Duration = Duration::from_secs(30);
/// How often a camera looks whether its play began anew.
const TICK: Duration = Duration::from_millis(20);
/// A play's beginning is worked out with each picture; less than this is the clock's doing.
const NEWS: Duration = Duration::from_millis(2);

/// `groundd play`: serves a clip until stdin ends. Says its address, then, in nanoseconds since 1970, when its play began, each time
/// it does.
pub(in crate::cli) fn play(args: &args::Play) -> Result<(), Failure> {
    let mounts = vec![MOUNT.to_owned()];
    let args::Play { clip, port, speed } = args.clone();
    let server = RtspServer::start(RtspServerOptions { clip, mounts, port, speed, ..Default::default() })?;
    say(&format!("{}\n", server.url(MOUNT)))?;
    // Whoever started it holds the other end: when it is gone, nobody watches.
    let watched = std::thread::spawn(|| io::stdin().lock().read_to_end(&mut Vec::new()));
    let mut told = None;
    while !watched.is_finished() {
        if let Some(began) = server.timeline(MOUNT).and_then(Timeline::began)
            && told.is_none_or(|before| apart(before, began) > NEWS)
        {
            let since = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            say(&format!("{}\n", since.as_nanos()))?;
            told = Some(began);
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|e| e.duration())
}

/// One camera, as the benchmark sees it; its process ends with it.
pub(super) struct Camera {
    pub(super) url: String,
    pub(super) timeline: Timeline,
    child: Child,
    listener: JoinHandle<()>,
}

impl Camera {
    /// Plays the clip at `path`, which `clip` holds; `Err` says why it does not.
    pub(super) async fn start(path: &Path, clip: &Bare) -> Result<Self, String> {
        Self::start_at(path, clip, 0, 1).await
    }

    /// The same at a given port, `speed` times faster than the clip was taken.
    pub(super) async fn start_at(path: &Path, clip: &Bare, port: u16, speed: u32) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.arg("play").arg(path).args(["--port", &port.to_string(), "--speed", &speed.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| format!("a camera cannot be started: {e}"))?;
        let stdout = child.stdout.take().ok_or("a camera has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START, lines.next_line()).await;
        let url = line.ok().and_then(Result::ok).flatten().ok_or("a camera does not come up")?;
        let timeline = clip.timeline();
        let listener = tokio::spawn(follow(lines, timeline.clone()));
        Ok(Self { url, timeline, child, listener })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The port it listens on.
    pub(super) fn port(&self) -> Option<u16> {
        url::Url::parse(&self.url).ok()?.port()
    }

    /// Whether it still plays.
    pub(super) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it, and waits until its port is free.
    pub(super) async fn end(mut self) {
        // It may have ended already; either way it is gone afterwards.
        self.child.kill().await.ok();
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn follow(mut lines: Lines<BufReader<ChildStdout>>, timeline: Timeline) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(nanos) = line.parse() {
            timeline.begin(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_times_are_apart_whichever_is_first() {
        let (now, ms) = (SystemTime::now(), Duration::from_millis(5));
        assert_eq!((apart(now, now + ms), apart(now + ms, now)), (ms, ms));
    }
}
