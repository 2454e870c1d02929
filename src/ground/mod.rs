//! Batch -> answers. Methods over models over an engine.
//!
//! [`load`] turns a model's folder into a [`Grounder`]; [`worker::spawn`] gives it a thread of its own. Inside,
//! [`methods`] know neither runtime nor family, [`models`] know a family's tensors and words, [`engine`] runs tensors.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::types::{Answer, Batch, Method, Query, Rgb, Size};

pub mod codec;
pub mod engine;
pub mod error;
pub mod manifest;
pub mod methods;
pub mod models;
mod router;
pub mod vision;
pub mod worker;

pub use error::GroundError;

use engine::{
    Engine, library,
    local::{Compute, Local, Runtime},
};
use manifest::Manifest;
use methods::{regions::Bar, written::Writer};
use models::{
    florence::{self, Florence},
    nano::{self, Nano},
    paligemma::{self, PaliGemma},
    qwen::{self, Qwen},
};
use router::{Router, Selecting, Writing};

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
    let mut open = open;
    let limits = Limits { max_batch: manifest.limits.max_batch, canvas: manifest.canvas() };
    let info = |methods| ModelInfo {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        hash8: manifest.hash8(),
        family: manifest.family.clone(),
        methods,
        provider: config.provider,
        library: runtime.library().to_owned(),
        runtime: runtime.version(),
    };
    match manifest.family.as_str() {
        nano::FAMILY => {
            let mut model = Nano::open(&manifest, open)?;
            model.warm_up()?;
            let bar = bar(&manifest)?;
            let info = info(manifest.methods.clone());
            Ok(Box::new(Router::new(Selecting { model, bar, canvas: limits.canvas }, info, limits)))
        }
        qwen::QWEN2 | qwen::QWEN2_5 | qwen::QWEN3 => {
            let info = info(only(&manifest, Method::Coords)?);
            written(Qwen::open(&manifest, &mut open)?, info, limits)
        }
        florence::FAMILY => {
            let info = info(only(&manifest, Method::Bins)?);
            written(Florence::open(&manifest, &mut open)?, info, limits)
        }
        paligemma::FAMILY => {
            let info = info(only(&manifest, Method::Bins)?);
            written(PaliGemma::open(&manifest, &mut open)?, info, limits)
        }
        _ => Err(GroundError::Family { manifest: manifest.path(), family: manifest.family, known: models::FAMILIES }),
    }
}

/// A model that writes its answers, once it has been tried.
fn written<M: Writer + 'static>(
    mut model: M,
    info: ModelInfo,
    limits: Limits,
) -> Result<Box<dyn Grounder>, GroundError> {
    let size = Size::new(64, 64);
    model.warm_up(&Rgb { size, data: vec![128; size.area() * 3].into() })?;
    Ok(Box::new(Router::new(Writing(model), info, limits)))
}

/// Of the manifest's methods the one that its family can do here. A folder may promise more than this build can do.
fn only(manifest: &Manifest, method: Method) -> Result<Vec<Method>, GroundError> {
    if manifest.methods.contains(&method) {
        return Ok(vec![method]);
    }
    let reason = format!("methods: the family {} can do: {method}; name it", manifest.family);
    Err(GroundError::Unfit { manifest: manifest.path(), reason })
}

fn bar(manifest: &Manifest) -> Result<Bar, GroundError> {
    let Some(scores) = &manifest.scores else {
        let reason = format!("the family {} needs the table [scores]", manifest.family);
        return Err(GroundError::Unfit { manifest: manifest.path(), reason });
    };
    Ok(Bar { objectness: scores.objectness, score: scores.matching, nms_iou: scores.nms_iou })
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
