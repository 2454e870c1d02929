//! Models that score boxes by words, opened and tried.

use std::path::PathBuf;

use super::{
    GroundError,
    manifest::Manifest,
    methods::find::Finder,
    models::{Head, Open, closed::Closed, contrast::Contrast, dino::Dino, llava::Llava, owl::Owl, regional::Regional},
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

/// Opens the model of a manifest; another model it needs is looked for in `folders` too. It
/// has been shown a picture: what would fail on the first frame has failed.
pub(super) fn open(
    head: Head,
    manifest: &Manifest,
    folders: &[PathBuf],
    open: &mut Open<'_>,
) -> Result<Opened, GroundError> {
    let (mut model, method, other): (Box<dyn Finder>, _, _) = match head {
        Head::Contrast => {
            let (model, other) = Contrast::open(manifest, folders, open)?;
            (Box::new(model), Method::Retrieve, Some(other))
        }
        Head::Regional => {
            let (model, other) = Regional::open(manifest, folders, open)?;
            (Box::new(model), Method::Retrieve, Some(other))
        }
        Head::Dino => (Box::new(Dino::open(manifest, open)?), Method::Detector, None),
        Head::Llava => (Box::new(Llava::open(manifest, open)?), Method::Detector, None),
        Head::Owl => (Box::new(Owl::open(manifest, open)?), Method::Detector, None),
        Head::Closed => (Box::new(Closed::open(manifest, open)?), Method::Detector, None),
    };
    let size = Size::new(64, 64);
    model.warm_up(&Rgb { size, data: vec![128; size.area() * 3].into() })?;
    let least = manifest.scores.as_ref().map_or(0.0, |scores| scores.matching);
    Ok(Opened { model, method, least, other })
}
