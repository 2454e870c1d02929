//! Qwen's vision tower: pictures of any sizes, in as few passes as they fit in.

use super::super::{Open, open_role, picture, plan, trial};
use crate::{
    ground::{
        GroundError,
        engine::{Engine, EngineError, Tensor},
        manifest::Manifest,
        vision::{
            Normalise, Resampler, SmartResize, VisionError,
            qwen::{MERGE, Patches, TEMPORAL, patches},
        },
    },
    types::{Rgb, Size},
};

/// A picture as the vision tower sees it: what several queries on one frame share.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `[tokens, hidden]`.
    pub features: Vec<f32>,
    /// `[layers, tokens, hidden]`, where the language model sees the picture again.
    pub deepstack: Vec<f32>,
    /// Height and width in patches.
    pub grid: (u32, u32),
    /// Size of the resized picture.
    pub image: Size,
    /// Which look of this model it was: no two have the same.
    pub(super) look: u64,
}

impl Seen {
    /// Tokens that stand for it.
    pub(super) fn tokens(&self) -> usize {
        tokens(self.grid)
    }
}

/// Tokens of a grid in patches.
fn tokens((height, width): (u32, u32)) -> usize {
    (height / MERGE) as usize * (width / MERGE) as usize
}

/// The opened graph, and how pictures are prepared for it.
pub(super) struct Tower {
    graph: Box<dyn Engine>,
    resize: SmartResize,
    normalise: Normalise,
    resampler: Resampler,
    grid_name: &'static str,
    hidden: usize,
    /// Layers of the language model that see the picture again.
    deepstack: usize,
    /// Whether it takes several pictures in one pass.
    together: bool,
    looks: u64,
}

impl Tower {
    pub(super) fn open(
        manifest: &Manifest,
        open: &mut Open<'_>,
        hidden: usize,
        deepstack: usize,
    ) -> Result<Self, GroundError> {
        let (resize, normalise) = picture::patches(manifest)?;
        let graph = open_role(manifest, "vision_encoder", open)?;
        let grid_name = grid_name(graph.as_ref())?;
        let resampler = Resampler::default();
        Ok(Self { graph, resize, normalise, resampler, grid_name, hidden, deepstack, together: false, looks: 0 })
    }

    fn width(&self) -> usize {
        3 * TEMPORAL * (self.resize.patch as usize).pow(2)
    }

    fn cut(&mut self, picture: &Rgb) -> Result<Patches, VisionError> {
        patches(&picture.data, picture.size, &self.resize, &self.normalise, &mut self.resampler)
    }

    /// The tensor `pixel_values` of a picture, its grid in patches, and the size it was resized to.
    pub(super) fn pixels(&mut self, picture: &Rgb) -> Result<(Tensor, [u32; 3], Size), GroundError> {
        let Patches { values, grid, placement } = self.cut(picture)?;
        let shape = vec![values.len() / self.width(), self.width()];
        Ok((Tensor::f32s(&shape, values), grid, placement.image))
    }

    /// Looks at pictures. Those that together are no larger than the largest may be share a pass: what a pass takes grows
    /// faster than its pictures do.
    pub(super) fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Seen, VisionError>>, GroundError> {
        let cut: Vec<_> = pictures.iter().map(|picture| self.cut(picture)).collect();
        let fine: Vec<_> = cut.iter().filter_map(|cut| cut.as_ref().ok()).collect();
        let sizes: Vec<_> = fine.iter().map(|cut| cut.values.len() / self.width()).collect();
        let most = if self.together { self.resize.max_pixels / u64::from(self.resize.patch).pow(2) } else { 0 };
        let mut seen = Vec::with_capacity(fine.len());
        for pass in plan::passes(&sizes, usize::try_from(most).unwrap_or(usize::MAX)) {
            seen.extend(self.run(&fine[pass])?);
        }
        Ok(plan::spread(cut, seen))
    }

    /// Finds out whether several pictures go in at once, by these two, that were looked at one by one.
    pub(super) fn try_together(&mut self, pictures: &[&Rgb; 2], seen: &[&Seen; 2]) -> Result<(), GroundError> {
        let free =
            |name: &str| self.graph.input(name).is_some_and(|port| port.shape.first().is_some_and(Option::is_none));
        if !free("pixel_values") || !free(self.grid_name) {
            return Ok(());
        }
        let cut = [self.cut(pictures[0])?, self.cut(pictures[1])?];
        let same = |a: &Seen, b: &Seen| {
            trial::alike(&a.features, &b.features) && trial::alike(&a.deepstack, &b.deepstack) && a.grid == b.grid
        };
        // A graph that fails at two is one that takes one.
        self.together = self.run(&cut.each_ref()).is_ok_and(|both| both.iter().zip(seen).all(|(a, b)| same(a, b)));
        Ok(())
    }

    fn run(&mut self, pictures: &[&Patches]) -> Result<Vec<Seen>, GroundError> {
        let (layers, hidden) = (self.deepstack, self.hidden);
        let values = match pictures {
            [one] => one.values.clone(),
            many => many.iter().flat_map(|cut| &cut.values).copied().collect(),
        };
        let pixels = Tensor::f32s(&[values.len() / self.width(), self.width()], values);
        let grids = pictures.iter().flat_map(|cut| cut.grid.map(i64::from)).collect();
        let grids = Tensor::i64s(&[pictures.len(), 3], grids);
        let mut outputs = self.graph.run(&[("pixel_values", &pixels), (self.grid_name, &grids)])?;
        let grid = |cut: &Patches| (cut.grid[1], cut.grid[2]);
        let all: usize = pictures.iter().map(|cut| tokens(grid(cut))).sum();
        // Some exports put a batch of one around it.
        let mut take = |name: &str, shape: &[usize]| {
            outputs.take_only_f32(name, shape).map_err(|reason| self.graph.failed(reason))
        };
        let features = take("image_features", &[all, hidden])?;
        let deepstack = if layers == 0 { Vec::new() } else { take("deepstack_features", &[layers, all, hidden])? };
        let mut from = 0;
        let seen = pictures.iter().map(|cut| {
            let own = from * hidden..(from + tokens(grid(cut))) * hidden;
            from += tokens(grid(cut));
            self.looks += 1;
            Seen {
                features: features[own.clone()].to_vec(),
                deepstack: deepstack.chunks(all * hidden).flat_map(|layer| &layer[own.clone()]).copied().collect(),
                grid: grid(cut),
                image: cut.placement.image,
                look: self.looks,
            }
        });
        Ok(seen.collect())
    }
}

/// Qwen2-VL's published graph calls the grid otherwise than the later ones.
fn grid_name(vision: &dyn Engine) -> Result<&'static str, EngineError> {
    let name = ["image_grid_thw", "grid_thw"].into_iter().find(|name| vision.input(name).is_some());
    name.filter(|_| vision.input("pixel_values").is_some() && vision.inputs().len() == 2)
        .ok_or_else(|| vision.wrong_inputs("pixel_values, and image_grid_thw or grid_thw".to_owned()))
}
