//! What an evaluation found, as it is written to JSON.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::Serialize;

use crate::{
    eval::{Bill, Cost, Dataset, Figures, Style},
    ground::{ModelInfo, Provider},
    types::{Method, ScoreKind},
};

/// The whole evaluation.
#[derive(Serialize)]
pub(super) struct Report {
    /// Version of this layout.
    pub(super) v: u32,
    pub(super) groundd: &'static str,
    #[serde(rename = "dataset")]
    pub(super) data: Data,
    pub(super) model: Model,
    /// Least score of a reported box, where the command line gave one.
    pub(super) threshold: Option<f32>,
    /// Passes that `zoom` may take for a phrase beyond the whole image's; `None` is no limit.
    pub(super) zoom_passes: Option<usize>,
    pub(super) methods: Vec<MethodReport>,
}

/// The data set.
#[derive(Serialize)]
pub(super) struct Data {
    pub(super) path: String,
    #[serde(skip)]
    pub(super) name: String,
    pub(super) style: Style,
    /// Images that were asked about.
    pub(super) images: usize,
    /// Images that could not be read after all, and are in no figure.
    pub(super) unreadable: usize,
}

/// The model and what it ran on.
#[derive(Serialize)]
pub(super) struct Model {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) family: String,
    pub(super) provider: Provider,
    pub(super) onnx_runtime: String,
    /// CPU threads asked for; 0 is one a core.
    pub(super) threads: usize,
    /// How many times the model's usual number of pixels were looked at.
    pub(super) detail: f32,
}

/// One method.
#[derive(Serialize)]
pub(super) struct MethodReport {
    pub(super) method: Method,
    /// What the scores that the ranking went by mean.
    pub(super) score_kinds: Vec<ScoreKind>,
    pub(super) figures: Figures,
    pub(super) cost: CostReport,
    /// Why phrases were refused, and how many.
    pub(super) refused: BTreeMap<String, usize>,
    pub(super) kinds: BTreeMap<Arc<str>, Figures>,
}

/// What a method took, after a first frame to warm up.
#[derive(Serialize)]
pub(super) struct CostReport {
    pub(super) frames: usize,
    pub(super) ms: Option<Bill>,
    pub(super) passes: Option<Bill>,
    pub(super) tokens: Option<Bill>,
}

impl Data {
    /// `unreadable` of the images turned out not to be.
    pub(super) fn of(dataset: &Dataset, unreadable: usize) -> Self {
        let name = dataset.path.canonicalize().unwrap_or_else(|_| dataset.path.clone());
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = dataset.path.display().to_string();
        Self { path, name, style: dataset.style, images: dataset.entries.len() - unreadable, unreadable }
    }
}

impl Model {
    pub(super) fn of(info: &ModelInfo, threads: usize, detail: f32) -> Self {
        Self {
            id: info.id(),
            version: info.version.clone(),
            family: info.family.clone(),
            provider: info.provider,
            onnx_runtime: info.runtime.clone(),
            threads,
            detail,
        }
    }
}

impl From<&Cost> for CostReport {
    fn from(cost: &Cost) -> Self {
        Self { frames: cost.frames(), ms: cost.ms(), passes: cost.passes(), tokens: cost.tokens() }
    }
}

/// Writes the report.
pub(super) fn write(report: &Report, path: &Path) -> Result<(), String> {
    let mut text = serde_json::to_string_pretty(report).map_err(|e| e.to_string())?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| e.to_string())
}
