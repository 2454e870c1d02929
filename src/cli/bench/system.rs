//! What is measured: groundd as a service, other systems as the programs that were named; and what came of it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Serialize;
use tokio::process::Command;

use super::{bare::Bare, load::World, process};
use crate::{cli::outputs::cannot_write, eval::cost::nearest_rank, ground::ModelConfig};

/// A system under test.
pub(super) enum System {
    /// This program, as a service with a configuration file.
    Groundd {
        name: &'static str,
        config: ModelConfig,
        queries: Vec<String>,
        /// Most analyses a second of each camera.
        fps: Option<f64>,
        /// Whether answers are reused, as they are by default.
        once: bool,
    },
    /// Another program; see `groundd bench --help` for what it is given.
    Peer { name: String, command: String, onnx: std::path::PathBuf, threads: usize },
    /// One that cannot be run here.
    Absent { name: String, reason: String },
}

impl System {
    /// Its name in the table.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Groundd { name, .. } => name,
            Self::Peer { name, .. } | Self::Absent { name, .. } => name,
        }
    }

    /// The command that watches `urls`; `Err` says why there is none.
    pub(super) fn command(&self, urls: &[String], world: &World, folder: &Path) -> Result<Command, String> {
        let log = folder.join(format!("{}.log", self.name()));
        match self {
            Self::Groundd { config, queries, fps, once, .. } => {
                let file = folder.join("groundd.toml");
                std::fs::write(&file, configuration(config, queries, *fps, *once, urls, world.broker.port()))
                    .map_err(|e| cannot_write(&file, &e))?;
                let program = std::env::current_exe().map_err(|e| e.to_string())?;
                let mut command = process(&program, log).map_err(|e| e.to_string())?;
                command.args(["run", "--config"]).arg(file);
                Ok(command)
            }
            Self::Peer { command, onnx, threads, .. } => {
                let mut words = command.split_whitespace();
                let program = words.next().ok_or("the command is empty")?;
                let mut peer = process(Path::new(program), log).map_err(|e| e.to_string())?;
                peer.args(words).arg("--onnx").arg(onnx);
                peer.args(["--broker", &format!("127.0.0.1:{}", world.broker.port())]);
                peer.args(["--threads", &threads.to_string()]).args(urls);
                Ok(peer)
            }
            Self::Absent { reason, .. } => Err(reason.clone()),
        }
    }
}

/// groundd's configuration: its defaults, but for what the benchmark is about.
fn configuration(
    model: &ModelConfig,
    queries: &[String],
    fps: Option<f64>,
    once: bool,
    urls: &[String],
    mqtt: u16,
) -> String {
    let text = |s: &str| toml::Value::String(s.to_owned());
    let mut config = format!(
        "[model]\npath = {}\nprovider = \"{}\"\nthreads = {}\ndetail = {:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{mqtt}\"\n\
         client_id = \"groundd-bench\"\n[ask]\nonce = {once}\n",
        text(&absolute(&model.path)),
        model.provider.name(),
        model.threads,
        model.detail
    );
    for (i, url) in urls.iter().enumerate() {
        config += &format!("[[camera]]\nid = \"{}\"\nuri = {}\n", super::name(i), text(url));
        config += &fps.map_or_else(String::new, |fps| format!("fps = {fps:?}\n"));
    }
    for (i, words) in queries.iter().enumerate() {
        config += &format!("[[query]]\nid = \"q{i}\"\ntext = {}\n", text(words));
    }
    config
}

/// A folder as seen from anywhere; a bare model name stays one.
fn absolute(path: &Path) -> String {
    let bare = path.components().count() == 1 && !path.is_dir();
    let full = if bare { path.to_owned() } else { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) };
    full.display().to_string()
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) count: usize,
}

impl Spread {
    /// Of some milliseconds; `None` if there are none.
    pub(super) fn of(mut ms: Vec<f64>) -> Option<Self> {
        ms.sort_by(f64::total_cmp);
        let at = |percent| nearest_rank(&ms, percent);
        Some(Self { p50: at(50)?, p95: at(95)?, p99: at(99)?, count: ms.len() })
    }
}

/// What is to be known of delays that may be longer than they seem.
const WRAPPED: &str = "delays may be longer by whole lengths of the clip";

