//! A vision tower that takes pictures of one size: several in one pass, where it can.

use super::{Open, open_role, picture, plan, trial};
use crate::{
    ground::{
        GroundError,
        engine::{self, Data, Engine, Tensor},
        manifest::Manifest,
        vision::{Fit, Resampler, VisionError},
    },
    types::Rgb,
};

/// What a picture looks like: `[tokens, hidden]`.
pub(super) type Seen = Vec<f32>;

/// The opened graph, and how pictures are prepared for it.
pub(super) struct Tower {
    graph: Box<dyn Engine>,
    fit: Fit,
    resampler: Resampler,
    /// Tokens that stand for a picture.
    tokens: usize,
    hidden: usize,
    /// Most pictures in a pass, if it takes several.
    most: usize,
    together: bool,
}

impl Tower {
    /// `most` pictures may share a pass.
    pub(super) fn open(
        manifest: &Manifest,
        open: &mut Open<'_>,
        hidden: usize,
        most: usize,
    ) -> Result<Self, GroundError> {
        let (fit, graph) = (picture::stretch(manifest)?, open_role(manifest, "vision_encoder", open)?);
        let tokens = manifest.limits.image_tokens;
        Ok(Self { graph, fit, resampler: Resampler::default(), tokens, hidden, most: most.max(1), together: false })
    }

    /// The tensor `pixel_values` of a picture.
    pub(super) fn pixels(&mut self, picture: &Rgb) -> Result<Tensor, VisionError> {
        picture::stretched(&self.fit, picture, &mut self.resampler)
    }

    /// Looks at pictures, in as few passes as the graph and memory allow.
    pub(super) fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Seen, VisionError>>, GroundError> {
        let pixels: Vec<_> = pictures.iter().map(|picture| self.pixels(picture)).collect();
        let fine: Vec<_> = pixels.iter().filter_map(|pixels| pixels.as_ref().ok()).collect();
        let mut seen = Vec::with_capacity(fine.len());
        for some in fine.chunks(if self.together { self.most } else { 1 }) {
            seen.extend(self.run(some)?);
        }
        Ok(plan::spread(pixels, seen))
    }

    /// Finds out whether several pictures go in at once, by these two, that were looked at one by one.
    pub(super) fn try_together(&mut self, pictures: &[&Rgb; 2], seen: &[&Seen; 2]) -> Result<(), GroundError> {
        let free = self.graph.inputs().iter().all(|port| port.shape.first().is_some_and(Option::is_none));
        if free && self.most > 1 {
            let pixels = [self.pixels(pictures[0])?, self.pixels(pictures[1])?];
            let both = self.run(&pixels.each_ref());
            self.together = both.is_ok_and(|both| both.iter().zip(seen).all(|(a, b)| trial::alike(a, b)));
        }
        Ok(())
    }

    fn run(&mut self, pictures: &[&Tensor]) -> Result<Vec<Seen>, GroundError> {
        let (count, shape) = (pictures.len(), [pictures.len(), self.tokens, self.hidden]);
        let floats = |tensor: &&Tensor| if let Data::F32(data) = &tensor.data { data.clone() } else { Vec::new() };
        let data = Data::F32(pictures.iter().flat_map(floats).collect());
        let more = pictures.first().map(|tensor| tensor.shape[1..].to_vec()).unwrap_or_default();
        let pixels = Tensor { shape: [vec![count], more].concat(), data };
        let [features] =
            engine::run_f32(self.graph.as_mut(), &[("pixel_values", &pixels)], [("image_features", &shape)])?;
        Ok(features.chunks(self.tokens * self.hidden).map(<[f32]>::to_vec).collect())
    }
}
