//! What can be typed. The help texts are the manual.

mod bench;
mod eval;
mod values;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use self::values::{detail, one_of, positive, query_text, score, threads};
pub(super) use self::{
    bench::{Bench, Play},
    eval::Eval,
};
use crate::{
    ground::{ModelConfig, Provider},
    types::{Method, published::Weights},
};

/// Cameras in, words in, boxes out.
///
/// groundd watches cameras for what you describe in plain words and publishes the boxes over MQTT.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "\
Exit codes:
   0  done
  64  usage
  69  a camera, broker, port or library cannot be had
  70  internal fault
  78  wrong configuration or model

Start here:
  groundd demo                                          see it work here
  groundd watch rtsp://camera/stream --query 'red car'  your camera, JSON lines
  groundd check --config groundd.toml                   what would fail later"
)]
pub(super) struct Args {
    /// What to log, as in `info` or `groundd::ingest=debug,warn`; default `info`, or the `RUST_LOG` environment
    /// variable. Logs go to stderr.
    #[arg(long, global = true, value_name = "FILTER")]
    pub(super) log: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

// A variant has no documentation of its own, which would take the place of its struct's: of that the first line is shown in
// the list of commands, and all of it in `--help`.
#[derive(Subcommand)]
pub(super) enum Command {
    Run(Run),
    Watch(Box<Watch>),
    Demo(Demo),
    Check(Check),
    Eval(Box<Eval>),
    Bench(Box<Bench>),
    #[command(hide = true)]
    Play(Play),
    Models(Models),
}

impl Command {
    /// What is logged if nobody says; the demo's table is not to be written over.
    pub(super) fn default_log(&self) -> &'static str {
        if matches!(self, Self::Demo(_)) { "warn" } else { "info" }
    }
}

/// Run the service
#[derive(ClapArgs)]
pub(super) struct Run {
    /// The configuration, TOML; `/usr/share/doc/groundd/examples/groundd.toml`, or `config/groundd.toml` of the sources, has every key
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

// Without documentation of its own: it would take the place of that of the commands it is part of.
#[derive(ClapArgs)]
pub(super) struct Model {
    /// A model's name, or a folder with a model.toml or an export published for transformers.js
    #[arg(long = "model", default_value = "nano", value_name = "DIR|NAME")]
    pub(super) path: PathBuf,
    /// How many times the model's usual number of pixels to look at, 0.25 to 4: more for small things, less for less work
    #[arg(long, default_value_t = 1.0, value_name = "N", value_parser = detail)]
    pub(super) detail: f32,
    /// CPU threads for the model; 0 is one a core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = threads)]
    pub(super) threads: usize,
    /// What computes: never falls back silently
    #[arg(long, default_value = "cpu", value_parser = one_of(&Provider::ALL, Provider::name))]
    pub(super) provider: Provider,
}

impl Model {
    /// The table of a configuration that says the same.
    pub(super) fn config(&self) -> ModelConfig {
        let Self { path, detail, threads, provider } = self;
        let (path, detail, threads, provider) = (path.clone(), *detail, *threads, *provider);
        ModelConfig { path, provider, threads, detail, ..ModelConfig::default() }
    }
}

/// Watch cameras or files without a configuration: JSON lines on stdout.
///
/// Prints one JSON line per analysed frame, the very message `groundd/<camera>/detections` carries; nothing else goes to
/// stdout. Cameras are named cam0, cam1, … in the order given. Ends with the files; a clip over HTTP is a camera, and played again.
#[derive(ClapArgs)]
pub(super) struct Watch {
    /// rtsp(s)://, http(s)://, file:// or a path, /dev/videoN or /dev/v4l/…, test://
    #[arg(required = true, value_name = "URI")]
    pub(super) uris: Vec<String>,
    /// What to look for, in plain words; may be given several times
    #[arg(long = "query", required = true, value_name = "TEXT", value_parser = query_text)]
    pub(super) queries: Vec<String>,
    /// How to look
    #[arg(long, default_value = "auto", value_parser = one_of(&Method::ALL, Method::name))]
    pub(super) method: Method,
    #[command(flatten)]
    pub(super) model: Model,
    /// Publish to this broker as well, as in `mqtt://user:password@host:1883`
    ///
    /// This has a client id of its own and no status topic, so that a service at the same broker goes on undisturbed; what was
    /// retained is cleared at the end. With --every-frame, frames wait for the broker.
    #[arg(long, value_name = "URL")]
    pub(super) broker: Option<String>,
    /// Analyse every frame, in order, however long it takes; for files, evaluation and tests
    #[arg(long)]
    pub(super) every_frame: bool,
    /// Print answers about pixels up to this many milliseconds old, for models slower than the default of 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "every_frame")]
    pub(super) staleness_ms: Option<u64>,
    /// Stop after this many seconds
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(super) seconds: Option<f64>,
    /// Analyse at most this many frames a second of each camera
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(super) fps: Option<f64>,
    /// Matches below this score, 0 to 1, are not reported; default is the model's own
    #[arg(long, value_name = "SCORE", value_parser = score)]
    pub(super) threshold: Option<f32>,
}

/// See it work: a camera, a broker, the daemon and the live view, all on this machine.
///
/// Starts an RTSP camera that plays a bundled clip, a mosquitto broker on a free port, the daemon with a live view, and
/// shows what a subscriber receives.
#[derive(ClapArgs)]
pub(super) struct Demo {
    /// A camera of your own to watch as well, rtsp://…
    #[arg(value_name = "URI")]
    pub(super) camera: Option<String>,
    /// Stop after this many seconds; default is at Ctrl-C
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(super) seconds: Option<f64>,
}

/// Say now what would fail later: keys, files, codecs, runtime, model, cameras, broker
#[derive(ClapArgs)]
pub(super) struct Check {
    /// The configuration to check
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Do not connect to cameras and the broker
    #[arg(long)]
    pub(super) offline: bool,
    /// Only what a reload could be refused for: nothing is connected to and no model is loaded
    #[arg(long)]
    pub(super) syntax: bool,
}

/// List, inspect, verify and fetch models
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
    // Documented as the commands above are.
    Pull(Pull),
}

