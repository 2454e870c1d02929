//! Batch -> answers. Methods over models over an engine.
//!
//! [`load`] turns a model's folder into a [`Grounder`]; [`worker::spawn`] gives it a thread of its own. Inside,
//! [`methods`] know neither runtime nor family, [`models`] know a family's tensors and words, [`engine`] runs tensors.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::types::{Answer, Batch, Canvases, Followed, Method, Pulse, Query, Work, WrongSetting, published};

pub mod ask;
pub mod bare;
pub mod codec;
pub mod effort;
pub mod engine;
pub mod error;
mod heads;
pub mod manifest;
pub mod methods;
pub mod models;
mod offering;
mod opening;
mod router;
mod seeing;
mod unit;
pub mod vision;
pub mod worker;
pub mod zoom;

pub use ask::AskConfig;
pub use effort::Effort;
pub use error::GroundError;
pub use offering::Keep;

use engine::library;
use manifest::{Manifest, Selection};
use methods::zoom::ZoomConfig;

/// The `[model]` table: which model runs, and on what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A folder with a `model.toml` or laid out as published for transformers.js, or the name of one in the models folder.
    pub path: PathBuf,
    /// What computes.
    pub provider: Provider,
    /// Which GPU, counting from 0.
    pub device: u32,
    /// CPU threads for one pass; 0 is one a core.
    pub threads: usize,
    /// How many times the model's usual number of pixels it looks at, 0.25 to 4; the work grows alike.
    pub detail: f32,
    /// The ONNX Runtime shared library; unset looks at `ORT_DYLIB_PATH`, then at the `.runtime` folder.
    pub library: Option<PathBuf>,
    /// How the choice of a model that is shown regions is read; unset is as its manifest says.
    pub selection: Option<Selection>,
    /// What queries with the method `zoom` may take.
    pub zoom: ZoomConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            path: "nano".into(),
            provider: Provider::Cpu,
            device: 0,
            threads: 0,
            detail: 1.0,
            library: None,
            selection: None,
            zoom: ZoomConfig::default(),
        }
    }
}

impl ModelConfig {
    /// More threads than any machine has cores: the runtime would start them all, and take minutes to do so.
    pub const MOST_THREADS: usize = 1024;
    /// How many times the usual number of pixels may be looked at: with less nothing is found, and with more no model was tried.
    pub const DETAIL: RangeInclusive<f32> = 0.25..=4.0;

    /// Whether these settings can be meant, whatever the model.
    pub fn check(&self) -> Result<(), WrongSetting> {
        let (most, least_detail, most_detail) = (Self::MOST_THREADS, Self::DETAIL.start(), Self::DETAIL.end());
        if self.threads > most {
            let problem =
                format!("is {}: too many for one model; use 0, which is one a core, or at most {most}", self.threads);
            return Err(WrongSetting::new("threads", problem));
        }
        if !Self::DETAIL.contains(&self.detail) {
            let problem = format!("is {}; use {least_detail} to {most_detail}", self.detail);
            return Err(WrongSetting::new("detail", problem));
        }
        Ok(())
    }
}

/// An ONNX Runtime execution provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA CUDA. Never falls back to the CPU.
    Cuda,
    /// NVIDIA TensorRT. Never falls back to the CPU.
    Tensorrt,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Tensorrt];

    /// The provider's name in configuration and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }
}

/// What a model can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most frames in one batch.
    pub max_batch: usize,
    /// The canvases frames may be scaled to.
    pub canvases: Canvases,
}

/// Which model is loaded, and on what it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// First 8 hex digits of its hash; see [`Manifest::hash8`].
    pub hash8: String,
    /// Which code runs it.
    pub family: String,
    /// The methods it can do, the best first.
    pub methods: Vec<Method>,
    /// What computes.
    pub provider: Provider,
    /// The ONNX Runtime library.
    pub library: PathBuf,
    /// The library's version and build.
    pub runtime: String,
}

impl fmt::Display for ModelInfo {
    /// One line for people: model, methods, and what it runs on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|m| m.name()).collect();
        let (name, version, id, methods) = (&self.name, &self.version, self.id(), methods.join(", "));
        let (provider, runtime) = (self.provider.name(), &self.runtime);
        let library = self.library.display();
        write!(f, "{name} {version} ({id}), methods {methods}, on {provider} with ONNX Runtime {runtime} ({library})")
    }
}

impl ModelInfo {
    /// `name@hash8`, as in messages.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.hash8)
    }
}

