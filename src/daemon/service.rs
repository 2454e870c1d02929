//! `groundd run`: everything a service owes its host.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Pipeline, PipelineError, Plan, Revisions,
    board::{self, Board},
    new_epoch,
    signals::{Signals, Wanted},
    systemd,
    wishes::Wishes,
};
use crate::{
    config::{Config, ConfigError},
    ground::{self, GroundError, Grounder},
    http::{self, Hub},
    ingest::{self, CameraConfig},
    publish::{self, Connection, Order, Publisher, Target, Will},
    schedule,
    types::{CameraId, Pulse, QueryId, QuerySet},
};

const STATS_EVERY: Duration = Duration::from_secs(30);
/// This long after the first connection, what is still not told is no longer true: queries, cameras and entities of an
/// earlier start. Pictures are: the last match was what it was.
const SETTLED: Duration = Duration::from_secs(10);
const METRICS_EVERY: Duration = Duration::from_secs(1);
/// How long the broker may take to acknowledge the last messages.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why the service ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A camera, pipeline template or GStreamer itself cannot work.
    #[error(transparent)]
    Ingest(#[from] ingest::IngestError),
    /// The model or the runtime cannot work.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The broker's settings are wrong.
    #[error(transparent)]
    Publish(#[from] publish::PublishError),
    /// What sends to the broker ended by itself: a bug.
    #[error("an internal task failed: nothing is published any more; please report this")]
    Publisher,
    /// The HTTP address cannot be had.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// Something inside failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The host does not let us listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Everything of a running service that a reload or the end has to reach.
struct Service {
    config: Config,
    wishes: Wishes,
    revisions: Revisions,
    pipeline: Pipeline,
    board: Board,
    /// What an earlier start told, and this one does not, is taken back.
    tidy: bool,
}

/// Runs the configuration in `path` until `stop` or a signal ends it. Models are looked for in `models`.
pub async fn serve(path: &Path, models: Vec<PathBuf>, stop: CancellationToken) -> Result<(), ServiceError> {
    // Before anything that takes time: a signal in the midst of it is not the end then.
    let mut signals = Signals::new().map_err(ServiceError::Signals)?;
    let config = checked(path, &models)?;
    let listener = match config.http.listen {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let shutdown = CancellationToken::new();
    let _stop_helpers = shutdown.clone().drop_guard();
    let publishing = Pulse::new("publish");
    let publisher = publish::connect(&config.mqtt, Some(Will::status(&config.mqtt)?), publishing.clone())?;
    let unsaid = take_back(&publisher, &config);
    if config.mqtt.spool_dir.is_none() {
        info!("events wait in memory while the broker is away; `spool_dir` in [mqtt] keeps them across a restart");
    }
    let epoch = new_epoch();
    let hub = Hub::new(env!("CARGO_PKG_VERSION"), &epoch);
    for camera in config.cameras.keys() {
        // Whoever looks meanwhile is not told that there is none.
        hub.camera_status(camera, json!({"state": "connecting", "reason": "the model is being loaded"}));
    }
    if let Some(listener) = listener {
        show(listener, &config, &hub, &shutdown);
    }
    let (model, most) = (config.model.clone(), schedule::at_once(config.schedule.max_batch));
    let loading = tokio::task::spawn_blocking(move || ground::load_team(&model, &models, most));
    let mut grounder = tokio::select! {
        loaded = loading => loaded.map_err(PipelineError::from)??,
        () = ended_early(&mut signals, &stop) => {
            info!("stopping before the model is loaded");
            publisher.close(GOODBYE).await;
            return Ok(());
        }
    };
    grounder.ask(&config.ask, false);
    let board = Board::new(&config, &*grounder, publisher, unsaid, hub, epoch);
    let mut service = Service::start(config, grounder, board).await;
    let pulses: Vec<Pulse> = service.pipeline.pulses().into_iter().chain([publishing]).collect();
    service.board.watch_pulses(&pulses);
    tokio::spawn(systemd::watchdog(pulses, shutdown.clone()));
    systemd::ready(&service.summary());
    let worked = service.work(path, &mut signals, stop).await;
    systemd::stopping();
    info!("stopping");
    tokio::select! {
        biased;
        () = signals.stop() => {
            warn!("second signal: leaving at once");
            worked
        }
        ended = service.stop() => worked.and(ended.map_err(Into::into)),
    }
}

/// Reads the configuration. What can be refused is refused before the broker hears of this start, where the service that is meant may
/// run undisturbed.
fn checked(path: &Path, models: &[PathBuf]) -> Result<Config, ServiceError> {
    let config = Config::load(path)?;
    ingest::init()?;
    tell_what_cannot_work(config.cameras.values(), config.pipelines.as_deref());
    ground::find(&config.model.path, models)?;
    Ok(config)
}

/// Serves the live view until `shutdown`.
fn show(listener: TcpListener, config: &Config, hub: &Hub, shutdown: &CancellationToken) {
    // Port 0 is any that is free.
    let address = listener.local_addr().ok().or(config.http.listen);
    info!(url = address.map(|address| format!("http://{address}/")), "live view");
    let options = http::Options { hosts: config.http.hosts.clone(), ..Default::default() };
    tokio::spawn(http::serve(listener, hub.clone(), options, shutdown.clone().cancelled_owned()));
}

impl Service {
    async fn start(config: Config, grounder: Box<dyn Grounder>, board: Board) -> Self {
        let plan = Plan {
            every_frame: false,
            films: BTreeSet::new(),
            finite: false,
            staleness: Duration::from_millis(config.schedule.staleness_ms),
            max_batch: config.schedule.max_batch,
            track: config.track.clone(),
            snapshot_every: config.mqtt.snapshot_every(),
            pipelines: config.pipelines.clone(),
        };
        let pipeline = Pipeline::start(grounder, plan, board.sinks(), QuerySet::default(), board.epoch());
        let (mut wishes, revisions) = (Wishes::default(), Revisions::default());
        wishes.file(&config);
        let mut service = Self { config, wishes, revisions, pipeline, board, tidy: false };
        service.fulfil().await;
        service
    }

    /// Serves until a signal, `stop`, or the end of something that should not.
    async fn work(&mut self, path: &Path, signals: &mut Signals, stop: CancellationToken) -> Result<(), ServiceError> {
        let mut stats = tokio::time::interval(STATS_EVERY);
        let mut metrics = tokio::time::interval(METRICS_EVERY);
        let publisher = self.board.publisher.clone();
        let settled = settled(publisher.connection());
        tokio::pin!(settled);
        loop {
            tokio::select! {
                biased;
                wanted = signals.next() => match wanted {
                    Wanted::Stop => return Ok(()),
                    Wanted::Reload => self.reload(path).await,
                },
                () = stop.cancelled() => return Ok(()),
                ended = ended_within(self.pipeline.finished(), &publisher) => return ended,
                orders = publisher.orders() => self.obey(orders).await,
                () = &mut settled, if !self.tidy => {
                    self.tidy = true;
                    let queries = self.revisions.apply(&self.wishes.queries());
                    self.take_back(&queries);
                }
                _ = stats.tick() => self.board.stats(&self.pipeline.accounts()),
                _ = metrics.tick() => self.board.metrics(&self.pipeline.accounts()),
            }
        }
    }

    fn summary(&self) -> String {
        format!("{} cameras, {} queries", self.wishes.cameras().len(), self.wishes.queries().len())
    }

    /// Applies the file's cameras and queries; keeps everything as it is if the file is wrong.
    async fn reload(&mut self, path: &Path) {
        systemd::reloading();
        match self.reloadable(path) {
            Err(error) => error!(%error, "the configuration was not reloaded; the old one stays in force"),
            Ok(new) => self.apply(new).await,
        }
        systemd::ready(&self.summary());
    }

    fn reloadable(&self, path: &Path) -> Result<Config, ConfigError> {
        let new = Config::load(path)?;
        // Before cameras are checked: one may need what is not in force yet.
        for table in fixed_tables_changed(&self.config, &new) {
            warn!(table, "this table changed, but takes effect only after a restart");
        }
        let changed = new.cameras.values().filter(|camera| self.config.cameras.get(&camera.id) != Some(*camera));
        tell_what_cannot_work(changed, self.config.pipelines.as_deref());
        Ok(new)
    }

    async fn apply(&mut self, new: Config) {
        self.wishes.file(&new);
        self.config.cameras = new.cameras;
        self.config.queries = new.queries;
        self.fulfil().await;
        info!(summary = self.summary(), "reloaded");
    }

    /// Takes messages on set topics.
    async fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            let (target, removed) = (order.target.clone(), order.wish == Ok(None));
            let pipelines = self.config.pipelines.as_deref();
            let outcome = self.wishes.take(order, |camera| ingest::check(camera, pipelines).map_err(|e| e.to_string()));
            let (kind, id) = match &target {
                Target::Query(id) => ("query", id.as_str()),
                Target::Camera(id) => ("camera", id.as_str()),
            };
            match outcome {
                // One that was never set is given back by whoever makes sure.
                Ok(()) if removed => info!("{kind} `{id}` is as the file says, by a message"),
                Ok(()) => info!("{kind} `{id}` was set by a message"),
                Err(reason) => warn!("{kind} `{id}`: a message was not obeyed: {reason}"),
            }
        }
        self.fulfil().await;
    }

    /// Makes true what is wanted; what did not change is not touched.
    async fn fulfil(&mut self) {
        let queries = self.revisions.apply(&self.wishes.queries());
        self.board.begin(&queries, &self.wishes.cameras());
        // First of all: what is told to be gone, and is not counted any more, must not be answered after that.
        self.pipeline.set_queries(queries.without(&self.wishes.paused()));
        self.board.tell(&queries, &self.wishes);
        self.pipeline.set_cameras(&self.wishes.cameras()).await;
        if self.tidy {
            self.take_back(&queries);
        }
    }

    /// Takes back what an earlier start told and this one does not, but for pictures of what is still asked.
    fn take_back(&self, queries: &QuerySet) {
        let asked = queries.without(&self.wishes.paused());
        let pictures = self.board.pictures(&asked, &self.wishes);
        self.board.publisher.take_back(|topic| pictures.contains(topic));
    }

    /// Ends the flow in its own order; the last statistics show every frame settled.
    async fn stop(mut self) -> Result<(), PipelineError> {
        let accounts = self.pipeline.accounts();
        let ended = self.pipeline.stop().await;
        self.board.stats(&accounts);
        self.board.publisher.close(GOODBYE).await;
        ended
    }
}

/// One camera that cannot work must not keep the others from being watched; its status says the same.
fn tell_what_cannot_work<'a>(cameras: impl Iterator<Item = &'a CameraConfig>, pipelines: Option<&Path>) {
    for camera in cameras {
        if let Err(error) = ingest::check(camera, pipelines) {
            error!(%error, "this camera cannot work");
        }
    }
}

