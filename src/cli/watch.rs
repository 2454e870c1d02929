//! `groundd watch`: cameras and words on the command line, JSON lines on stdout.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    time::Duration,
};

use indicatif::ProgressBar;
use tracing::{info, warn};

use super::{Exit, Failure, args, block_on, model_folders, no_signals, progress};
use crate::{
    config::QueryConfig,
    daemon::{Pipeline, PipelineError, Plan, Revisions, Sinks, farewell, new_epoch},
    ground::{self, AskConfig, Grounder, methods::zoom::ZoomConfig},
    ingest::{self, CameraConfig},
    login::Login,
    publish::{self, MqttConfig, Password, Publisher},
    schedule::ScheduleConfig,
    track::TrackConfig,
    types::{CameraId, Pulse, QueryId},
};

/// How often progress is shown and cameras that never came up are looked for.
const TICK: Duration = Duration::from_millis(200);
/// A camera or a broker that has not answered by then is reported, and the command ends.
const GIVE_UP: Duration = Duration::from_secs(15);
const GOODBYE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &args::Watch) -> Result<(), Failure> {
    let cameras = cameras(args)?;
    let queries = queries(args)?;
    if let Some(url) = &args.broker {
        publish::check(&broker(url)).map_err(Failure::of_arguments)?;
    }
    ingest::init()?;
    for camera in cameras.values() {
        ingest::check(camera, None).map_err(Failure::of_arguments)?;
    }
    let spinner = progress::spinner("loading the model");
    let grounder = load(args, &cameras)?;
    spinner.finish_and_clear();
    let checker = grounder.checker();
    for query in Revisions::default().apply(&queries).iter() {
        if let Err(reason) = checker(query) {
            warn!(query = query.text, "{reason}");
        }
    }
    block_on(watch(args, cameras, &queries, grounder))
}

/// Those of which each picture is analysed by its own time.
fn films(args: &args::Watch, cameras: &BTreeMap<CameraId, CameraConfig>) -> BTreeSet<CameraId> {
    let films = cameras.iter().filter(|(_, camera)| args.every_frame && ingest::is_finite(camera));
    films.map(|(id, _)| id.clone()).collect()
}

fn load(args: &args::Watch, cameras: &BTreeMap<CameraId, CameraConfig>) -> Result<Box<dyn Grounder>, Failure> {
    let mut config = args.model.config();
    if args.every_frame {
        // A file's answers must not depend on how fast the machine is; a camera's time is the clock's, and may begin anew.
        let all = films(args, cameras).len() == cameras.len();
        config.zoom.milliseconds = if all { ZoomConfig::TIMELESS } else { ZoomConfig::PATIENT };
    }
    // One after the other, a file's pictures are looked at by one model.
    let most = if args.every_frame { 1 } else { usize::MAX };
    Ok(ground::load_team(&config, &model_folders(), most)?)
}

fn cameras(args: &args::Watch) -> Result<BTreeMap<CameraId, CameraConfig>, Failure> {
    let camera = |(i, uri): (usize, &String)| {
        let id = CameraId::new(&format!("cam{i}")).map_err(|e| Failure::of(Exit::Internal, &e))?;
        let mut config = CameraConfig::new(id.clone(), uri);
        #[expect(clippy::cast_possible_truncation, reason = "a frame rate")]
        let fps = args.fps.map(|fps| fps as f32);
        config.fps = fps;
        Ok((id, config))
    };
    args.uris.iter().enumerate().map(camera).collect()
}

/// The broker at `url`. There is no configuration to keep a login out of the command line, so the URL may have one. A service
/// of this machine may be at the same broker: it is not to be thrown out.
fn broker(url: &str) -> MqttConfig {
    let client_id = format!("{}-watch-{}", publish::default_client_id(), std::process::id());
    let mut config = MqttConfig { url: url.to_owned(), client_id: Some(client_id), ..MqttConfig::default() };
    let Login { address, user, password } = Login::of(url);
    if user.is_some() {
        (config.url, config.username, config.password) = (address, user, password.map(Password));
    }
    config
}