/// Tells whether a model can answer a query at all: the method is one of its own and it knows the words. Says what is
/// wrong and what to do otherwise; the same text is the answer's error when the query is asked all the same. Can be
/// asked from any thread, while the model itself is busy on its own.
pub type QueryCheck = Arc<dyn Fn(&Query) -> Result<(), String> + Send + Sync>;

/// A loaded model that answers batches. Owned by one thread.
pub trait Grounder: Send {
    /// What it can take.
    fn limits(&self) -> Limits;
    /// Which model it is, and on what it runs.
    fn describe(&self) -> ModelInfo;
    /// Tells whether it can answer a query at all; see [`QueryCheck`].
    fn checker(&self) -> QueryCheck;
    /// What it has done so far; for who compares costs.
    fn effort(&self) -> Effort {
        Effort::default()
    }
    /// From now on each pass is a beat of `pulse`: a batch may take long, one pass of it may not.
    fn beat(&mut self, _pulse: Pulse) {}
    /// Where to read, from now on, where tracked objects are: methods that search look there first.
    fn follow(&mut self, _followed: Arc<Followed>) {}
    /// Answers every query of every job: one vector a job, one answer a query, in order. A query the model cannot
    /// answer gets an error status; an `Err` means the whole batch failed.
    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError>;
    /// From now on queries are asked as `config` says, and answers reused. Unless this was called every query is asked on
    /// every frame, whatever it costs. With `stream_time` what is remembered ages by the frames' presentation times
    /// instead of their arrivals: for files that are read faster or slower than they were taken.
    fn ask(&mut self, config: &AskConfig, stream_time: bool) {
        let _: (&AskConfig, bool) = (config, stream_time);
    }
    /// Another one that was opened to work beside it, as it is set by now; `None` if there is none, or no more. They share
    /// what they know of cameras: no two of them may have pictures of one camera at a time.
    fn another(&mut self) -> Option<Box<dyn Grounder>> {
        None
    }
    /// The account of its work.
    fn work(&self) -> Arc<Work> {
        Arc::default()
    }
}

/// Loads the configured model: finds it in `folders` or where the path says, verifies its files, loads the runtime,
/// opens a session a file, and runs each once, so that what can fail fails now.
pub fn load(config: &ModelConfig, folders: &[PathBuf]) -> Result<Box<dyn Grounder>, GroundError> {
    load_team(config, folders, 1)
}

/// The same, and opens the model once more for each core where that is better than one model for all of them, at most `most`
/// times: for [`team`].
pub fn load_team(config: &ModelConfig, folders: &[PathBuf], most: usize) -> Result<Box<dyn Grounder>, GroundError> {
    config.check().map_err(|wrong| GroundError::Setting(format!("[model] {wrong}")))?;
    opening::load(config, folders, most)
}

/// `grounder`, and those that were opened to work beside it, each for a thread of its own.
pub fn team(grounder: Box<dyn Grounder>) -> Vec<Box<dyn Grounder>> {
    let mut team = vec![grounder];
    while let Some(another) = team[0].another() {
        team.push(another);
    }
    team
}

/// The ONNX Runtime library that [`load`] will use; see [`library::find`] for where it looks.
pub fn library_path(config: &ModelConfig) -> Result<PathBuf, GroundError> {
    Ok(library::find(config.library.as_deref())?)
}

/// The manifest of the model `wanted`: a bare name is looked up in `folders` first, anything else is a folder; one that is
/// not there may be a repository, `owner/name`, which lies in `folders` as `owner--name`.
pub fn find(wanted: &Path, folders: &[PathBuf]) -> Result<Manifest, GroundError> {
    let depth = if wanted.has_root() { 0 } else { wanted.components().count() };
    let named = folders.iter().filter(|_| depth == 1).map(|folder| folder.join(wanted));
    let text = wanted.to_str().unwrap_or_default();
    let repository = published::folder(text.split_once('@').map_or(text, |(repository, _)| repository));
    let pulled = folders.iter().filter(|_| depth == 2).map(|folder| folder.join(&repository));
    let looked: Vec<_> = named.chain([wanted.to_owned()]).chain(pulled).collect();
    match looked.iter().find(|dir| Manifest::is_in(dir)) {
        Some(dir) => Ok(Manifest::load(dir)?),
        None => Err(GroundError::NotFound { wanted: wanted.to_owned(), looked }),
    }
}
