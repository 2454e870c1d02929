//! `groundd bench`: how many frames, how fast, at what cost, beside the bare engine and other systems.
//!
//! ```text
//! RTSP server (here, numbers its pictures) -> system under test (a process) -> broker -> subscriber (here)
//!                      when was it sent? ---------------------------------------------- when did it come?
//! ```
//!
//! Every system gets the same streams in turn, and all of them are seen from the same place. What the system costs is read
//! from its process; what decoding and the engine alone cost on this machine is measured in the same run.

mod bare;
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

use self::{
    bare::Bare,
    load::World,
    report::Report,
    system::{Case, System},
};
use super::{Exit, Failure, args, broker::Broker, clip, model_folders, progress, runtime};
use crate::{
    ground::ModelConfig,
    ingest::{self, RtspServer, RtspServerOptions},
};

/// Queries that groundd answers if none are named; the other systems answer none.
const QUERIES: [&str; 2] = ["person", "red car"];

pub(super) fn run(args: &args::Bench) -> Result<(), Failure> {
    ingest::init()?;
    let folder = tempfile::Builder::new().prefix("groundd-bench-").tempdir();
    let folder = folder.map_err(|e| Failure::new(Exit::Unavailable, format!("cannot make a temporary folder: {e}")))?;
    let spinner = progress::spinner("numbering the clip's pictures");
    let most = args.streams.iter().copied().max().unwrap_or(1);
    let clip = args.clip.clone().map_or_else(clip, Ok)?;
    let mounts = (0..most).map(mount).collect();
    let server = RtspServer::start(RtspServerOptions { clip, mounts, marked: true, ..Default::default() })?;
    let model = model(args);
    spinner.set_message("measuring the engine and the decoder alone");
    let limit = Duration::from_secs_f64(args.seconds.min(5.0));
    let bare = Bare::measure(&server, &model, &model_folders(), limit)?;
    let runtime = runtime()?;
    let cases = runtime.block_on(cases(args, server, &bare, folder.path(), &spinner));
    runtime.shutdown_background();
    spinner.finish_and_clear();
    Report { seconds: args.seconds, queries: queries(args), bare, cases: cases? }.tell(args)
}

fn model(args: &args::Bench) -> ModelConfig {
    ModelConfig { path: args.model.clone(), provider: args.provider, threads: args.threads, ..ModelConfig::default() }
}

fn queries(args: &args::Bench) -> Vec<String> {
    if args.queries.is_empty() { QUERIES.map(str::to_owned).to_vec() } else { args.queries.clone() }
}

/// Where camera `i` is played.
fn mount(i: usize) -> String {
    format!("cam{i}")
}

/// Every system on every number of cameras. A system that fails is a row that says so, not the end.
async fn cases(
    args: &args::Bench,
    server: RtspServer,
    bare: &Bare,
    folder: &Path,
    spinner: &ProgressBar,
) -> Result<Vec<Case>, Failure> {
    let broker = Broker::start(folder).await?;
    let world = World::new(server, broker)?;
    let mut cases = Vec::new();
    for streams in args.streams.iter().copied() {
        for system in systems(args, bare) {
            spinner.set_message(format!("{} on {streams} cameras", system.name()));
            let urls: Vec<String> = (0..streams).map(|i| world.server.url(&mount(i))).collect();
            let mut case = Case::new(&system, streams);
            match system.command(&urls, &world, folder) {
                Ok(command) => case.fill(load::measure(command, &urls, &world, args, folder).await, bare),
                Err(reason) => case.note = Some(reason),
            }
            // Told as they come: what ends this process early, as an assertion in the RTSP server, must not take them along.
            case.log();
            cases.push(case);
        }
    }
    Ok(cases)
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