/// Queries named after their words, as in `red-car`, so that topics can be read.
fn queries(args: &args::Watch) -> Result<BTreeMap<QueryId, QueryConfig>, Failure> {
    let mut taken = BTreeSet::new();
    let query = |text: &String| {
        let id = unique(&slug(text), &mut taken);
        let id = QueryId::new(&id).map_err(|e| Failure::of(Exit::Internal, &e))?;
        Ok((id.clone(), QueryConfig { method: args.method, threshold: args.threshold, ..QueryConfig::new(id, text) }))
    };
    args.queries.iter().map(query).collect()
}

/// A text as a part of a name: letters, digits and hyphens.
pub(super) fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let slug: String = words.collect::<Vec<_>>().join("-").to_ascii_lowercase().chars().take(40).collect();
    if slug.is_empty() { "query".to_owned() } else { slug }
}

fn unique(slug: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{slug}-{n}"));
    let free = std::iter::once(slug.to_owned()).chain(numbered).find(|id| !taken.contains(id));
    let id = free.unwrap_or_default();
    taken.insert(id.clone());
    id
}

async fn watch(
    args: &args::Watch,
    cameras: BTreeMap<CameraId, CameraConfig>,
    queries: &BTreeMap<QueryId, QueryConfig>,
    mut grounder: Box<dyn Grounder>,
) -> Result<(), Failure> {
    if !args.every_frame {
        grounder.ask(&AskConfig::default(), false);
    }
    let publisher = match &args.broker {
        Some(url) => {
            // No will: `groundd/status` is the service's.
            Some(publish::connect(&broker(url), None, Pulse::new("publish"))?)
        }
        None => None,
    };
    let sinks = Sinks { publisher: publisher.clone(), hub: None, lines: Some(Box::new(print_line)) };
    let plan = Plan {
        every_frame: args.every_frame,
        films: films(args, &cameras),
        finite: true,
        staleness: Duration::from_millis(args.staleness_ms.unwrap_or(ScheduleConfig::default().staleness_ms)),
        max_batch: 0,
        track: TrackConfig::default(),
        snapshot_every: None,
        pipelines: None,
    };
    let mut pipeline = Pipeline::start(grounder, plan, sinks, Revisions::default().apply(queries), new_epoch());
    pipeline.set_cameras(&cameras).await;
    let spinner = progress::spinner("connecting");
    let ended = until_over(args, &pipeline, publisher.as_ref(), &spinner).await;
    spinner.finish_and_clear();
    let failures = pipeline.failures();
    let accounts = pipeline.accounts();
    let stopped = pipeline.stop().await.map_err(|error| {
        let exit = if matches!(error, PipelineError::Output(_)) { Exit::Unavailable } else { Exit::Internal };
        Failure::new(exit, error.to_string())
    });
    for (id, ledger) in &accounts {
        info!(camera = %id, decoded = ledger.decoded(), published = ledger.published(), "frames");
    }
    let told = match publisher {
        Some(publisher) => leave(publisher).await,
        None => Ok(()),
    };
    stopped?;
    ended?;
    told?;
    match failures.first() {
        Some((id, reason)) => Err(Failure::new(Exit::Unavailable, format!("camera {id}: {reason}"))),
        None => Ok(()),
    }
}

/// Leaves the broker; says what it never got.
async fn leave(publisher: Publisher) -> Result<(), Failure> {
    let reason = publisher.connection().borrow().reason.clone();
    let stats = publisher.close(GOODBYE).await;
    if stats.connects == 0 {
        return Err(never_published(reason));
    }
    if stats.dropped_live > 0 {
        warn!(frames = stats.dropped_live, "the broker did not take these in time; --every-frame waits for it");
    }
    Ok(())
}

