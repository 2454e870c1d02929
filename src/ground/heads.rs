//! Models that score boxes by words, opened and tried: the one place that knows all their families.

use std::path::PathBuf;

use super::{
    GroundError,
    manifest::Manifest,
    methods::find::Finder,
    models::{
        Open,
        closed::{self, Closed},
        contrast::{self, Contrast},
        dino::{self, Dino},
        llava::{self, Llava},
        owl::{self, Owl},
        regional::{self, Regional},
    },
};
use crate::types::{Method, Rgb, Size};

/// An opened model.
pub(super) struct Opened {
    pub(super) model: Box<dyn Finder>,
    /// The method it answers by.
    pub(super) method: Method,
    /// Least score of a match, where a query has no threshold of its own.
    pub(super) least: f32,
    /// The model that works for it.
    pub(super) other: Option<Manifest>,
}

/// Whether a family is one of these.
pub(super) fn known(family: &str) -> bool {
    closed::FAMILIES.contains(&family)
        || contrast::FAMILIES.contains(&family)
        || regional::FAMILIES.contains(&family)
        || [dino::FAMILY, owl::FAMILY, llava::FAMILY].contains(&family)
}

/// Opens the model of a manifest whose family is known here; another model it needs is looked for in `folders` too. It
/// has been shown a picture: what would fail on the first frame has failed.
pub(super) fn open(manifest: &Manifest, folders: &[PathBuf], open: &mut Open<'_>) -> Result<Opened, GroundError> {
    let (mut model, method, other): (Box<dyn Finder>, _, _) = match manifest.family.as_str() {
        family if contrast::FAMILIES.contains(&family) => {
            let (model, other) = Contrast::open(manifest, folders, open)?;
            (Box::new(model), Method::Retrieve, Some(other))
        }
        family if regional::FAMILIES.contains(&family) => {
            let (model, other) = Regional::open(manifest, folders, open)?;
            (Box::new(model), Method::Retrieve, Some(other))
        }
        dino::FAMILY => (Box::new(Dino::open(manifest, open)?), Method::Detector, None),
        llava::FAMILY => (Box::new(Llava::open(manifest, open)?), Method::Detector, None),
        owl::FAMILY => (Box::new(Owl::open(manifest, open)?), Method::Detector, None),
        _ => (Box::new(Closed::open(manifest, open)?), Method::Detector, None),
    };
    let size = Size::new(64, 64);
    model.warm_up(&Rgb { size, data: vec![128; size.area() * 3].into() })?;
    let least = manifest.scores.as_ref().map_or(0.0, |scores| scores.matching);
    Ok(Opened { model, method, least, other })
}
