//! Opening the file of a model that sees every picture.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    GroundError, ModelConfig, Provider,
    engine::{
        EngineError,
        local::{Compute, Local, Runtime},
        resizable,
    },
    find,
    manifest::{Fit, Manifest},
    models::closed,
};
use crate::types::chain;

/// The file that sees every picture, by the families' names for it.
const ROLES: [&str; 2] = ["vision", "detector"];

/// A model's file that sees every picture, to be opened as often as it takes.
#[derive(Clone)]
pub(super) struct Seeing {
    runtime: Runtime,
    file: PathBuf,
    /// The file's graph for pictures of any size, where that is wanted and can be had.
    graph: Option<Arc<[u8]>>,
}

impl Seeing {
    /// Opens a file of a model for the first time.
    pub(super) fn first(
        runtime: &Runtime,
        manifest: &Manifest,
        file: &Path,
        compute: Compute,
    ) -> Result<(Self, Local), EngineError> {
        let published = Self::as_published(runtime, file);
        if manifest.input.rect {
            let graph = fs::read(file).map_err(|e| e.to_string());
            let graph = graph.and_then(|graph| resizable::freed(&graph, manifest.canvas()).map_err(|e| e.to_string()));
            let opened = graph.and_then(|graph| {
                let freed = Self { graph: Some(graph.into()), ..published.clone() };
                freed.open(compute).map(|engine| (freed, engine)).map_err(|e| chain(&e))
            });
            match opened {
                Ok(opened) => return Ok(opened),
                Err(reason) => tracing::warn!("input.rect: pictures keep their border: {}: {reason}", file.display()),
            }
        }
        let engine = published.open(compute)?;
        Ok((published, engine))
    }

    /// What opens the very file, whatever the manifest says of pictures.
    pub(super) fn as_published(runtime: &Runtime, file: &Path) -> Self {
        Self { runtime: runtime.clone(), file: file.to_owned(), graph: None }
    }

    /// Opens it once more.
    pub(super) fn open(&self, compute: Compute) -> Result<Local, EngineError> {
        match &self.graph {
            Some(graph) => Local::open_changed(&self.runtime, &self.file, graph, compute),
            None => Local::open(&self.runtime, &self.file, compute),
        }
    }
}

/// The file of a model that sees every picture.
pub(super) fn file(manifest: &Manifest) -> Option<PathBuf> {
    ROLES.iter().find_map(|role| manifest.file(role))
}

/// Whether this file of a model sees every picture.
pub(super) fn is_file(manifest: &Manifest, file: &Path) -> bool {
    ROLES.iter().any(|role| manifest.file(role).is_some_and(|one| one == file))
}

/// The configured model's manifest, as it holds for what computes: a GPU plans its work for pictures of one size, and doing so for
/// every other takes it longer than a border does.
pub(super) fn manifest(config: &ModelConfig, folders: &[PathBuf]) -> Result<Manifest, GroundError> {
    let mut manifest = find(&config.path, folders)?;
    if manifest.input.rect && (manifest.family != closed::YOLOX || manifest.input.fit != Fit::Corner) {
        let reason = format!(
            "input.rect: has a use for the family {} with fit = \"corner\" only, and this is {} with fit = \"{}\"; take it out",
            closed::YOLOX,
            manifest.family,
            manifest.input.fit.name()
        );
        return Err(GroundError::unfit(&manifest, reason));
    }
    if config.provider == Provider::Tensorrt {
        if file(&manifest).is_none() {
            let reason = "TensorRT takes graphs that see every picture at one size, and this model has none; use provider = \"cuda\"";
            return Err(GroundError::unfit(&manifest, reason));
        }
        // For every number of pictures that come together it would build the graph anew, minutes in the midst of service.
        manifest.limits.max_batch = 1;
    }
    manifest.detail = detail(config.detail, &manifest)?;
    manifest.input.rect &= config.provider == Provider::Cpu;
    if config.provider != Provider::Cpu {
        manifest.input.shapes.clear();
    }
    Ok(manifest)
}

/// More or less detail than usual, if the model can be shown it.
fn detail(wanted: f32, manifest: &Manifest) -> Result<Option<f32>, GroundError> {
    if (wanted - 1.0).abs() < f32::EPSILON {
        return Ok(None);
    }
    if manifest.input.shapes.is_empty() {
        let reason = format!(
            "detail (model.detail, --detail): {wanted} is for models that list `shapes` under `[input]`, as nano does; use 1"
        );
        return Err(GroundError::unfit(manifest, reason));
    }
    Ok(Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensorrt_gets_graphs_that_see_pictures_and_one_picture_at_a_time() {
        let folders = [PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")];
        let on = |provider, path: &Path| {
            manifest(&ModelConfig { provider, path: path.to_owned(), ..ModelConfig::default() }, &folders)
        };
        assert!(on(Provider::Cuda, "nano".as_ref()).unwrap().limits.max_batch > 1);
        assert_eq!(on(Provider::Tensorrt, "nano".as_ref()).unwrap().limits.max_batch, 1);
        let qwen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vlm/qwen2-vl/model");
        assert!(on(Provider::Cuda, &qwen).is_ok());
        assert!(on(Provider::Tensorrt, &qwen).unwrap_err().to_string().contains("provider = \"cuda\""));
    }
}