/// What one system did with some cameras.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    pub(super) system: String,
    pub(super) streams: usize,
    /// Whether it is groundd.
    #[serde(skip)]
    pub(super) is_own: bool,
    /// Why there are no numbers, or what to know about them.
    pub(super) note: Option<String>,
    #[serde(flatten)]
    pub(super) numbers: Option<Numbers>,
}

/// The numbers of a case.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Numbers {
    /// Pictures that the cameras sent, a second.
    pub(super) offered_per_s: f64,
    /// Pictures whose answer a subscriber saw, a second.
    pub(super) analysed_per_s: f64,
    /// Of the queries on those pictures the part that was shed or failed; other systems have none.
    pub(super) unanswered: f64,
    /// Processor milliseconds for each of those, all of the system's processes together.
    pub(super) cpu_ms_per_frame: f64,
    /// That, over what the bare engine and the bare decoder cost for the same pictures on an otherwise idle machine.
    pub(super) over_bare: f64,
    /// The same where the bare engine too sees no more of the canvas than groundd shows it: most of the border around a picture need
    /// not be computed. Other systems compute all of it.
    pub(super) over_bare_shown: Option<f64>,
    /// Analysed pictures, over what this machine could do with what the cameras, the broker and the bare decoder leave of it, by
    /// what the bare engine costs on the canvas that groundd shows it when as many run at once as groundd would; at most all that
    /// are offered. The same for all systems.
    pub(super) of_possible: f64,
    /// From the sending of a picture to its answer at the subscriber.
    pub(super) latency_ms: Option<Spread>,
    /// Where that time goes, as the messages say; empty for other systems.
    pub(super) stages_ms: BTreeMap<&'static str, Spread>,
    /// Resident memory in megabytes, all processes together, the highest seen.
    pub(super) rss_mb: f64,
    /// Processor seconds a second that cameras, broker and subscriber took meanwhile.
    pub(super) world_cpu: f64,
    /// What engine and decoder cost alone, just before and after.
    pub(super) bare: Bare,
}

impl Case {
    pub(super) fn new(system: &System, streams: usize) -> Self {
        let is_own = matches!(system, System::Groundd { .. });
        Self { system: system.name().to_owned(), streams, is_own, note: None, numbers: None }
    }

    /// The gist of it, as a log line; with what it cost, unless that was another camera's, too.
    pub(super) fn log(&self, with_cost: bool) {
        let Self { system, streams, note, numbers, .. } = self;
        if let Some(Numbers { analysed_per_s, cpu_ms_per_frame, rss_mb, latency_ms, .. }) = numbers {
            let p95 = latency_ms.map_or(f64::NAN, |spread| spread.p95);
            let cost = format!(", {cpu_ms_per_frame:.1} CPU ms a frame, {rss_mb:.0} MB");
            let cost = if with_cost { cost.as_str() } else { "" };
            tracing::info!("{system} on {streams} cameras: {analysed_per_s:.1} frames/s, p95 {p95:.0} ms{cost}");
        } else {
            tracing::warn!("{system} on {streams} cameras: {}", note.as_deref().unwrap_or("no numbers"));
        }
    }

    /// Enters what came of it, on cameras that play a clip of `length` over and over.
    pub(super) fn fill(&mut self, result: Result<Measured, String>, bare: Bare, length: Duration) {
        match result {
            Ok(measured) => {
                let by_number = measured.by_number;
                let numbers = measured.numbers(bare, self.is_own);
                // A number says which picture it was, not in which pass.
                let long = numbers.latency_ms.is_some_and(|spread| spread.p95 > length.as_secs_f64() * 1e3 / 2.0);
                self.note = (by_number && long).then(|| WRAPPED.to_owned());
                self.numbers = Some(numbers);
            }
            Err(reason) => self.note = Some(reason),
        }
    }
}

/// What was counted in the window.
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) offered: f64,
    pub(super) analysed: usize,
    pub(super) queries: usize,
    pub(super) unanswered: usize,
    pub(super) cpu: f64,
    pub(super) rss: u64,
    pub(super) world_cpu: f64,
    /// Whether delays go by the numbers in the pictures, rather than by the camera's own time.
    pub(super) by_number: bool,
    pub(super) latencies: Vec<f64>,
    pub(super) stages: BTreeMap<&'static str, Vec<f64>>,
}