/// Takes back what an earlier start may have told, and left when it was killed, of what was there a moment ago: until the model is
/// loaded and a camera is there, and for ever if it is not, it would pass for this one's word as soon as this one is `online`. Returns
/// of which cameras and queries of the file.
fn take_back(publisher: &Publisher, config: &Config) -> BTreeSet<(CameraId, QueryId)> {
    let topics = publisher.topics();
    // Of what was removed since, or was set by a message and will be again.
    publisher.take_back(|topic| !topics.is_of_now(topic));
    for camera in config.cameras.keys() {
        publisher.state(topics.camera_status(camera), Bytes::new());
    }
    let asked = board::covered(&Revisions::default().apply(&config.queries), &config.cameras);
    for (camera, query) in &asked {
        board::unsay(publisher, camera, query);
    }
    asked
}

/// Waits for what ends by itself: the pipeline, which says why when it is stopped, or the publisher.
async fn ended_within(pipeline: impl Future<Output = ()>, publisher: &Publisher) -> Result<(), ServiceError> {
    tokio::select! {
        () = pipeline => Ok(()),
        () = publisher.finished() => Err(ServiceError::Publisher),
    }
}

/// Waits for a signal to stop, or `stop`.
async fn ended_early(signals: &mut Signals, stop: &CancellationToken) {
    tokio::select! {
        () = signals.stop() => {}
        () = stop.cancelled() => {}
    }
}

