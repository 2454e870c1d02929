//! What can be typed. The help texts are the manual.

use std::path::PathBuf;

use clap::{
    Args as ClapArgs, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    ground::Provider,
    types::{Method, query},
};

/// Cameras in, words in, boxes out.
///
/// groundd watches cameras for what you describe in plain words and publishes the boxes over MQTT.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "\
Exit codes: 0 done, 64 usage, 69 a camera, broker, port or library cannot be had, 70 internal fault, 78 bad
configuration or model.

Start here:
  groundd demo                                        see it work, with nothing but this machine
  groundd watch rtsp://camera/stream --query 'red car'   your own camera, boxes as JSON lines
  groundd check --config groundd.toml                 what would fail, before it does"
)]
pub(super) struct Args {
    /// What to log, as in `info` or `groundd::ingest=debug,warn`; default `info`, or the `RUST_LOG` environment
    /// variable. Logs go to stderr.
    #[arg(long, global = true, value_name = "FILTER")]
    pub(super) log: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the service
    Run(Run),
    /// Watch cameras or files without a configuration: JSON lines on stdout
    Watch(Box<Watch>),
    /// See it work: a camera, a broker, the daemon and the live view, all on this machine
    Demo(Demo),
    /// Say now what would fail later: keys, files, codecs, runtime, model, cameras, broker
    Check(Check),
    /// List, inspect and verify models
    Models(Models),
}

impl Command {
    /// What is logged if nobody says; the demo's table is not to be written over.
    pub(super) fn default_log(&self) -> &'static str {
        if matches!(self, Self::Demo(_)) { "warn" } else { "info" }
    }
}

#[derive(ClapArgs)]
pub(super) struct Run {
    /// The configuration, TOML; `config/groundd.toml` of the sources has every key
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

/// Watch cameras or files without a configuration.
///
/// Prints one JSON line per analysed frame, the very message `groundd/<camera>/detections` carries; nothing else goes to
/// stdout. Cameras are named cam0, cam1, … in the order given. Ends with the file.
#[derive(ClapArgs)]
pub(super) struct Watch {
    /// rtsp(s)://, http(s)://, file:// or a path, /dev/videoN, test://
    #[arg(required = true, value_name = "URI")]
    pub(super) uris: Vec<String>,
    /// What to look for, in plain words; may be given several times
    #[arg(long = "query", required = true, value_name = "TEXT", value_parser = query_text)]
    pub(super) queries: Vec<String>,
    /// How to look
    #[arg(long, default_value = "auto", value_parser = one_of(&Method::ALL, Method::name))]
    pub(super) method: Method,
    /// A model's name, or a folder with a model.toml
    #[arg(long, default_value = "nano", value_name = "DIR|NAME")]
    pub(super) model: PathBuf,
    /// Publish to this broker as well, as in `mqtt://user:password@host:1883`
    #[arg(long, value_name = "URL")]
    pub(super) broker: Option<String>,
    /// Analyse every frame, in order, however long it takes; for files, evaluation and tests
    #[arg(long)]
    pub(super) every_frame: bool,
    /// Stop after this many seconds
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(super) seconds: Option<f64>,
    /// Analyse at most this many frames a second of each camera
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(super) fps: Option<f64>,
    /// Matches below this score, 0 to 1, are not reported; default is the model's own
    #[arg(long, value_name = "SCORE", value_parser = score)]
    pub(super) threshold: Option<f32>,
    /// CPU threads for the model; 0 is one a core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) threads: usize,
    /// What computes: never falls back silently
    #[arg(long, default_value = "cpu", value_parser = one_of(&Provider::ALL, Provider::name))]
    pub(super) provider: Provider,
}

/// See it work, with nothing but this machine.
///
/// Starts an RTSP camera that plays a bundled clip, a mosquitto broker on a free port, the daemon with a live view, and
/// shows what a subscriber receives.
#[derive(ClapArgs)]
pub(super) struct Demo {
    /// A camera of your own to watch as well, rtsp://…
    #[arg(value_name = "URI")]
    pub(super) camera: Option<String>,
    /// Stop after this many seconds; default is at Ctrl-C
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(super) seconds: Option<f64>,
}

#[derive(ClapArgs)]
pub(super) struct Check {
    /// The configuration to check
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Do not connect to cameras and the broker
    #[arg(long)]
    pub(super) offline: bool,
}

#[derive(ClapArgs)]
pub(super) struct Models {
    #[command(subcommand)]
    pub(super) command: ModelsCommand,
}

#[derive(Subcommand)]
pub(super) enum ModelsCommand {
    /// The models that are here
    List,
    /// What a model is, can do, and may be used for
    Info(ModelName),
    /// Compare every file of a model with its SHA-256
    Verify(ModelName),
}

#[derive(ClapArgs)]
pub(super) struct ModelName {
    /// A model's name, or a folder with a model.toml
    #[arg(value_name = "NAME|DIR", default_value = "nano")]
    pub(super) name: PathBuf,
}

/// Parses one of `all` by its `name`, and lists them in the help.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|value| name(*value)))
        .try_map(move |text| all.iter().copied().find(|value| name(*value) == text).ok_or("is not one of the values"))
}

fn query_text(text: &str) -> Result<String, String> {
    query::check_text(text).map(str::to_owned)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e9 => Ok(n),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(n) if (0.0..=1.0).contains(&n) => Ok(n),
        _ => Err("a number from 0 to 1 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