fn never_published(reason: Option<String>) -> Failure {
    let reason = reason.unwrap_or_else(|| "there was no time to connect".to_owned());
    Failure::new(Exit::Unavailable, format!("the broker got nothing: {reason}"))
}

/// A broker that was never there after all this time will not come either.
fn still_awaited(publisher: &Publisher, waited: Duration) -> Result<(), Failure> {
    if waited <= GIVE_UP || publisher.stats().connects > 0 {
        return Ok(());
    }
    let reason = publisher.connection().borrow().reason.clone();
    Err(never_published(reason))
}

/// Whether every camera has shown something by the end of the time that was given.
fn all_came(pipeline: &Pipeline) -> Result<(), Failure> {
    for ((id, ledger), (_, status)) in pipeline.accounts().iter().zip(pipeline.statuses()) {
        if ledger.decoded() == 0 {
            let unknown = "no picture came within the time that --seconds gives; is it on? give it longer";
            let reason = status.reason.as_deref().unwrap_or(unknown);
            return Err(Failure::new(Exit::Unavailable, format!("camera {id}: {reason}")));
        }
    }
    Ok(())
}

/// Waits for the end of the files, the time, a signal, or a camera or a broker that does not come up at all.
async fn until_over(
    args: &args::Watch,
    pipeline: &Pipeline,
    publisher: Option<&Publisher>,
    spinner: &ProgressBar,
) -> Result<(), Failure> {
    let farewell = farewell().map_err(|e| no_signals(&e))?;
    let limit = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(limit, farewell);
    let started = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = &mut farewell => return Ok(()),
            () = pipeline.finished() => return Ok(()),
            () = &mut limit => return all_came(pipeline),
            _ = ticks.tick() => {}
        }
        let accounts = pipeline.accounts();
        for ((id, ledger), (_, status)) in accounts.iter().zip(pipeline.statuses()) {
            let hopeless = status.restarts > 0 || started.elapsed() > GIVE_UP;
            if let (0, true, Some(reason)) = (ledger.decoded(), hopeless, &status.reason) {
                return Err(Failure::new(Exit::Unavailable, format!("camera {id}: {reason}")));
            }
        }
        if let Some(publisher) = publisher {
            still_awaited(publisher, started.elapsed())?;
        }
        let published: u64 = accounts.iter().map(|(_, ledger)| ledger.published()).sum();
        let rate = published as f64 / started.elapsed().as_secs_f64().max(0.1);
        spinner.set_message(format!("{published} frames, {rate:.1} a second"));
    }
}

fn print_line(line: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leaves_the_brokers_url() {
        let config = broker("mqtt://me:p%40ss@host:1884");
        assert_eq!((config.url.as_str(), config.username.as_deref()), ("mqtt://host:1884", Some("me")));
        assert_eq!(config.password, Some(Password("p@ss".into())));
        assert!(!format!("{config:?}").contains("p@ss"));
        assert_eq!(broker("mqtt://host").username, None);
    }

    #[tokio::test]
    async fn a_broker_is_waited_for_only_so_long() {
        // Nobody listens on port 1, and nothing was tried yet.
        let publisher = publish::connect(&broker("mqtt://127.0.0.1:1"), None, Pulse::new("publish")).unwrap();
        assert!(still_awaited(&publisher, GIVE_UP).is_ok());
        let failure = still_awaited(&publisher, GIVE_UP + TICK).unwrap_err();
        assert!(failure.exit == Exit::Unavailable && failure.message.contains("the broker got nothing"), "{failure:?}");
    }

    #[test]
    fn query_ids_can_be_read_and_are_unique() {
        let mut taken = BTreeSet::new();
        assert_eq!(unique(&slug("Red car!"), &mut taken), "red-car");
        assert_eq!(unique(&slug("red CAR"), &mut taken), "red-car-2");
        assert_eq!(unique(&slug("红色汽车"), &mut taken), "query");
    }
}
