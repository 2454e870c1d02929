//! From a model's folder to models that can be asked: one, or one a core where that is better.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    GroundError, Grounder, Limits, ModelConfig, ModelInfo,
    effort::Meter,
    engine::{
        EngineError,
        lanes::Lanes,
        local::{Compute, Local, Runtime},
    },
    heads, library_path,
    manifest::Manifest,
    methods::{regions::Bar, together::Bars, written::Writer, zoom::Zoom},
    models::{Family, florence::Florence, nano::Nano, paligemma::PaliGemma, qwen::Qwen, trial},
    router::{Able, Built, Finding, Router, Searching, Together, Writing},
    seeing::{self, Seeing},
};
use crate::types::{Method, chain};

/// See [`super::load_team`].
pub(super) fn load(config: &ModelConfig, folders: &[PathBuf], most: usize) -> Result<Box<dyn Grounder>, GroundError> {
    let mut opening = Opening::new(config, folders)?;
    let meter = Meter::default();
    let first = opening.open(opening.compute, &meter)?;
    let spare = opening.more(most);
    // Until others were opened beside it, the first had all threads.
    let first = if spare.is_empty() {
        first
    } else {
        drop(first);
        opening.open(opening.compute.part(0, 1 + spare.len()), &meter)?
    };
    let Opened { model, methods, at_once, other } = first;
    let manifest = &opening.manifest;
    let info = ModelInfo {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        hash8: other.map_or_else(|| manifest.hash8(), |other| Manifest::hash8_of(&[manifest, &other])),
        family: manifest.family.clone(),
        methods,
        provider: config.provider,
        library: opening.runtime.library().to_owned(),
        runtime: opening.runtime.version(),
    };
    let limits = Limits { max_batch: manifest.limits.max_batch.max(at_once), canvases: manifest.canvases() };
    Ok(meter.grounder(Box::new(Router::new(model, info, limits, spare))))
}

/// What models are opened from.
struct Opening {
    manifest: Manifest,
    folders: Vec<PathBuf>,
    runtime: Runtime,
    compute: Compute,
    /// Each model searches by another one of it: what they remember of cameras they share.
    zoom: Zoom,
    /// The file that sees every picture, which all share.
    sees: Option<Lanes<Local>>,
    /// The other files of a model.
    files: BTreeSet<PathBuf>,
}

/// A model that was opened.
struct Opened {
    model: Box<dyn Able>,
    methods: Vec<Method>,
    /// Pictures that it looks at at once.
    at_once: usize,
    /// The model that works for it.
    other: Option<Manifest>,
}

impl Opening {
    fn new(config: &ModelConfig, folders: &[PathBuf]) -> Result<Self, GroundError> {
        let manifest = configured(config, folders)?;
        let runtime = Runtime::load(&library_path(config)?)?;
        let compute = Compute { provider: config.provider, device: config.device, threads: config.threads };
        Ok(Self {
            zoom: Zoom::new(config.zoom, manifest.limits.max_batch).with_detail(config.detail),
            manifest,
            folders: folders.to_owned(),
            runtime,
            compute,
            sees: None,
            files: BTreeSet::new(),
        })
    }

    /// More models beside the first, of which there are then at most `most`: one a thread, where a thread alone looks at a picture as
    /// well as all do, and as far as the memory allows it. Where one cannot be opened there are fewer, and the log says why.
    fn more(&mut self, most: usize) -> Vec<Built> {
        let at_once = self.sees.as_ref().map_or(1, Lanes::at_once);
        let count = most.min(at_once).min(self.compute.copies(self.files.iter().map(PathBuf::as_path)));
        let mut more = Vec::new();
        for index in 1..count {
            let meter = Meter::default();
            match self.open(self.compute.part(index, count), &meter) {
                Ok(Opened { model, .. }) => more.push(Built { model, meter }),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!(
                        models = more.len() + 1,
                        "the model is not opened once more for another core: {reason}"
                    );
                    break;
                }
            }
        }
        more
    }

    /// Opens a model whose files are run with so much, but for the one that sees every picture.
    fn open(&mut self, compute: Compute, meter: &Meter) -> Result<Opened, GroundError> {
        let Self { manifest, folders, runtime, compute: whole, zoom, sees, files } = self;
        let first = sees.is_none();
        let mut open = |file: &Path| {
            if !seeing::is_file(manifest, file) {
                files.insert(file.to_owned());
                // Texts, prompts and caches are of any length.
                return Ok(meter.count(Lanes::new(Local::open_varied(runtime, file, compute)?, vec![])));
            }
            let lanes = match sees {
                Some(lanes) => lanes.clone(),
                None => sees.insert(lanes(runtime, manifest, file, *whole)?).clone(),
            };
            Ok(meter.count(lanes))
        };
        match Family::of(&manifest.family) {
            Some(Family::Nano) => {
                let mut model = Nano::open(manifest, &mut open)?;
                model.warm_up(first)?;
                let (bars, zoom) = (bars(manifest)?, zoom.another());
                let model = Together { model, bars, canvases: manifest.canvases(), zoom };
                Ok(Opened::one(model, manifest.methods.clone()))
            }
            Some(Family::Qwen) => {
                let methods = among(manifest, &[Method::Coords, Method::Zoom])?;
                let model = tried(Qwen::open(manifest, &mut open)?)?;
                Ok(Opened::one(Searching { model, zoom: zoom.another() }, methods))
            }
            Some(Family::Florence) => {
                let methods = among(manifest, &[Method::Bins])?;
                Ok(Opened::one(Writing(tried(Florence::open(manifest, &mut open)?)?), methods))
            }
            Some(Family::PaliGemma) => {
                let methods = among(manifest, &[Method::Bins])?;
                Ok(Opened::one(Writing(tried(PaliGemma::open(manifest, &mut open)?)?), methods))
            }
            Some(Family::Head(head)) => {
                let heads::Opened { model, method, least, other } = heads::open(head, manifest, folders, &mut open)?;
                let (at_once, methods) = (model.at_once(), among(manifest, &[method])?);
                Ok(Opened { model: Box::new(Finding { model, least }), methods, at_once, other })
            }
            None => {
                let (manifest, family) = (manifest.path(), manifest.family.clone());
                Err(GroundError::Family { manifest, family, known: Family::names() })
            }
        }
    }
}

