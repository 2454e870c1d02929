//! The command line: one file a subcommand, and what all of them share: exit codes, errors, where models are.

mod args;
mod bench;
mod broker;
mod check;
mod demo;
mod eval;
mod models;
mod outputs;
mod progress;
mod pull;
mod run;
mod telemetry;
mod watch;

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, Write},
    path::PathBuf,
};

use clap::Parser;

use crate::{
    config::ConfigError, daemon::ServiceError, ground::GroundError, http::HttpError, ingest::IngestError,
    publish::PublishError, types::chain,
};

/// How a command can end badly, as exit codes of sysexits(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// The command line is wrong.
    Usage = 64,
    /// A camera, broker, port or library that is needed cannot be had.
    Unavailable = 69,
    /// A fault of groundd.
    Internal = 70,
    /// The configuration or the model is wrong.
    Config = 78,
}

/// Why a command failed, for people, and its exit code.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// An error about command-line arguments: what would be `Config` in a file is `Usage` here.
    fn of_arguments(error: impl Into<Self>) -> Self {
        let failure = error.into();
        let exit = if failure.exit == Exit::Config { Exit::Usage } else { failure.exit };
        Self { exit, ..failure }
    }

    /// `error` and everything it was caused by, in one line.
    fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, chain(error))
    }
}

/// Parses the arguments, runs the command, reports a failure, returns the exit code. Output is written in whole unbuffered lines, so
/// nothing is flushed at the end, and a thread blocked on a pipe that nobody reads is not waited for.
pub fn main() -> u8 {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done if even the terminal is gone.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage as u8 } else { 0 };
        }
    };
    let command = || telemetry::init(args.log.as_deref(), args.command.default_log()).and_then(|()| run(&args.command));
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(command)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            telemetry::fatal(&failure.message);
            failure.exit as u8
        }
        // What it was has been printed where it happened.
        Err(_) => Exit::Internal as u8,
    }
}

fn run(command: &args::Command) -> Result<(), Failure> {
    match command {
        args::Command::Run(run) => run::run(run),
        args::Command::Watch(watch) => watch::run(watch),
        args::Command::Demo(demo) => demo::run(demo),
        args::Command::Bench(bench) => bench::run(bench),
        args::Command::Play(play) => bench::play(play),
        args::Command::Check(check) => check::run(check),
        args::Command::Eval(eval) => eval::run(eval),
        args::Command::Models(models) => models::run(models),
    }
}

/// The runtime all commands use. Inference has its own thread; this one only moves messages.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Internal, format!("cannot start threads: {e}")))
}

/// Does the work of a command. What it leaves behind is not waited for: a camera's driver may hold a blocking thread for ever.
fn block_on<T, E: Into<Failure>>(work: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result.map_err(Into::into)
}

/// Why a command that is to be ended by signals cannot be run.
fn no_signals(error: &io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("cannot listen for signals: {error}"))
}

/// Prints to stdout. A closed pipe is no error.
fn say(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Unavailable,
            format!("cannot write the output: {error}; make room, or write it elsewhere"),
        )),
        _ => Ok(()),
    }
}

/// Folders that may hold models, in the order they are looked at.
fn model_folders() -> Vec<PathBuf> {
    let configured = std::env::var_os("GROUNDD_MODELS").filter(|v| !v.is_empty()).map(PathBuf::from);
    let beside_executable = std::env::current_exe()
        .ok()
        .into_iter()
        .flat_map(|exe| exe.ancestors().skip(1).take(4).map(|dir| dir.join("models")).collect::<Vec<_>>());
    let mut seen = BTreeSet::new();
    let named = configured.clone();
    let counts = |dir: &PathBuf| match dir.canonicalize() {
        Ok(real) => seen.insert(real),
        // A folder the user named stays in the list even if it does not exist, so that messages can mention it.
        Err(_) => Some(dir) == named.as_ref(),
    };
    configured
        .into_iter()
        .chain(beside_executable)
        .chain(user_models())
        .chain(["/var/lib/groundd/models", "/usr/share/groundd/models", "models"].map(PathBuf::from))
        .filter(counts)
        .collect()
}

/// The bundled clip: beside the executable's ancestors in a source tree, else where packages put it.
fn clip() -> Result<PathBuf, Failure> {
    let exe = std::env::current_exe().unwrap_or_default();
    let tree = exe.ancestors().skip(1).take(4).map(|dir| dir.join("assets"));
    let places: Vec<PathBuf> =
        tree.chain(["assets", "/usr/share/groundd"].map(PathBuf::from)).map(|dir| dir.join("demo.mp4")).collect();
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked = places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        Failure::new(Exit::Unavailable, format!("the bundled clip is not in any of: {looked}"))
    })
}

/// Where this user's own models are.
fn user_models() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    data.or_else(|| Some(std::env::home_dir()?.join(".local/share"))).map(|data| data.join("groundd/models"))
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of(Exit::Config, &error)
    }
}

impl From<GroundError> for Failure {
    fn from(error: GroundError) -> Self {
        let exit = match error.is_internal() {
            true => Exit::Internal,
            false if error.is_unavailable() => Exit::Unavailable,
            false => Exit::Config,
        };
        Self::of(exit, &error)
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        let exit = if error.is_unavailable() { Exit::Unavailable } else { Exit::Config };
        Self::of(exit, &error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let exit = if error.is_unavailable() { Exit::Unavailable } else { Exit::Config };
        Self::of(exit, &error)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::of(Exit::Unavailable, &error)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Config(e) => e.into(),
            ServiceError::Ingest(e) => e.into(),
            ServiceError::Ground(e) => e.into(),
            ServiceError::Publish(e) => e.into(),
            ServiceError::Http(e) => e.into(),
            ServiceError::Publisher | ServiceError::Pipeline(_) | ServiceError::Signals(_) => {
                Self::of(Exit::Internal, &error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{daemon::PipelineError, ground::engine::EngineError, types::CameraId};

    #[test]
    fn every_failure_of_the_service_has_the_exit_code_of_its_kind() {
        let (camera, path, said) = (CameraId::new("gate").unwrap(), PathBuf::from("/no/such"), "no".to_owned());
        let panicked = PipelineError::from(GroundError::Panicked(said.clone()));
        let failures: [(u8, ServiceError); 13] = [
            (70, panicked.into()),
            (70, ServiceError::Publisher),
            (70, GroundError::Answers { asked: 2, answered: 1 }.into()),
            (70, ServiceError::Signals(io::Error::other("no"))),
            (78, ConfigError::NotUtf8 { path: path.clone(), line: 1 }.into()),
            (78, ConfigError::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() }.into()),
            (78, IngestError::Uri { camera: camera.clone(), uri: "x://".into(), reason: said.clone() }.into()),
            (69, IngestError::File { camera, what: "the CA", path: path.clone(), reason: said.clone() }.into()),
            (78, PublishError::Config { key: "url", problem: said.clone() }.into()),
            (69, PublishError::Unreachable { broker: "localhost:1883".into(), problem: said }.into()),
            (69, HttpError::InUse("127.0.0.1:8787".parse().unwrap()).into()),
            (78, GroundError::NotFound { wanted: path, looked: Vec::new() }.into()),
            (69, GroundError::Engine(EngineError::NoLibrary { looked: Vec::new() }).into()),
        ];
        for (code, error) in failures {
            let said = error.to_string();
            let failure = Failure::from(error);
            assert_eq!(failure.exit as u8, code, "{said}");
            assert!(failure.message.starts_with(&said), "{} instead of {said}", failure.message);
        }
    }
}
