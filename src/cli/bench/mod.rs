//! `groundd bench`: how many frames, how fast, at what cost, beside the bare engine and other systems.
//!
//! ```text
//! cameras (processes, number their pictures) -> system under test (a process) -> broker -> subscriber (here)
//!                         when was it sent? --------------------------------------------- when did it come?
//! ```
//!
//! Every system gets the same streams in turn, and all of them are seen from the same place. What the system costs is read
//! from its process; what decoding and the engine alone cost on this machine is measured in the same run.

mod bare;
mod cameras;
mod load;
mod neighbour;
mod plot;
mod report;
mod stop;
mod system;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use indicatif::ProgressBar;
use tokio::{process::Command, runtime::Runtime};

pub(super) use self::cameras::play;
use self::{
    bare::Yardstick,
    cameras::Camera,
    load::World,
    neighbour::{Habit, Neighbour},
    report::Report,
    stop::Stop,
    system::{Case, Measured, System},
};
use super::{Exit, Failure, args, broker::Broker, clip, model_folders, outputs, progress, runtime};
use crate::ingest::{bare::Bare as Clip, mark};

/// Cameras are called this and their number.
const CAMERA: &str = "cam";
/// Queries that groundd answers if none are named; the other systems answer none.
const QUERIES: [&str; 2] = ["person", "red car"];
/// How long tasks may take to let go of their processes at the end.
const GOODBYE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &args::Bench) -> Result<(), Failure> {
    outputs::check(&[("--json", args.json.as_deref()), ("--plot", args.plot.as_deref())])?;
    let folder = outputs::temporary("groundd-bench-")?;
    let runtime = runtime()?;
    let report = everything(args, folder.path(), &runtime);
    // Processes end when what holds them is dropped, also where a signal cut the work short: that is waited for.
    runtime.shutdown_timeout(GOODBYE);
    report?.tell(args)
}

/// Measures all that was asked for, with files in `folder`.
fn everything(args: &args::Bench, folder: &Path, runtime: &Runtime) -> Result<Report, Failure> {
    let stop = runtime.block_on(async { Stop::listen() })?;
    let spinner = progress::spinner("numbering the clip's pictures");
    let film = folder.join("numbered.mkv");
    let clip = numbered(args, &film)?;
    stop.check()?;
    spinner.set_message("measuring the engine and the decoder alone");
    let rule = Yardstick::new(&clip, &args.model.config(), &model_folders(), args.seconds, &stop)?;
    let (file, canvases) = (rule.file().to_owned(), rule.canvases());
    let stage = Stage { args, file: &file, folder, film: &film, clip: &clip };
    let measured = runtime.block_on(stop.unless(async {
        let world = World::new(Broker::start(stage.folder).await?)?;
        let mut bench = Bench { stage, world, rule, stop: &stop, spinner: &spinner };
        let (cases, beside) = (bench.cases().await?, bench.beside().await?);
        Ok((bench.rule.all(), cases, beside))
    }));
    spinner.finish_and_clear();
    let (bare, cases, beside) = measured?;
    Ok(Report { seconds: args.seconds, queries: queries(args), file, canvases, bare, cases, beside })
}

/// The clip with a number in every picture, as a file at `film` and in memory.
fn numbered(args: &args::Bench, film: &Path) -> Result<Clip, Failure> {
    let path = args.clip.clone().map_or_else(clip, Ok)?;
    mark::number(&path, film)?;
    let clip = Clip::load(film)?;
    let (pictures, most, path) = (clip.timeline().pictures(), mark::NUMBERS, path.display());
    if pictures > most {
        let message = format!(
            "--clip {path}: it has {pictures} pictures, and no more than {most} can be told apart; take a part of it, as \
             `ffmpeg -i {path} -frames:v {most} part.mp4` makes one"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(clip)
}

/// What all cases have in common.
struct Stage<'a> {
    args: &'a args::Bench,
    /// The file that sees every picture.
    file: &'a Path,
    folder: &'a Path,
    /// The clip with numbers, as a file and in memory.
    film: &'a Path,
    clip: &'a Clip,
}

fn queries(args: &args::Bench) -> Vec<String> {
    if args.queries.is_empty() { QUERIES.map(str::to_owned).to_vec() } else { args.queries.clone() }
}

/// What camera `i` is called.
fn name(i: usize) -> String {
    format!("{CAMERA}{i}")
}

/// Everything that a case needs, and what is measured before and after it.
struct Bench<'a> {
    stage: Stage<'a>,
    world: World,
    rule: Yardstick<'a>,
    stop: &'a Stop,
    spinner: &'a ProgressBar,
}

