//! Everything that can go wrong between a model's folder and its answers, in words that say what to do.

use std::{io, path::PathBuf};

use super::{
    engine::EngineError,
    manifest::{Manifest, ManifestError},
    vision::VisionError,
};
use crate::types::may_pass;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// No folder with a manifest answers to the configured name or path.
    #[error(
        "there is no model `{}`; looked for model.toml, or config.json and onnx/, in {}. `groundd models list` shows what is \
         installed, `groundd models pull` fetches more",
        .wanted.display(), places(.looked)
    )]
    NotFound {
        /// `model.path` as configured.
        wanted: PathBuf,
        /// The folders that were tried.
        looked: Vec<PathBuf>,
    },
    /// A setting cannot be meant.
    #[error("{0}")]
    Setting(String),
    /// The folder's manifest or files are not as they should be.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The runtime could not be loaded, or could not open or run a file.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The manifest names a family this build has no code for.
    #[error("{}: the model family `{family}` is unknown; this build runs: {known}", .manifest.display())]
    Family {
        /// The manifest that names it.
        manifest: PathBuf,
        /// The family it names.
        family: String,
        /// The families there are.
        known: String,
    },
    /// The manifest lacks something its family needs, or contradicts it.
    #[error("{}: {reason}", .manifest.display())]
    Unfit {
        /// The manifest.
        manifest: PathBuf,
        /// What is wrong, and what to change.
        reason: String,
    },
    /// The vocabulary cannot be used.
    #[error("{}: not a vocabulary: {reason}", .file.display())]
    Vocabulary {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture cannot be shown to the model.
    #[error(transparent)]
    Picture(#[from] VisionError),
    /// The vocabulary cannot make tokens of a text.
    #[error("the text cannot be read by the model: {reason}; say it with other words")]
    Text {
        /// What the vocabulary said.
        reason: String,
    },
    /// A batch was larger than the model's limit.
    #[error("a batch of {frames} frames exceeds the model's limit of {most}")]
    Batch {
        /// Frames in the batch.
        frames: usize,
        /// The limit.
        most: usize,
    },
    /// The model gave another number of answers than it was asked for: which belongs to which question is not known.
    #[error("the model gave {answered} answers to {asked} questions")]
    Answers {
        /// Questions, or frames in the batch.
        asked: usize,
        /// Answers to them.
        answered: usize,
    },
    /// The model's code panicked; its state cannot be trusted any more.
    #[error("the model's code panicked: {0}")]
    Panicked(String),
    /// The system would not give the model a thread.
    #[error("the `ground` thread could not be started")]
    Thread(#[source] io::Error),
}

impl GroundError {
    /// A manifest that its family cannot do with, and why.
    pub(super) fn unfit(manifest: &Manifest, reason: impl Into<String>) -> Self {
        Self::Unfit { manifest: manifest.path(), reason: reason.into() }
    }

    /// `answers`, if there is one for each of as many questions.
    pub(super) fn unless_all<T>(answers: Vec<T>, asked: usize) -> Result<Vec<T>, Self> {
        if answers.len() == asked { Ok(answers) } else { Err(Self::Answers { asked, answered: answers.len() }) }
    }

    /// Whether it is a fault of this program, rather than of anything it was given.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Batch { .. } | Self::Answers { .. } | Self::Panicked(_))
    }

    /// Whether something the machine should have is missing, if only just now, rather than the configuration or the model being wrong.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Engine(error) => match error {
                EngineError::NoLibrary { .. } | EngineError::BadLibrary { .. } | EngineError::Provider { .. } => true,
                EngineError::Open { reason, .. } | EngineError::Run { reason, .. } => is_for_want_of_memory(reason),
                _ => false,
            },
            // A disk that fails, rather than a file that is not there or not for us.
            Self::Manifest(ManifestError::Read { source, .. }) => may_pass(source),
            Self::Thread(_) => true,
            _ => false,
        }
    }
}

/// Whether the runtime says that memory was short, or a GPU: another process may have it just now.
fn is_for_want_of_memory(reason: &str) -> bool {
    ["bad_alloc", "out of memory", "allocate memory", "CUDA failure", "CUDA error"]
        .iter()
        .any(|words| reason.contains(words))
}

/// `a, b and c`, for messages that list where something was looked for.
pub(super) fn places(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|p| format!("`{}`", p.display())).collect();
    match shown.as_slice() {
        [] => "no place at all".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_no_fault_of_the_configuration() {
        let open = |reason: &str| EngineError::Open { file: "vision.onnx".into(), reason: reason.to_owned() };
        let run = |reason: &str| EngineError::Run { file: "vision.onnx".into(), reason: reason.to_owned() };
        let read = |source: io::Error| ManifestError::Read { file: "model.toml".into(), source };
        for passing in [
            GroundError::from(open("std::bad_alloc")),
            open("CUDA failure 2: out of memory ; GPU=0").into(),
            run("Failed to allocate memory for requested buffer of size 1179648").into(),
            read(io::Error::from_raw_os_error(5)).into(),
        ] {
            assert!(passing.is_unavailable(), "{passing}");
        }
        for lasting in [
            GroundError::from(open("Protobuf parsing failed.")),
            run("Got invalid dimensions for input").into(),
            read(io::ErrorKind::NotFound.into()).into(),
            read(io::ErrorKind::PermissionDenied.into()).into(),
        ] {
            assert!(!lasting.is_unavailable(), "{lasting}");
        }
    }
}