/// Fetch a model from a hub; without a name: what can be fetched by one.
///
/// It is verified, and put where `--model NAME` finds it. What is fetched lies in the hub's own cache and is resumed when it
/// was interrupted. The environment says where from and how: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`,
/// `HF_HUB_OFFLINE`, `HTTPS_PROXY`, `NO_PROXY`.
#[derive(ClapArgs)]
pub(super) struct Pull {
    /// A name of the catalog, or a repository as `owner/name` or `owner/name@revision`
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Agree to licence and size beforehand, and to losing what was changed in the model's folder since it was pulled
    #[arg(long, short)]
    pub(super) yes: bool,
    /// The form of the weights, where the repository has several; default is the catalog's choice, else the most exact
    #[arg(long, value_name = "FORM", value_parser = one_of(&Weights::ALL, Weights::name))]
    pub(super) weights: Option<Weights>,
    /// The folder of models it goes to; default is `GROUNDD_MODELS`, the service's, or the user's own
    #[arg(long, value_name = "DIR")]
    pub(super) into: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub(super) struct ModelName {
    /// A model's name, or a folder with a model.toml
    #[arg(value_name = "NAME|DIR", default_value = "nano")]
    pub(super) name: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Args;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    /// What `groundd` prints when it is asked for the help on a command.
    fn help(command: &[&str]) -> String {
        let words = [&["groundd"][..], command, &["--help"]].concat();
        Args::try_parse_from(words).err().expect("help ends the parsing").to_string()
    }

    #[test]
    fn help_has_the_whole_manual_of_each_command() {
        let only_in_the_manual = [
            (&["watch"][..], "cam0"),
            (&["demo"], "mosquitto"),
            (&["eval"], "canvas"),
            (&["bench"], "subscriber"),
            (&["models", "pull"], "HF_ENDPOINT"),
        ];
        for (command, word) in only_in_the_manual {
            assert!(help(command).contains(word), "`{word}` is missing from:\n{}", help(command));
        }
    }

    #[test]
    fn what_stands_below_the_commands_fits_a_narrow_terminal() {
        let below = Args::command().get_after_help().expect("there is some").to_string();
        assert!(below.lines().all(|line| line.len() < 80), "{below}");
    }
}
