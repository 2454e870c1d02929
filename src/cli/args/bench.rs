//! `groundd bench`, and the cameras that it starts.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{
    Model,
    values::{named, positive, query_text, streams},
};

/// Measure throughput, delay and cost on this machine, beside the bare engine and other systems.
///
/// RTSP servers play a clip with a number in every picture; the service runs as a process of its own, as do other systems if
/// named; a subscriber at a broker sees when the answer to which picture comes. The table goes to stdout, progress to stderr.
#[derive(ClapArgs)]
pub(in crate::cli) struct Bench {
    /// How many cameras to try, as in 1,2,4
    #[arg(long, default_value = "1,2,4", value_name = "N,…", value_delimiter = ',', value_parser = streams)]
    pub(in crate::cli) streams: Vec<usize>,
    /// How long to measure each case
    #[arg(long, default_value_t = 10.0, value_name = "N", value_parser = positive)]
    pub(in crate::cli) seconds: f64,
    /// How long to let each case run before it is measured
    #[arg(long, default_value_t = 5.0, value_name = "N", value_parser = positive)]
    pub(in crate::cli) warm_up: f64,
    /// Have groundd analyse at most this many frames a second of each camera
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(in crate::cli) fps: Option<f64>,
    /// Measure one camera beside another, too, that is steady, floods, stalls and reconnects
    #[arg(long)]
    pub(in crate::cli) isolation: bool,
    /// What to look for; default is person and red car
    #[arg(long = "query", value_name = "TEXT", value_parser = query_text)]
    pub(in crate::cli) queries: Vec<String>,
    /// The clip that the cameras play, of at most 1024 pictures; default is the bundled one
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) clip: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) model: Model,
    /// Another system: gets --onnx FILE --broker HOST:PORT --threads N URL… and publishes bench/<n>/detections
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = named)]
    pub(in crate::cli) peers: Vec<(String, String)>,
    /// Another system that could not be installed, and why, for the table
    #[arg(long = "absent", value_name = "NAME=REASON", value_parser = named)]
    pub(in crate::cli) absent: Vec<(String, String)>,
    /// What the other systems run; default is the file that sees every picture of groundd's model
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) onnx: Option<PathBuf>,
    /// Write everything measured here
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) json: Option<PathBuf>,
    /// Draw throughput, delay and memory against cameras here, as SVG
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) plot: Option<PathBuf>,
}

/// One of the benchmark's cameras
#[derive(ClapArgs, Clone)]
pub(in crate::cli) struct Play {
    /// What it plays
    pub(in crate::cli) clip: PathBuf,
    /// Where it listens; 0 is a free port
    #[arg(long, default_value_t = 0)]
    pub(in crate::cli) port: u16,
    /// How many times faster than it was taken
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) speed: u32,
}
