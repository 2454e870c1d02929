//! What can go wrong with a model's files, and with the library that runs them.

use std::path::PathBuf;

use super::local;
use crate::ground::{Provider, error::places};

/// Why an engine could not be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No ONNX Runtime was found.
    #[error(
        "the ONNX Runtime library was not found; looked at {}. `make setup` fetches it into .runtime, or take \
         libonnxruntime.so out of the `onnxruntime` wheel from PyPI and set model.library to it",
        places(.looked)
    )]
    NoLibrary {
        /// Every file and folder that was looked at, in order.
        looked: Vec<PathBuf>,
    },
    /// The library that was found cannot be used.
    #[error(
        "{}: not a usable ONNX Runtime library: {reason}. groundd needs version 1.{} or later: `make setup` fetches \
         one, or take it out of the `onnxruntime` wheel from PyPI", .path.display(), local::API_LEVEL
    )]
    BadLibrary {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// Another ONNX Runtime is in use; a process can hold only one.
    #[error(
        "model.library is {}, but this process already runs {}; restart groundd to change it",
        .wanted.display(), .loaded.display()
    )]
    OtherLibrary {
        /// The one that is asked for now.
        wanted: PathBuf,
        /// The one in use.
        loaded: PathBuf,
    },
    /// The execution provider is not there. It is never replaced by another.
    #[error(
        "model.provider is `{}`, but {} cannot provide it on device {device}: {reason}. Install the library of the \
         `onnxruntime-gpu` wheel and the NVIDIA driver, CUDA and cuDNN it asks for, or set model.provider = \"cpu\"",
        .provider.name(), .library.display()
    )]
    Provider {
        /// What was asked for.
        provider: Provider,
        /// On which device.
        device: u32,
        /// The runtime that was asked.
        library: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The runtime could not open the file.
    #[error("{}: ONNX Runtime cannot open it: {reason}", .file.display())]
    Open {
        /// The model file.
        file: PathBuf,
        /// What the runtime said.
        reason: String,
    },
    /// The file has other inputs or outputs than its role asks for.
    #[error(
        "{}: its {what} should be {expected}, and are {found}; the file or the manifest's numbers are not of this \
         family", .file.display()
    )]
    Ports {
        /// The model file.
        file: PathBuf,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// What the family's code needs.
        expected: String,
        /// What the file declares.
        found: String,
    },
    /// A run failed.
    #[error("{}: the run failed: {reason}", .file.display())]
    Run {
        /// The model file.
        file: PathBuf,
        /// What the runtime said.
        reason: String,
    },
}
