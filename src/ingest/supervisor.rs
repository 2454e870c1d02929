//! Keeps one camera going: opens it, watches it, tears it down, tries again. The only place that retries.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{Instrument, info, info_span, warn};

use super::{
    CameraConfig, CameraStatus, End, Opener, Outlet, Policy, RestartReason, Restarts, Slot, Source, State, diagnose,
    public_uri, source::is_finite,
};
use crate::{
    backoff::Backoff,
    types::{Ledger, Size},
};

/// First wait before trying again; it doubles up to [`RestartReason::longest_wait`], or is that at once for what
/// [needs a person](RestartReason::needs_a_person).
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Opening and the first keyframe may take this long, besides the camera's own stall time.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// The same for a file. GStreamer's decodebin sometimes swallows the error of a damaged file, so this is not rare.
const FIRST_FRAME_OF_FILE: Duration = Duration::from_secs(5);
/// A camera that was live this long has recovered: the next fault is a new one.
const RECOVERED: Duration = Duration::from_secs(5);
/// Longest wait for the task when a camera is stopped: one teardown, and some.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What is common to the cameras of one daemon.
#[derive(Clone)]
pub struct Options {
    /// Size of the model's canvas.
    pub canvas: Size,
    /// What happens to frames nobody has taken yet.
    pub policy: Policy,
    /// What happens when a source ends.
    pub restart: Restart,
    /// Notified when a slot has something.
    pub ready: Arc<Notify>,
    /// Folder of user templates.
    pub pipelines: Option<PathBuf>,
    /// Threads for each camera's software decoder; 0 leaves it to the decoder, which takes one a core.
    pub decoder_threads: u32,
}

/// What happens when a source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It is connected anew, and a file is played again.
    Forever,
    /// A file that has ended stays ended; whatever has no end of its own is connected anew.
    Once,
}

/// A running camera. Dropping it stops it without waiting.
pub struct Camera {
    shared: Arc<Shared>,
    status: watch::Receiver<CameraStatus>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct Shared {
    config: CameraConfig,
    slot: Arc<Slot>,
    ledger: Arc<Ledger>,
    restarts: Restarts,
    ended: Mutex<Option<Result<(), String>>>,
}

/// Starts a camera on a task of its own. Its frames are numbered and accounted in `ledger`, after those that are in it.
pub fn start(config: CameraConfig, options: &Options, opener: Arc<dyn Opener>, ledger: Arc<Ledger>) -> Camera {
    let slot = Arc::new(Slot::new(options.policy, Arc::clone(&options.ready)));
    let account = (Arc::clone(&slot), Arc::clone(&ledger));
    let outlet = Outlet::new(config.id.clone(), options.canvas, options.policy, config.fps, account)
        .with_decoder_threads(options.decoder_threads);
    let span = info_span!("camera", camera = %config.id);
    let shared = Arc::new(Shared { config, slot, ledger, restarts: Restarts::default(), ended: Mutex::default() });
    let (publish, status) =
        watch::channel(CameraStatus { state: State::Connecting, since: SystemTime::now(), reason: None, restarts: 0 });
    let (stop, stopped) = watch::channel(false);
    let supervisor = Supervisor {
        shared: Arc::clone(&shared),
        options: options.clone(),
        opener,
        outlet,
        status: publish,
        down: None,
    };
    let task = tokio::spawn(supervisor.run(stopped).instrument(span));
    Camera { shared, status, stop, task }
}

impl Camera {
    /// As it was configured.
    pub fn config(&self) -> &CameraConfig {
        &self.shared.config
    }

    /// Where its frames wait.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.shared.slot
    }

    /// Its frame account.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// Its state, now and when it changes.
    pub fn status(&self) -> watch::Receiver<CameraStatus> {
        self.status.clone()
    }

    /// How often each kind of end has come.
    pub fn restarts(&self) -> &Restarts {
        &self.shared.restarts
    }

