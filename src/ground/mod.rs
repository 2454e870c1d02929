//! Batch -> answers. Methods over models over an engine.
//!
//! [`load`] turns a model's folder into a [`Grounder`]; [`worker::spawn`] gives it a thread of its own. Inside,
//! [`methods`] know neither runtime nor family, [`models`] know a family's tensors and words, [`engine`] runs tensors.

pub mod codec;
pub mod vision;

use std::path::PathBuf;

use serde::Deserialize;

use crate::types::{Answer, Batch, Method, Query, Size};

pub mod engine;
pub mod error;
pub mod manifest;
pub mod methods;
pub mod models;
mod router;
pub mod worker;

pub use error::GroundError;

use engine::{
    Engine, library,
    local::{Compute, Local, Runtime},
};
use manifest::Manifest;
use methods::regions::Bar;
use models::nano::{self, Nano};
use router::Router;

/// The `[model]` table: which model runs, and on what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A folder with a `model.toml`, or the name of one in the models folder.
    pub path: PathBuf,
    /// What computes.
    pub provider: Provider,
    /// Which GPU, counting from 0.
    pub device: u32,
    /// CPU threads for one pass; 0 is one a core.
    pub threads: usize,
    /// The ONNX Runtime shared library; unset looks at `ORT_DYLIB_PATH`, then at the `.runtime` folder.
    pub library: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { path: "nano".into(), provider: Provider::Cpu, device: 0, threads: 0, library: None }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most frames in one batch.
    pub max_batch: usize,
    /// The canvas frames must be scaled to.
    pub canvas: Size,
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

impl ModelInfo {
    /// `name@hash8`, as in messages.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.hash8)
    }
}

/// A loaded model that answers batches. Owned by one thread.
pub trait Grounder: Send {
    /// What it can take.
    fn limits(&self) -> Limits;
    /// Which model it is, and on what it runs.
    fn describe(&self) -> ModelInfo;
    /// Whether it can answer the query at all: the method is one of its own and it knows the words. Says what is wrong
    /// and what to do otherwise; the same text is the answer's error when the query is asked all the same.
    fn check_query(&self, query: &Query) -> Result<(), String>;
    /// Answers every query of every job: one vector a job, one answer a query, in order. A query the model cannot
    /// answer gets an error status; an `Err` means the whole batch failed.
    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError>;
}

/// Loads the configured model: finds it in `folders` or where the path says, verifies its files, loads the runtime,
/// opens a session a file, and runs each once, so that what can fail fails now.
pub fn load(config: &ModelConfig, folders: &[PathBuf]) -> Result<Box<dyn Grounder>, GroundError> {
    let manifest = find(&config.path, folders)?;
    manifest.verify(|_| ())?;
    let runtime = Runtime::load(&library_path(config)?)?;
    let compute = Compute { provider: config.provider, device: config.device, threads: config.threads };
    let open = |file: &Path| Ok(Box::new(Local::open(&runtime, file, compute)?) as Box<dyn Engine>);
    let info = ModelInfo {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        hash8: manifest.hash8(),
        family: manifest.family.clone(),
        methods: manifest.methods.clone(),
        provider: config.provider,
        library: runtime.library().to_owned(),
        runtime: runtime.version(),
    };
    let limits = Limits { max_batch: manifest.limits.max_batch, canvas: manifest.canvas() };
    let scores = &manifest.scores;
    let bar = Bar { objectness: scores.objectness, score: scores.matching, nms_iou: scores.nms_iou };
    match manifest.family.as_str() {
        nano::FAMILY => {
            let mut model = Nano::open(&manifest, open)?;
            model.warm_up()?;
            Ok(Box::new(Router::new(model, info, limits, bar)))
        }
        _ => Err(GroundError::Family { manifest: manifest.path(), family: manifest.family, known: models::FAMILIES }),
    }
}

/// Does all that [`load`] does and says in one line what was loaded.
pub fn check(config: &ModelConfig, folders: &[PathBuf]) -> Result<String, GroundError> {
    let info = load(config, folders)?.describe();
    let methods: Vec<_> = info.methods.iter().map(|m| m.name()).collect();
    Ok(format!(
        "{} {} ({}), methods {}, on {} with ONNX Runtime {} ({})",
        info.name,
        info.version,
        info.id(),
        methods.join(", "),
        info.provider.name(),
        info.runtime,
        info.library.display()
    ))
}

/// The ONNX Runtime library that [`load`] will use; see [`library::find`] for where it looks.
pub fn library_path(config: &ModelConfig) -> Result<PathBuf, GroundError> {
    Ok(library::find(config.library.as_deref())?)
}

/// The manifest of the model `wanted`: a bare name is looked up in `folders` first, anything else is a folder.
pub fn find(wanted: &Path, folders: &[PathBuf]) -> Result<Manifest, GroundError> {
    let bare = wanted.components().count() == 1 && !wanted.has_root();
    let named = folders.iter().filter(|_| bare).map(|folder| folder.join(wanted));
    let looked: Vec<_> = named.chain([wanted.to_owned()]).collect();
    match looked.iter().find(|dir| dir.join(manifest::FILE_NAME).is_file()) {
        Some(dir) => Ok(Manifest::load(dir)?),
        None => Err(GroundError::NotFound { wanted: wanted.to_owned(), looked }),
    }
}