impl Measured {
    fn numbers(self, bare: Bare, is_own: bool) -> Numbers {
        let rate = |count: f64| count / self.seconds;
        let (analysed, offered) = (self.analysed.max(1) as f64, rate(self.offered));
        let cpu_ms = self.cpu * 1e3 / analysed;
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let left_ms = (cores - rate(self.world_cpu)) * 1e3 - offered * bare.decode_ms;
        let possible = bare.possible(left_ms).clamp(1e-9, offered.max(1e-9));
        Numbers {
            offered_per_s: offered,
            analysed_per_s: rate(self.analysed as f64),
            unanswered: self.unanswered as f64 / self.queries.max(1) as f64,
            cpu_ms_per_frame: cpu_ms,
            over_bare: cpu_ms / bare.per_frame_ms(self.offered / analysed),
            over_bare_shown: is_own.then(|| cpu_ms / bare.per_shown_frame_ms(self.offered / analysed)),
            of_possible: rate(self.analysed as f64) / possible,
            latency_ms: Spread::of(self.latencies),
            stages_ms: self.stages.into_iter().filter_map(|(name, ms)| Some((name, Spread::of(ms)?))).collect(),
            rss_mb: self.rss as f64 / 1e6,
            world_cpu: rate(self.world_cpu),
            bare,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_is_valid_even_with_awkward_words() {
        let urls = ["rtsp://127.0.0.1:1/cam0".to_owned(), "rtsp://127.0.0.1:1/cam1".to_owned()];
        let text = configuration(&ModelConfig::default(), &["a \"red\" car".to_owned()], Some(2.0), false, &urls, 1883);
        let config = Config::parse(&text, Path::new("groundd.toml")).unwrap();
        assert_eq!((config.cameras.len(), config.queries.len()), (2, 1));
        assert!(config.cameras.values().all(|camera| camera.fps == Some(2.0)));
        assert_eq!((config.model, config.ask.once), (ModelConfig::default(), false));
    }

    fn bare() -> Bare {
        Bare {
            engine_ms: 10.0,
            engine_wall_ms: 10.0,
            on_device: false,
            engine_shown_ms: 8.0,
            engine_busy_ms: 20.0,
            decode_ms: 0.0,
            scale_ms: 0.0,
        }
    }

    /// Ten frames in a second, each of which took 20 ms of a processor.
    fn measured(latencies: Vec<f64>, by_number: bool) -> Measured {
        let (offered, stages) = (1e9, BTreeMap::new());
        let (analysed, queries, unanswered, rss) = (10, 0, 0, 0);
        let (seconds, cpu, world_cpu) = (1.0, 0.2, 0.0);
        Measured { seconds, offered, analysed, queries, unanswered, cpu, rss, world_cpu, by_number, latencies, stages }
    }

    #[test]
    fn a_frame_is_held_against_an_idle_machine_and_what_is_possible_against_a_busy_one() {
        let numbers = measured(Vec::new(), false).numbers(bare(), true);
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        assert!(
            (numbers.over_bare - 2.0).abs() < 1e-9 && (numbers.over_bare_shown.unwrap() - 2.5).abs() < 1e-9,
            "{numbers:?}"
        );
        assert!((numbers.of_possible - 10.0 / (cores * 1e3 / 20.0)).abs() < 1e-9, "{numbers:?}");
    }

    #[test]
    fn delays_by_number_that_come_near_the_clips_length_are_doubted() {
        let note = |delay: f64, by_number| {
            let mut case = Case { system: "other".to_owned(), streams: 1, is_own: false, note: None, numbers: None };
            case.fill(Ok(measured(vec![delay], by_number)), bare(), Duration::from_secs(20));
            case.note
        };
        assert_eq!(note(10_001.0, true).as_deref(), Some(WRAPPED));
        assert_eq!((note(9_999.0, true), note(10_001.0, false)), (None, None));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert!(Spread::of(vec![]).is_none());
        let one = Spread::of(vec![7.0]).unwrap();
        assert_eq!((one.p50, one.p95, one.p99), (7.0, 7.0, 7.0));
        let hundred = Spread::of((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((hundred.p50, hundred.p95, hundred.p99, hundred.count), (50.0, 95.0, 99.0, 100));
    }
}
