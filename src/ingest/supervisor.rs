//! Keeps one camera going: opens it, watches it, tears it down, tries again. The only place that retries.

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{Instrument, error, info, info_span, warn};

use super::{
    CameraConfig, CameraStatus, End, Opener, Outlet, Policy, RestartReason, Restarts, Slot, Source, State, diagnose,
    patience::{FIRST_WAIT, PERSON, Patience},
    public_uri,
    secrets::Access,
    source::{is_finite, is_http},
};
use crate::types::{Canvases, Ledger, lock};

/// Opening and the first keyframe may take this long, besides the camera's own stall time.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// The same for a file. GStreamer's decodebin sometimes swallows the error of a damaged file, so this is not rare.
const FIRST_FRAME_OF_FILE: Duration = Duration::from_secs(5);
/// A file may show nothing for this long in the middle: recorders leave out what does not move.
const FILE_GAP: Duration = Duration::from_mins(1);
/// What is told of a camera on which this program itself went wrong.
const FAULT: &str = "internal fault; please report this";
/// A camera that was live this long has recovered: the next fault is a new one.
const RECOVERED: Duration = Duration::from_secs(5);
/// What ends sooner than this on HTTP is a still picture, as many cameras have beside their stream; it is asked for so often.
const STILL: Duration = Duration::from_secs(1);
/// Longest wait for the task when a camera is stopped: one teardown, and some.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What is common to the cameras of one daemon.
#[derive(Clone)]
pub struct Options {
    /// The model's canvases.
    pub canvases: Canvases,
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
    let (id, canvases, policy) = (config.id.clone(), options.canvases.clone(), options.policy);
    let outlet = Outlet::new(id, canvases, policy, config.fps, Arc::clone(&slot), Arc::clone(&ledger))
        .with_decoder_threads(options.decoder_threads)
        .of_address(&config.uri);
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
        gives_stills: false,
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
        lock(&self.shared.ended).clone()
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
    /// Whether it was told that this is no stream.
    gives_stills: bool,
}

/// A user name and a password, as far as there are any.
type Credentials = Option<(Option<String>, Option<String>)>;

/// One connection, finished.
struct Run {
    end: End,
    /// How long it was live; `None` if it never was.
    live: Option<Duration>,
    whole: Duration,
}

impl Supervisor {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let result = loop {
            // What it uses is used on: plain values, each changed in one step.
            if let Ok(result) = AssertUnwindSafe(self.retry(&mut stop)).catch_unwind().await {
                break result;
            }
            self.broke();
            if self.plays_once() {
                break Err(FAULT.to_owned());
            }
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break Ok(()),
                () = sleep(PERSON) => {}
            }
        };
        self.outlet.retire();
        *lock(&self.shared.ended) = Some(result);
        self.shared.slot.close();
    }

    /// Connects until stopped, or once.
    async fn retry(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), String> {
        let mut patience = Patience::new();
        loop {
            let credentials = self.credentials();
            let Some(run) = self.run_once(stop).await else { return Ok(()) };
            self.shared.restarts.count(run.end.reason);
            if self.plays_once() {
                return self.finish(run.end);
            }
            let played = run.live.filter(|_| run.end.reason == RestartReason::EndOfStream);
            let wait = if played.is_some() && is_finite(&self.shared.config) {
                self.count_restart();
                FIRST_WAIT.saturating_sub(run.whole)
            } else if played.is_some_and(|live| live < STILL) && is_http(&self.shared.config) {
                if !std::mem::replace(&mut self.gives_stills, true) {
                    info!(
                        "this address gives a single picture, and is asked for one a second; its stream would be better"
                    );
                }
                self.count_restart();
                STILL.saturating_sub(run.whole)
            } else {
                if run.live.is_some_and(|l| l >= RECOVERED) {
                    patience.recovered();
                }
                self.went_down(&run.end);
                patience.after(run.end.reason, rand::random())
            };
            tokio::select! {
                biased;
                () = stopped(stop) => return Ok(()),
                () = self.pause(wait, &credentials) => {}
            }
        }
    }

    /// Waits, but no longer than until there are other credentials than those that an attempt was made with.
    async fn pause(&self, wait: Duration, credentials: &Credentials) {
        let until = Instant::now() + wait;
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && (wait <= PERSON || self.credentials() == *credentials)
        {
            sleep(left.min(PERSON)).await;
        }
    }

    /// As the next attempt would use them; `None` where they cannot be read.
    fn credentials(&self) -> Credentials {
        Access::of(&self.shared.config).ok().map(|access| (access.user, access.password))
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
        let ended = tokio::select! {
            biased;
            () = stopped(stop) => None,
            ended = self.watch(source.as_mut()) => Some(ended),
        };
        if ended.as_ref().is_none_or(|(end, _)| end.reason != RestartReason::EndOfStream) {
            self.outlet.retire();
        }
        let run = match ended {
            None => None,
            Some((end, live)) => tokio::select! {
                biased;
                () = stopped(stop) => None,
                end = source.explain(end) => Some(Run { end, live, whole: began.elapsed() }),
            },
        };
        source.stop().await;
        run
    }

    /// Waits for the end of a connection: its own, or ours when it gives nothing. Also says how long it was live, if it was.
    async fn watch(&mut self, source: &mut dyn Source) -> (End, Option<Duration>) {
        let (shared, outlet) = (Arc::clone(&self.shared), self.outlet.clone());
        let config = &shared.config;
        let stall = Duration::try_from_secs_f32(config.stall_seconds).unwrap_or(FIRST_FRAME);
        let finite = is_finite(config);
        let first_limit = stall + if finite { FIRST_FRAME_OF_FILE } else { FIRST_FRAME };
        tokio::select! {
            biased;
            () = outlet.first() => {}
            end = source.ended() => {
                if !outlet.has_offered() {
                    return (end, None);
                }
                // A short file may have ended before we looked.
                self.went_live(&source.describe());
                return (end, Some(Duration::ZERO));
            }
            () = sleep(first_limit) => return (diagnose::no_first_frame(config, first_limit), None),
        }
        self.went_live(&source.describe());
        let since = Instant::now();
        let stall = if finite { stall.max(FILE_GAP) } else { stall };
        (last(source, &outlet, config, stall).await, Some(since.elapsed()))
    }

    /// Whether its end is for good.
    fn plays_once(&self) -> bool {
        self.options.restart == Restart::Once && is_finite(&self.shared.config)
    }

    /// This program went wrong on the camera. Its source was dropped on the way, which tears it down.
    fn broke(&mut self) {
        error!("{FAULT}");
        self.outlet.retire();
        self.shared.restarts.count(RestartReason::Stream);
        self.down.get_or_insert((Instant::now(), RestartReason::Stream));
        self.set(State::Failed, Some(FAULT.to_owned()));
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

/// Waits for the end of a live connection, or until no picture came for `stall`.
async fn last(source: &mut dyn Source, outlet: &Outlet, config: &CameraConfig, stall: Duration) -> End {
    loop {
        let left = stall.saturating_sub(outlet.idle());
        if left.is_zero() {
            return stalled(config, stall);
        }
        tokio::select! {
            biased;
            end = source.ended() => return end,
            // Never busy: the idle time is only known to a millisecond.
            () = sleep(left.max(Duration::from_millis(10))) => {}
        }
    }
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
mod tests;
