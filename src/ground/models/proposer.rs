//! Other models as proposers: whatever offers boxes, behind [`BoxProposer`].

use std::path::PathBuf;

use super::{
    Open,
    closed::{self, Closed},
    nano::{self, Nano},
    need,
};
use crate::{
    ground::{
        self, GroundError,
        manifest::Manifest,
        methods::{
            propose::{BoxProposer, Candidate, Region, suppress},
            retrieve::Proposer as _,
        },
        vision::{Filter, Resampler},
    },
    types::{Letterbox, Rgb, Size},
};

/// Of two regions that nano offers and that overlap more than this the surer one stays: it offers several a thing.
const NANO_IOU: f32 = 0.8;

/// Opens the proposer that `manifest` names, in a folder of its own or among `folders`; and says which model it is.
pub fn open(
    manifest: &Manifest,
    folders: &[PathBuf],
    open: &mut Open<'_>,
) -> Result<(Box<dyn BoxProposer>, Manifest), GroundError> {
    let wanted = need(manifest, "proposer", manifest.proposer.as_ref())?;
    let beside = manifest.dir.join(&wanted.model);
    let other = match ground::find(&beside, &[]) {
        Err(GroundError::NotFound { .. }) => ground::find(&wanted.model, folders)?,
        found => found?,
    };
    let family = other.family.as_str();
    if family != nano::FAMILY && !closed::FAMILIES.contains(&family) {
        let reason = format!(
            "proposer.model: {} is of the family {family}, which offers no regions; take one of {}, {}",
            other.path().display(),
            nano::FAMILY,
            closed::FAMILIES.join(", ")
        );
        return Err(GroundError::unfit(manifest, reason));
    }
    other.verify(|_| ())?;
    let model: Box<dyn BoxProposer> = if family == nano::FAMILY {
        Box::new(Small::open(&other, open)?)
    } else {
        Box::new(Closed::open(&other, open)?)
    };
    Ok((Box::new(Few { model, most: wanted.regions, told: false }), other))
}

/// The surest few regions of another proposer.
struct Few {
    model: Box<dyn BoxProposer>,
    most: usize,
    /// Whether it was told that regions are left out.
    told: bool,
}

impl BoxProposer for Few {
    fn regions(&mut self, picture: &Rgb) -> Result<Vec<Region>, GroundError> {
        let mut regions = self.model.regions(picture)?;
        if regions.len() > self.most && !self.told {
            self.told = true;
            let (offered, most) = (regions.len(), self.most);
            tracing::warn!("of {offered} regions only the surest {most} are looked at: proposer.regions says so");
        }
        regions.truncate(self.most);
        Ok(regions)
    }
}

/// The bundled model's proposals, on any picture: it takes canvases of one size, the picture centred on black.
struct Small {
    model: Nano,
    canvas: Size,
    objectness: f32,
    resampler: Resampler,
}

impl Small {
    fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let objectness = need(manifest, "scores", manifest.scores.as_ref())?.objectness;
        let model = Nano::open(manifest, open)?;
        Ok(Self { model, canvas: manifest.canvas(), objectness, resampler: Resampler::default() })
    }

    fn canvas(&mut self, picture: &Rgb, view: &Letterbox) -> Result<Rgb, GroundError> {
        let resized = self.resampler.resize(&picture.data, picture.size, view.inner, Filter::Bilinear)?;
        Ok(Rgb { size: view.inner, data: resized.into() }.laid(view.canvas, [view.left, view.top]))
    }
}

impl BoxProposer for Small {
    fn regions(&mut self, picture: &Rgb) -> Result<Vec<Region>, GroundError> {
        let view = Letterbox::fit(picture.size, 1.0, self.canvas);
        let canvas = self.canvas(picture, &view)?;
        let offered = self.model.propose(&[&canvas])?;
        let sure = offered.boxes.iter().zip(&offered.objectness).filter(|(_, score)| **score >= self.objectness);
        let candidates = sure.filter_map(|(corners, score)| {
            Some(Candidate { corners: view.to_source(*corners)?.corners(), class: 0, score: *score })
        });
        let best = suppress(candidates.collect(), NANO_IOU, usize::MAX);
        Ok(best.iter().filter_map(Candidate::region).collect())
    }
}
