//! Batch -> answers. Methods over models over an engine.

pub mod codec;
pub mod vision;

use std::path::PathBuf;

use serde::Deserialize;

use crate::types::{Answer, Batch, Size};

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

/// What a model can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most frames in one batch.
    pub max_batch: usize,
    /// The canvas frames must be scaled to.
    pub canvas: Size,
}

/// A loaded model that answers batches. Owned by one thread.
pub trait Grounder: Send {
    /// What it can take.
    fn limits(&self) -> Limits;
    /// Answers every query of every job: one vector a job, one answer a query, in order. A query the model cannot
    /// answer gets an error status; an `Err` means the whole batch failed.
    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError>;
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {}
