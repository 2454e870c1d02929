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
mod plot;
mod report;
mod system;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use indicatif::ProgressBar;
use tokio::process::Command;

pub(super) use self::cameras::play;
use self::{
    bare::Bare,
    cameras::Camera,
    load::World,
    report::Report,
    system::{Case, Measured, System},
};
use super::{Exit, Failure, args, broker::Broker, clip, model_folders, progress, runtime};
use crate::{
    ground::ModelConfig,
    ingest::{bare::Bare as Clip, mark},
};

/// Cameras are called this and their number.
const CAMERA: &str = "cam";
/// Queries that groundd answers if none are named; the other systems answer none.
const QUERIES: [&str; 2] = ["person", "red car"];

pub(super) fn run(args: &args::Bench) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("groundd-bench-").tempdir();
    let folder = folder.map_err(|e| Failure::new(Exit::Unavailable, format!("cannot make a temporary folder: {e}")))?;
    let spinner = progress::spinner("numbering the clip's pictures");
    let film = folder.path().join("numbered.mkv");
    mark::number(&args.clip.clone().map_or_else(clip, Ok)?, &film)?;
    let clip = Clip::load(&film)?;
    let model = model(args);
    spinner.set_message("measuring the engine and the decoder alone");
    let limit = Duration::from_secs_f64(args.seconds.min(5.0));
    let bare = Bare::measure(&clip, &model, &model_folders(), limit)?;
    let runtime = runtime()?;
    let stage = Stage { folder: folder.path(), film: &film, clip: &clip };
    let cases = runtime.block_on(cases(args, &stage, &bare, &spinner));
    runtime.shutdown_background();
    spinner.finish_and_clear();
    Report { seconds: args.seconds, queries: queries(args), bare, cases: cases? }.tell(args)
}

/// What all cases have in common.
struct Stage<'a> {
    folder: &'a Path,
    /// The clip with numbers, as a file and in memory.
    film: &'a Path,
    clip: &'a Clip,
}

fn model(args: &args::Bench) -> ModelConfig {
    ModelConfig { path: args.model.clone(), provider: args.provider, threads: args.threads, ..ModelConfig::default() }
}

fn queries(args: &args::Bench) -> Vec<String> {
    if args.queries.is_empty() { QUERIES.map(str::to_owned).to_vec() } else { args.queries.clone() }
}

/// What camera `i` is called.
fn name(i: usize) -> String {
    format!("{CAMERA}{i}")
}

/// Every system on every number of cameras. A system that fails is a row that says so, not the end.
async fn cases(
    args: &args::Bench,
    stage: &Stage<'_>,
    bare: &Bare,
    spinner: &ProgressBar,
) -> Result<Vec<Case>, Failure> {
    let mut world = World::new(Broker::start(stage.folder).await?)?;
    let mut cases = Vec::new();
    for streams in args.streams.iter().copied() {
        for system in systems(args, bare) {
            spinner.set_message(format!("{} on {streams} cameras", system.name()));
            let mut case = Case::new(&system, streams);
            case.fill(one(args, stage, &system, streams, &mut world).await, bare);
            world.cameras.clear();
            // Told as they come, so that what ends this process early does not take them along.
            case.log();
            cases.push(case);
        }
    }
    Ok(cases)
}

/// One case, with cameras of its own.
async fn one(
    args: &args::Bench,
    stage: &Stage<'_>,
    system: &System,
    streams: usize,
    world: &mut World,
) -> Result<Measured, String> {
    for _ in 0..streams {
        world.cameras.push(Camera::start(stage.film, stage.clip).await?);
    }
    let urls: Vec<String> = world.cameras.iter().map(|camera| camera.url.clone()).collect();
    let command = system.command(&urls, world, stage.folder)?;
    load::measure(command, world, args, stage.folder).await
}

fn systems(args: &args::Bench, bare: &Bare) -> Vec<System> {
    let own = [("groundd", true), ("groundd, asking always", false)].map(|(name, once)| System::Groundd {
        name,
        config: model(args),
        queries: queries(args),
        once,
    });
    let onnx = args.onnx.clone().unwrap_or_else(|| bare.file.clone());
    let peers = args.peers.iter().map(|(name, command)| System::Peer {
        name: name.clone(),
        command: command.clone(),
        onnx: onnx.clone(),
        threads: args.threads,
    });
    let absent = args.absent.iter().map(|(name, reason)| System::Absent { name: name.clone(), reason: reason.clone() });
    own.into_iter().chain(peers).chain(absent).collect()
}

/// A process whose output goes to `log`; it ends with its handle.
fn process(program: &Path, log: PathBuf) -> std::io::Result<Command> {
    let log = std::fs::File::create(log)?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    Ok(command)
}
