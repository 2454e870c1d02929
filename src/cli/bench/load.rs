//! One system under load: started, warmed up, watched for a while, stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};

use super::{CAMERA, Stage, cameras::Camera, name, neighbour::Neighbour, system::Measured};
use crate::{
    cli::{
        Failure,
        broker::{Broker, SEPARATOR},
    },
    http::process::Usage,
    types::lock,
};

/// How long a system may take until every camera's answers come: some load gigabytes of libraries first.
const START: Duration = Duration::from_mins(3);
const TICK: Duration = Duration::from_millis(100);
/// What a subscriber hears: groundd's topics and the other systems'.
const TOPICS: [&str; 2] = ["groundd/+/detections", "bench/+/detections"];

/// Everything around the system under test.
pub(super) struct World {
    pub(super) cameras: Vec<Camera>,
    pub(super) broker: Broker,
    heard: Arc<Mutex<Heard>>,
    listener: JoinHandle<()>,
    /// Processes of ours that the system under test causes work for.
    helpers: Vec<u32>,
}

#[derive(Default)]
struct Heard {
    /// Topics since the last clearing.
    topics: BTreeSet<String>,
    /// Lines as they came, while they are kept.
    lines: Vec<String>,
    keep: bool,
}

impl World {
    /// Listens from now on.
    pub(super) fn new(broker: Broker) -> Result<Self, Failure> {
        // %U is when the subscriber received it, in seconds with nanoseconds.
        let mut subscription = broker.subscribe(&TOPICS, &["%U", "%t", "%p"])?;
        let helpers = [broker.pid(), subscription.pid()].into_iter().flatten().collect();
        let heard = Arc::<Mutex<Heard>>::default();
        let listener = tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                while let Ok(Some(line)) = subscription.next().await {
                    let mut heard = lock(&heard);
                    if let Some(topic) = line.split(SEPARATOR).nth(1)
                        && !heard.topics.contains(topic)
                    {
                        heard.topics.insert(topic.to_owned());
                    }
                    if heard.keep {
                        heard.lines.push(line);
                    }
                }
            }
        });
        Ok(Self { cameras: Vec::new(), broker, heard, listener, helpers })
    }

    fn heard<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(&mut lock(&self.heard))
    }

    /// Processor seconds of everything here so far.
    fn cpu(&self) -> f64 {
        let cameras = self.cameras.iter().filter_map(Camera::pid);
        let helpers = self.helpers.iter().copied().chain(cameras).filter_map(|pid| Usage::of(pid).cpu);
        Usage::now().cpu.unwrap_or_default() + helpers.sum::<f64>()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// A system under test, and whatever it started: of `uv run x` the `x`. All of it ends with this.
struct Running {
    child: Child,
    /// Its process group, until that is killed.
    group: Option<Pid>,
}

impl Running {
    /// Starts a command that leads a process group of its own.
    fn start(mut command: Command) -> Result<Self, String> {
        let started = command.spawn();
        let child = started.map_err(|e| format!("cannot start {}: {e}", command.as_std().get_program().display()))?;
        let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(Self { child, group })
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // Nobody is left in it where all have ended by themselves.
            kill_process_group(group, Signal::KILL).ok();
        }
    }

    /// Ends it, and waits until it is gone.
    async fn end(mut self) {
        self.kill();
        // It may have ended already; either way it is gone afterwards.
        self.child.kill().await.ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` on the world's cameras, and one beside them whose answers do not count; `Err` says why there are no numbers.
pub(super) async fn measure(
    command: Command,
    world: &mut World,
    neighbour: Option<Neighbour>,
    stage: &Stage<'_>,
) -> Result<Measured, String> {
    world.heard(|heard| *heard = Heard::default());
    let mut system = Running::start(command)?;
    let measured = watch(&mut system.child, world, neighbour, stage).await;
    system.end().await;
    measured.map_err(|reason| match last_words(stage.folder) {
        Some(words) => format!("{reason}: {words}"),
        None => reason,
    })
}

async fn watch(
    child: &mut Child,
    world: &mut World,
    mut neighbour: Option<Neighbour>,
    stage: &Stage<'_>,
) -> Result<Measured, String> {
    let pid = child.id().ok_or("it ended at once")?;
    let (started, streams) = (Instant::now(), world.cameras.len() + usize::from(neighbour.is_some()));
    while world.heard(|heard| heard.topics.len()) < streams {
        alive(child)?;
        if started.elapsed() > START {
            let heard = world.heard(|heard| heard.topics.len());
            return Err(format!("after {} s answers came for {heard} of {streams} cameras", START.as_secs()));
        }
        tokio::time::sleep(TICK).await;
    }
    tokio::time::sleep(Duration::from_secs_f64(stage.args.warm_up)).await;
    let (began, began_at) = (Instant::now(), SystemTime::now());
    let (cpu, world_cpu) = (Usage::of_tree(pid).cpu.unwrap_or_default(), world.cpu());
    world.heard(|heard| heard.keep = true);
    let mut rss = 0;
    while began.elapsed().as_secs_f64() < stage.args.seconds {
        rss = rss.max(Usage::of_tree(pid).resident.unwrap_or_default());
        if let Some(neighbour) = &mut neighbour {
            neighbour.act(stage).await?;
        }
        tokio::time::sleep(TICK * 5).await;
    }
    alive(child)?;
    if let Some(gone) = world.cameras.iter_mut().position(|camera| !camera.alive()) {
        return Err(format!("the server of {} ended meanwhile", name(gone)));
    }
    let (seconds, ended_at) = (began.elapsed().as_secs_f64(), SystemTime::now());
    let cpu = Usage::of_tree(pid).cpu.unwrap_or_default() - cpu;
    let world_cpu = world.cpu() - world_cpu;
    let lines = world.heard(|heard| {
        heard.keep = false;
        std::mem::take(&mut heard.lines)
    });
    let offered = world.cameras.iter().filter_map(|camera| camera.timeline.count(began_at, ended_at)).sum();
    let mut measured = Measured {
        seconds,
        offered,
        analysed: 0,
        queries: 0,
        unanswered: 0,
        cpu,
        rss,
        world_cpu,
        by_number: false,
        latencies: Vec::new(),
        stages: BTreeMap::new(),
    };
    lines
        .iter()
        .filter_map(|line| Message::parse(line))
        .for_each(|message| message.count(&world.cameras, &mut measured));
    Ok(measured)
}

fn alive(child: &mut Child) -> Result<(), String> {
    let ended = |status: ExitStatus| Err(format!("it ended by itself ({status})"));
    child.try_wait().ok().flatten().map_or(Ok(()), ended)
}

/// The last line of the newest log.
fn last_words(folder: &Path) -> Option<String> {
    let logs = fs::read_dir(folder).ok()?.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "log"));
    let newest = logs.max_by_key(|entry| entry.metadata().and_then(|m| m.modified()).ok())?;
    let text = String::from_utf8_lossy(&fs::read(newest.path()).ok()?).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.chars().take(200).collect())
}

/// One answer, as the subscriber got it.
struct Message {
    received: SystemTime,
    camera: usize,
    payload: Value,
}

impl Message {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, SEPARATOR);
        let received = SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(parts.next()?.parse().ok()?).ok()?;
        let topic: Vec<&str> = parts.next()?.split('/').collect();
        let camera = match topic[..] {
            ["groundd", camera, "detections"] => camera.strip_prefix(CAMERA)?,
            ["bench", number, "detections"] => number,
            _ => return None,
        };
        let camera = camera.parse().ok()?;
        Some(Self { received, camera, payload: serde_json::from_str(parts.next()?).ok()? })
    }

    /// Enters the message into what is counted.
    fn count(&self, cameras: &[Camera], measured: &mut Measured) {
        let Some(Camera { timeline, .. }) = cameras.get(self.camera) else { return };
        measured.analysed += 1;
        let statuses = self.payload["queries"].as_array().into_iter().flatten().map(|query| &query["status"]);
        for status in statuses {
            measured.queries += 1;
            measured.unanswered += usize::from(status != "ok");
        }
        // Other systems read the picture's number; groundd names the camera's own time.
        let sent = match self.payload["mark"].as_u64() {
            Some(mark) => {
                measured.by_number = true;
                timeline.sent(mark, self.received)
            }
            None => self.captured().and_then(|at| timeline.nearest(at)),
        };
        let Some(delay) = sent.and_then(|sent| self.received.duration_since(sent).ok()) else { return };
        let delay = delay.as_secs_f64() * 1e3;
        measured.latencies.push(delay);
        let time = |name: &str| self.payload["time"][name].as_f64();
        let (Some(decoded), Some(queued), Some(inferred), Some(age)) =
            (time("decoded_ms"), time("queued_ms"), time("inferred_ms"), time("age_ms"))
        else {
            return;
        };
        let rest = (age - decoded - queued - inferred).max(0.0);
        let stages = [
            ("arrive", rest),
            ("decode", decoded),
            ("queue", queued),
            ("infer", inferred),
            ("publish", (delay - age).max(0.0)),
        ];
        for (name, ms) in stages {
            measured.stages.entry(name).or_default().push(ms);
        }
    }

    /// The capture time, if the camera's own clock gave it.
    fn captured(&self) -> Option<SystemTime> {
        let time = &self.payload["time"];
        (time["clock"] == "ntp").then_some(())?;
        Some(OffsetDateTime::parse(time["captured"].as_str()?, &Rfc3339).ok()?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds_are_understood_and_others_are_not() {
        let line = |topic: &str| format!("1700000000.250000000{SEPARATOR}{topic}{SEPARATOR}{{\"mark\":3}}");
        let own = Message::parse(&line("groundd/cam2/detections")).unwrap();
        assert_eq!((own.camera, own.payload["mark"].as_u64()), (2, Some(3)));
        let since = own.received.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!((since.as_secs_f64() - 1_700_000_000.25).abs() < 1e-6);
        assert_eq!(Message::parse(&line("bench/1/detections")).unwrap().camera, 1);
        assert!(Message::parse(&line("groundd/cam2/status")).is_none());
        assert!(Message::parse("nonsense").is_none());
    }
}