/// A file that sees pictures, by all threads and by each.
fn lanes(runtime: &Runtime, manifest: &Manifest, file: &Path, compute: Compute) -> Result<Lanes<Local>, EngineError> {
    let (seeing, together) = Seeing::first(runtime, manifest, file, compute)?;
    let count = compute.lanes(file);
    let alone = (0..count).map(|index| seeing.open(compute.part(index, count)));
    Ok(Lanes::new(together, alone.collect::<Result<_, _>>()?))
}

impl Opened {
    fn one(model: impl Able + 'static, methods: Vec<Method>) -> Self {
        Self { model: Box::new(model), methods, at_once: 1, other: None }
    }
}

/// The configured model's manifest, whose files are what it says.
fn configured(config: &ModelConfig, folders: &[PathBuf]) -> Result<Manifest, GroundError> {
    let mut manifest = seeing::manifest(config, folders)?;
    if manifest.is_derived() {
        tracing::warn!("{}: no model.toml vouches for these files; they are taken as they are", manifest.dir.display());
        // What was just computed need not be compared with itself.
        manifest.seal(|_| ())?;
    } else {
        manifest.verify(|_| ())?;
    }
    if let Some(selection) = config.selection {
        let Some(regions) = &mut manifest.regions else {
            let reason = format!(
                "the family {} is not shown regions to choose among; take model.selection out of the configuration",
                manifest.family
            );
            return Err(GroundError::unfit(&manifest, reason));
        };
        regions.selection = selection;
    }
    Ok(manifest)
}

fn tried<M: Writer>(mut model: M) -> Result<M, GroundError> {
    model.warm_up(&trial::pictures())?;
    Ok(model)
}

/// Of the manifest's methods those that its family can do here, in the manifest's order. A folder may promise more than
/// this build can do.
fn among(manifest: &Manifest, methods: &[Method]) -> Result<Vec<Method>, GroundError> {
    let can: Vec<_> = manifest.methods.iter().filter(|method| methods.contains(method)).copied().collect();
    if !can.is_empty() {
        return Ok(can);
    }
    let known: Vec<_> = methods.iter().map(|method| method.name()).collect();
    let reason = format!("methods: the family {} can do: {}; name it", manifest.family, known.join(", "));
    Err(GroundError::unfit(manifest, reason))
}

fn bars(manifest: &Manifest) -> Result<Bars, GroundError> {
    let Some(scores) = &manifest.scores else {
        let reason = format!("the family {} needs the table [scores]", manifest.family);
        return Err(GroundError::unfit(manifest, reason));
    };
    if let Some(variance) = scores.soft_nms.filter(|variance| !(variance.is_finite() && *variance > 0.0)) {
        let reason = format!("scores.soft_nms: is {variance}; it should be above 0, or left out");
        return Err(GroundError::unfit(manifest, reason));
    }
    let retrieve = Bar {
        objectness: scores.objectness,
        score: scores.matching,
        nms_iou: scores.nms_iou,
        soft: scores.soft_nms.unwrap_or(f32::INFINITY),
    };
    let [detector, write, exist] = [scores.detector, scores.write, scores.exist].map(|bar| bar.unwrap_or(0.5));
    Ok(Bars { retrieve, detector, write, exist })
}