/// Resolves when all that the broker keeps for us must have come.
async fn settled(mut connection: watch::Receiver<Connection>) {
    // An error means that the publisher is gone; then there is nothing to take back either.
    while let Ok(reconnects) = connection.wait_for(|connection| connection.up).await.map(|up| up.reconnects) {
        tokio::time::sleep(SETTLED).await;
        // A connection that broke meanwhile may not have brought all.
        let is_same = |connection: &Connection| connection.up && connection.reconnects == reconnects;
        if is_same(&connection.borrow()) {
            return;
        }
    }
}

/// Tables that a reload cannot change, where they differ.
fn fixed_tables_changed(old: &Config, new: &Config) -> Vec<&'static str> {
    let tables = [
        ("[model]", old.model != new.model),
        ("[mqtt]", old.mqtt != new.mqtt),
        ("[http]", old.http != new.http),
        ("[schedule]", old.schedule != new.schedule),
        ("[ask]", old.ask != new.ask),
        ("[track]", old.track != new.track),
        ("[ingest]", old.pipelines != new.pipelines),
    ];
    tables.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::MqttConfig;

    #[tokio::test]
    async fn a_publisher_that_ends_by_itself_is_the_end_of_the_service() {
        let broker = MqttConfig { url: "mqtt://127.0.0.1:1".into(), ..MqttConfig::default() };
        let publisher = publish::connect(&broker, None, Pulse::new("publish")).unwrap();
        let mut ended = Box::pin(ended_within(std::future::pending(), &publisher));
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut ended).await.is_err());
        publisher.break_down();
        assert!(matches!(ended.await, Err(ServiceError::Publisher)));
    }
}