    /// How it ended, once it has: only a camera started with [`Restart::Once`] does, or one that was stopped. Its
    /// slot may still hold frames.
    pub fn ended(&self) -> Option<Result<(), String>> {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops it, in bounded time: a pipeline that hangs is left behind.
    pub async fn stop(mut self) {
        // First of all: a producer that waits for room must not hold up its own teardown.
        self.shared.slot.close();
        self.stop.send_replace(true);
        if timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            warn!(camera = %self.shared.config.id, "does not stop; it is left behind");
            self.task.abort();
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.shared.slot.close();
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    options: Options,
    opener: Arc<dyn Opener>,
    outlet: Outlet,
    status: watch::Sender<CameraStatus>,
    /// Since when it is down and why, so that each outage is logged once.
    down: Option<(Instant, RestartReason)>,
}

/// One connection, finished.
struct Run {
    end: End,
    /// How long it was live; `None` if it never was.
    live: Option<Duration>,
    whole: Duration,
}

impl Supervisor {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let result = self.retry(&mut stop).await;
        self.outlet.retire();
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.shared.slot.close();
    }

    /// Connects until stopped, or once.
    async fn retry(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), String> {
        let longest = RestartReason::ALL.iter().map(|r| r.longest_wait()).max().unwrap_or(FIRST_WAIT);
        let mut backoff = Backoff::new(FIRST_WAIT, longest);
        loop {
            let Some(run) = self.run_once(stop).await else { return Ok(()) };
            self.shared.restarts.count(run.end.reason);
            if self.options.restart == Restart::Once && is_finite(&self.shared.config) {
                return self.finish(run.end);
            }
            let replay =
                run.live.is_some() && run.end.reason == RestartReason::EndOfStream && is_finite(&self.shared.config);
            let wait = if replay {
                self.count_restart();
                FIRST_WAIT.saturating_sub(run.whole)
            } else {
                if run.live.is_some_and(|l| l >= RECOVERED) {
                    backoff.reset();
                }
                self.went_down(&run.end);
                wait(&mut backoff, run.end.reason, rand::random())
            };
            tokio::select! {
                biased;
                () = stopped(stop) => return Ok(()),
                () = sleep(wait) => {}
            }
        }
    }

    /// One connection from opening to teardown; `None` if it was stopped from outside.
    async fn run_once(&mut self, stop: &mut watch::Receiver<bool>) -> Option<Run> {
        let began = Instant::now();
        self.outlet = self.outlet.next_run();
        let opened = {
            let opening = self.opener.open(&self.shared.config, self.options.pipelines.as_deref(), self.outlet.clone());
            tokio::select! {
                biased;
                () = stopped(stop) => return None,
                opened = opening => opened,
            }
        };
        let mut source = match opened {
            Ok(source) => source,
            Err(end) => return Some(Run { end, live: None, whole: began.elapsed() }),
        };
        let mut live_since = None;
        let end = tokio::select! {
            biased;
            () = stopped(stop) => None,
            end = self.watch(source.as_mut(), &mut live_since) => Some(end),
        };
        let live = live_since.map(|since: Instant| since.elapsed());
        if end.as_ref().is_none_or(|e| e.reason != RestartReason::EndOfStream) {
            self.outlet.retire();
        }
        source.stop().await;
        Some(Run { end: end?, live, whole: began.elapsed() })
    }

    /// Waits for the end of a connection: its own, or ours when it gives nothing.
    async fn watch(&mut self, source: &mut dyn Source, live_since: &mut Option<Instant>) -> End {
        let stall = Duration::try_from_secs_f32(self.shared.config.stall_seconds).unwrap_or(FIRST_FRAME);
        let outlet = self.outlet.clone();
        let described = {
            let finite = is_finite(&self.shared.config);
            let first_limit = stall + if finite { FIRST_FRAME_OF_FILE } else { FIRST_FRAME };
            tokio::select! {
                biased;
                () = outlet.first() => source.describe(),
                end = source.ended() => {
                    // A short file may have ended before we looked.
                    if outlet.has_offered() {
                        self.went_live(&source.describe());
                        *live_since = Some(Instant::now());
                    }
                    return end;
                }
                () = sleep(first_limit) => return diagnose::no_first_frame(&self.shared.config, first_limit),
            }
        };
        *live_since = Some(Instant::now());
        self.went_live(&described);
        loop {
            let left = stall.saturating_sub(outlet.idle());
            if left.is_zero() {
                return stalled(&self.shared.config, stall);
            }
            tokio::select! {
                biased;
                end = source.ended() => return end,
                // Never busy: the idle time is only known to a millisecond.
                () = sleep(left.max(Duration::from_millis(10))) => {}
            }
        }
    }

    fn finish(&mut self, end: End) -> Result<(), String> {
        if end.reason == RestartReason::EndOfStream {
            self.count_restart();
            return Ok(());
        }
        self.went_down(&end);
        Err(end.text)
    }

    fn went_live(&mut self, what: &str) {
        match self.down.take() {
            Some((since, _)) => info!(outage_s = since.elapsed().as_secs_f32(), "live again: {what}"),
            None if self.status.borrow().state != State::Live => info!("live: {what}"),
            None => {}
        }
        self.set(State::Live, None);
    }

    /// Notes an outage; logs when it begins and when its nature changes, not at every attempt.
    fn went_down(&mut self, end: &End) {
        let since = self.down.map_or_else(Instant::now, |(since, _)| since);
        if self.down.is_none_or(|(_, reason)| reason != end.reason) {
            warn!(reason = end.reason.name(), "down: {}", end.text);
        }
        self.down = Some((since, end.reason));
        let state = if end.reason == RestartReason::Stalled { State::Stalled } else { State::Failed };
        self.set(state, Some(end.text.clone()));
    }

    fn count_restart(&self) {
        let restarts = self.shared.restarts.total();
        self.status.send_modify(|status| status.restarts = restarts);
    }

    fn set(&self, state: State, reason: Option<String>) {
        let restarts = self.shared.restarts.total();
        self.status.send_if_modified(|status| {
            let changed = status.state != state || status.reason != reason;
            if status.state != state {
                status.since = SystemTime::now();
            }
            *status = CameraStatus { state, since: status.since, reason, restarts };
            changed
        });
    }
}

/// The next wait, jittered: it grows to the longest that the reason allows, or is that from the first.
fn wait(backoff: &mut Backoff, reason: RestartReason, unit: f32) -> Duration {
    let (grown, most) = (backoff.next(unit), reason.longest_wait());
    if grown <= most && !reason.needs_a_person() { grown } else { most.mul_f32(0.5 + 0.5 * unit.clamp(0.0, 1.0)) }
}

fn stalled(config: &CameraConfig, limit: Duration) -> End {
    let text = format!("{}: no picture for {} s; connecting anew", public_uri(&config.uri), limit.as_secs_f32());
    End::new(RestartReason::Stalled, text)
}

/// Resolves when the camera is stopped or nobody holds it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the camera was dropped.
    drop(stop.wait_for(|stop| *stop).await);
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
    };

    use super::*;
    use crate::{ingest::BoxFuture, types::CameraId};

    /// A camera that gives the same answer to everybody, and counts how often it was asked.
    struct Refuses(RestartReason, AtomicU32);

    impl Opener for Refuses {
        fn open<'a>(
            &'a self,
            _: &'a CameraConfig,
            _: Option<&'a Path>,
            _: Outlet,
        ) -> BoxFuture<'a, Result<Box<dyn Source>, End>> {
            self.1.fetch_add(1, SeqCst);
            let end = End::new(self.0, "no");
            Box::pin(async move { Err(end) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_camera_that_refuses_a_password_is_asked_rarely_from_the_first() {
        let options = Options {
            canvas: Size::new(32, 32),
            policy: Policy::Latest,
            restart: Restart::Forever,
            ready: Arc::default(),
            pipelines: None,
            decoder_threads: 1,
        };
        for (reason, asked) in [
            (RestartReason::Unauthorized, [1..=1u32, 4..=7]),
            (RestartReason::Tls, [1..=1, 4..=7]),
            (RestartReason::Unreachable, [5..=20, 30..=70]),
        ] {
            let opener = Arc::new(Refuses(reason, AtomicU32::new(0)));
            let config = CameraConfig::new(CameraId::new("gate").unwrap(), "rtsp://h/s");
            let camera = start(config, &options, Arc::clone(&opener) as Arc<dyn Opener>, Arc::default());
            for (seconds, asked) in [4, 26].into_iter().zip(asked) {
                sleep(Duration::from_secs(seconds)).await;
                let times = opener.1.load(SeqCst);
                assert!(asked.contains(&times), "{reason:?}: {times} times");
            }
            camera.stop().await;
        }
    }
}
