//! What can be typed. The help texts are the manual.

use std::path::PathBuf;

use clap::{
    Args as ClapArgs, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    ground::{ModelConfig, Provider, methods::zoom::ZoomConfig},
    types::{Method, published::Weights, query},
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

/// One of the benchmark's cameras
#[derive(ClapArgs, Clone)]
pub(super) struct Play {
    /// What it plays
    pub(super) clip: PathBuf,
    /// Where it listens; 0 is a free port
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,
    /// How many times faster than it was taken
    #[arg(long, default_value_t = 1)]
    pub(super) speed: u32,
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

/// The methods that can be tried: all but `auto`, which is one of the others.
const METHODS: &[Method] = Method::ALL.split_at(1).1;

/// Accuracy and cost of a model's methods on a data set of yours.
///
/// Asks every phrase of every image, prints a table, and on request writes JSON, a plot and drawn examples. Pictures are put
/// on the model's canvas as those of cameras are.
#[derive(ClapArgs)]
#[command(after_long_help = "\
Data sets, told apart by their content:

COCO-style: a JSON file with
  images       id, file_name; width and height are checked where given
  annotations  image_id, category_id, bbox [x, y, width, height]; iscrowd, area
  categories   id, name
Each category is asked of each image.

YOLO folders: images/ and labels/, with a text file an image, a line a thing:
  class cx cy width height         in fractions of the image
Classes are named by data.yaml or classes.txt and all asked; otherwise they are COCO's 80, and those that occur are asked.

Phrases of your own: a JSON list, or an object with it as `phrases`, of
  {\"image\": \"a.jpg\", \"phrase\": \"red car\", \"kind\": \"colour\",
   \"boxes\": [[x1, y1, x2, y2], ...]}
Boxes are pixels. Several are several things, none says that nothing is there. kind is free: figures are also given by kind.
\"ignored\" may list further boxes, within which an answer counts neither way, as in COCO's crowds.

RefCOCO-style: a JSON list beside the instances.json it refers to, as RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO are published:
  {\"ref_id\": 1, \"image_id\": 2, \"ann_id\": 3, \"split\": \"testA\",
   \"sentences\": [{\"sent\": \"red car\"}]}
ann_id may be a list; an empty one or -1 says that nothing is there. A pickle is made into JSON by
  python3 -c 'import json, pickle, sys; json.dump(pickle.load(sys.stdin.buffer),
  sys.stdout)' < 'refs(unc).p' > refs.json

Images, JPEG or PNG, are looked for beside the file, in images/, and where COCO keeps them; --images names another folder.

acc and IoU go by the best-scoring box that is reported where one thing is there (RefCOCO's figures are of the best one whatever its \
score: --threshold 0); F1 by all boxes at IoU 0.5 (F1+: of phrases for several things); \
miss is silence where nothing is there; AP and AP50 are COCO's. For AP, models with thresholds are asked a second time, for every \
box they could give; of words that mean one thing, as in `largest car`, that is the best one alone, so that their recall and AP say \
whether it is right. A phrase that the model cannot be asked counts as wrong; a search that ran out of passes counts by what it said, \
silence as well. An image that breaks off is left out and counted. Costs are of one image with all its phrases at once, \
after a first one to warm up; decoding and scaling are not in them.")]
pub(super) struct Eval {
    /// A JSON file or a folder, see below
    #[arg(value_name = "DATASET")]
    pub(super) dataset: PathBuf,
    /// Which methods; default is all that the model has
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = one_of(METHODS, Method::name))]
    pub(super) methods: Vec<Method>,
    #[command(flatten)]
    pub(super) model: Model,
    /// Only these phrases or categories; may be given several times
    #[arg(long = "query", value_name = "TEXT", value_parser = query_text)]
    pub(super) queries: Vec<String>,
    /// Only this split of the data set
    #[arg(long, value_name = "NAME")]
    pub(super) split: Option<String>,
    /// Only the first N images, of those that are asked something
    #[arg(long, value_name = "N", value_parser = count)]
    pub(super) limit: Option<usize>,
    /// Where the images are
    #[arg(long, value_name = "DIR")]
    pub(super) images: Option<PathBuf>,
    /// The COCO annotations that referring expressions refer to
    #[arg(long, value_name = "FILE")]
    pub(super) instances: Option<PathBuf>,
    /// Boxes below this score, 0 to 1, are not reported; default is the model's own
    #[arg(long, value_name = "SCORE", value_parser = score)]
    pub(super) threshold: Option<f32>,
    /// Passes that `zoom` may take for a phrase, beyond the whole image's; there is no limit of time
    #[arg(long, default_value_t = ZoomConfig::default().passes, value_name = "N")]
    pub(super) zoom_passes: usize,
    /// `zoom` looks at every area, as it was published: no limit, and nothing spared
    #[arg(long)]
    pub(super) zoom_exhaustive: bool,
    /// No average precision: asks once instead of twice
    #[arg(long)]
    pub(super) no_ap: bool,
    /// Write all figures, also by kind, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a plot of accuracy against cost, PNG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Draw the best and the worst answers of each method into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) examples: Option<PathBuf>,
}

/// Measure throughput, delay and cost on this machine, beside the bare engine and other systems.
///
/// RTSP servers play a clip with a number in every picture; the service runs as a process of its own, as do other systems if
/// named; a subscriber at a broker sees when the answer to which picture comes. The table goes to stdout, progress to stderr.
#[derive(ClapArgs)]
pub(super) struct Bench {
    /// How many cameras to try, as in 1,2,4
    #[arg(long, default_value = "1,2,4", value_name = "N,…", value_delimiter = ',', value_parser = streams)]
    pub(super) streams: Vec<usize>,
    /// How long to measure each case
    #[arg(long, default_value_t = 10.0, value_name = "N", value_parser = positive)]
    pub(super) seconds: f64,
    /// How long to let each case run before it is measured
    #[arg(long, default_value_t = 5.0, value_name = "N", value_parser = positive)]
    pub(super) warm_up: f64,
    /// Have groundd analyse at most this many frames a second of each camera
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(super) fps: Option<f64>,
    /// Measure one camera beside another, too, that is steady, floods, stalls and reconnects
    #[arg(long)]
    pub(super) isolation: bool,
    /// What to look for; default is person and red car
    #[arg(long = "query", value_name = "TEXT", value_parser = query_text)]
    pub(super) queries: Vec<String>,
    /// The clip that the cameras play, of at most 1024 pictures; default is the bundled one
    #[arg(long, value_name = "FILE")]
    pub(super) clip: Option<PathBuf>,
    #[command(flatten)]
    pub(super) model: Model,
    /// Another system: gets --onnx FILE --broker HOST:PORT --threads N URL… and publishes bench/<n>/detections
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = named)]
    pub(super) peers: Vec<(String, String)>,
    /// Another system that could not be installed, and why, for the table
    #[arg(long = "absent", value_name = "NAME=REASON", value_parser = named)]
    pub(super) absent: Vec<(String, String)>,
    /// What the other systems run; default is the file that sees every picture of groundd's model
    #[arg(long, value_name = "FILE")]
    pub(super) onnx: Option<PathBuf>,
    /// Write everything measured here
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw throughput, delay and memory against cameras here, as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
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

fn streams(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(n) if (1..=256).contains(&n) => Ok(n),
        _ => Err("a number from 1 to 256 is needed".to_owned()),
    }
}

fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("NAME=VALUE is needed".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e9 => Ok(n),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number above 0 is needed".to_owned()),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    let most = ModelConfig::MOST_THREADS;
    let read = text.parse().ok().filter(|n| *n <= most);
    read.ok_or_else(|| format!("a whole number is needed, 0 for one a core or at most {most}"))
}

fn detail(text: &str) -> Result<f32, String> {
    let (least, most) = (ModelConfig::DETAIL.start(), ModelConfig::DETAIL.end());
    let read = text.parse().ok().filter(|n| ModelConfig::DETAIL.contains(n));
    read.ok_or_else(|| format!("a number from {least} to {most} is needed"))
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(n) if (0.0..=1.0).contains(&n) => Ok(n),
        _ => Err("a number from 0 to 1 is needed".to_owned()),
    }
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