impl Bench<'_> {
    /// Every system on every number of cameras.
    async fn cases(&mut self) -> Result<Vec<Case>, Failure> {
        let mut cases = Vec::new();
        for streams in self.stage.args.streams.clone() {
            for system in systems(&self.stage) {
                let what = format!("{} on {streams} cameras", system.name());
                cases.push(self.case(what, &system, streams, None).await?);
            }
        }
        Ok(cases)
    }

    /// One camera beside another with each habit, if that is wanted; the numbers are the first camera's.
    async fn beside(&mut self) -> Result<Vec<(Habit, Case)>, Failure> {
        let mut cases = Vec::new();
        let isolation = self.stage.args.isolation;
        for habit in Habit::ALL.into_iter().filter(|_| isolation) {
            let what = format!("groundd on a camera beside one that {}", habit.name());
            cases.push((habit, self.case(what, &asking_always(&self.stage), 1, Some(habit)).await?));
        }
        Ok(cases)
    }

    /// One case. A system that fails is a row that says so, not the end.
    async fn case(
        &mut self,
        what: String,
        system: &System,
        streams: usize,
        beside: Option<Habit>,
    ) -> Result<Case, Failure> {
        self.spinner.set_message(what);
        let measured = measure(&self.stage, system, streams, beside, &mut self.world).await;
        self.world.cameras.clear();
        let ruled = if measured.is_ok() {
            self.spinner.set_message("measuring the engine and the decoder alone");
            self.rule.measure(self.stop)
        } else {
            Ok(())
        };
        let mut case = Case::new(system, streams);
        case.fill(measured, self.rule.around(), self.stage.clip.timeline().length());
        // Told as they come, so that what ends this process early does not take them along.
        case.log(beside.is_none());
        ruled.map(|()| case)
    }
}

/// A system on cameras of its own, and one beside them whose answers do not count.
async fn measure(
    stage: &Stage<'_>,
    system: &System,
    streams: usize,
    beside: Option<Habit>,
    world: &mut World,
) -> Result<Measured, String> {
    for _ in 0..streams {
        world.cameras.push(Camera::start(stage.film, stage.clip).await?);
    }
    let neighbour = match beside {
        Some(habit) => Some(Neighbour::start(habit, stage).await?),
        None => None,
    };
    let beside = neighbour.as_ref().and_then(Neighbour::url);
    let urls: Vec<String> =
        world.cameras.iter().map(|camera| camera.url.as_str()).chain(beside).map(str::to_owned).collect();
    let command = system.command(&urls, world, stage.folder)?;
    load::measure(command, world, neighbour, stage).await
}

fn systems(stage: &Stage<'_>) -> Vec<System> {
    let args = stage.args;
    let onnx = args.onnx.clone().unwrap_or_else(|| stage.file.to_owned());
    let peers = args.peers.iter().map(|(name, command)| System::Peer {
        name: name.clone(),
        command: command.clone(),
        onnx: onnx.clone(),
        threads: args.model.threads,
    });
    let absent = args.absent.iter().map(|(name, reason)| System::Absent { name: name.clone(), reason: reason.clone() });
    [groundd("groundd", true, args), asking_always(stage)].into_iter().chain(peers).chain(absent).collect()
}

fn asking_always(stage: &Stage<'_>) -> System {
    groundd("groundd, asking always", false, stage.args)
}

fn groundd(name: &'static str, once: bool, args: &args::Bench) -> System {
    System::Groundd { name, config: args.model.config(), queries: queries(args), fps: args.fps, once }
}

/// A process whose output goes to `log`; it ends with its handle. It leads a group of its own, by which whatever it starts can
/// be ended as well, and which a terminal's Ctrl-C does not reach.
fn process(program: &Path, log: PathBuf) -> std::io::Result<Command> {
    let log = std::fs::File::create(log)?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).process_group(0);
    Ok(command)
}
