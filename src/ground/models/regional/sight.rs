//! What is seen: the picture by its towers, and each region by both.
//!
//! The graphs are `vision_encoder`, an `aux_encoder` where the model has a second tower, and `region_encoder`. The last
//! takes outputs of the other two by their names, and `vt_boxes` and `aux_boxes` (f32 `[regions, 4]`: corners in pixels of
//! the first and of the second tower's picture), and `image_grid_thw`; it gives `region_features`, f32 `[regions, hidden]`.
//! Which layers, pyramids and embeddings of position are in it is the graph's business.

use crate::{
    ground::{
        GroundError,
        engine::{self, Engine, Tensor},
        manifest::{Aux, Manifest},
        models::{Open, need, open_role, picture},
        vision::{
            Filter, Normalise, Resampler, SmartResize,
            qwen::{MERGE, TEMPORAL, patches},
        },
    },
    types::{BBox, Rgb, Size},
};

/// What is fed to the region encoder besides what the towers give.
const OWN: [&str; 3] = ["vt_boxes", "aux_boxes", "image_grid_thw"];

/// The graphs.
pub(super) struct Sight {
    vision: Box<dyn Engine>,
    aux: Option<Second>,
    regions: Box<dyn Engine>,
    resize: SmartResize,
    normalise: Normalise,
    longest: Option<u32>,
    hidden: usize,
    resampler: Resampler,
}

/// The second tower.
struct Second {
    engine: Box<dyn Engine>,
    /// What the picture is stretched to; its own size otherwise.
    size: Option<Size>,
    normalise: Normalise,
}

/// A picture as the towers see it: what all prompts about one frame share.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `[tokens, hidden]`.
    pub features: Vec<f32>,
    /// Height and width in patches.
    pub grid: (u32, u32),
    /// What the region encoder reads of the towers, by name.
    pub states: Vec<(String, Tensor)>,
    /// Size of the picture that is the frame's.
    pub picture: Size,
    /// Size of the first tower's picture.
    pub image: Size,
    /// Size of the second tower's picture.
    pub aux: Option<Size>,
}

impl Seen {
    /// Tokens that stand for the picture.
    pub fn tokens(&self) -> usize {
        (self.grid.0 / MERGE) as usize * (self.grid.1 / MERGE) as usize
    }

    fn grid_tensor(&self) -> Tensor {
        Tensor::i64s(&[1, 3], vec![1, self.grid.0.into(), self.grid.1.into()])
    }
}

impl Sight {
    pub(super) fn open(manifest: &Manifest, hidden: usize, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let (resize, normalise) = picture::patches(manifest)?;
        let second = manifest.files.iter().any(|file| file.role == "aux_encoder");
        let aux = if second { Some(Second::open(manifest, open)?) } else { None };
        let vision = open_role(manifest, "vision_encoder", open)?;
        let regions = open_role(manifest, "region_encoder", open)?;
        let seen = vision.outputs().iter().chain(aux.iter().flat_map(|aux| aux.engine.outputs()));
        let known: Vec<_> = OWN.into_iter().chain(seen.map(|port| port.name.as_str())).collect();
        if let Some(port) = regions.inputs().iter().find(|port| !known.contains(&port.name.as_str())) {
            let expected = format!("among {}", known.join(", "));
            return Err(regions.wrong_ports("inputs", expected, port.to_string()).into());
        }
        Ok(Self {
            vision,
            aux,
            regions,
            resize,
            normalise,
            longest: manifest.input.longest,
            hidden,
            resampler: Resampler::default(),
        })
    }

    /// Looks at a picture.
    pub(super) fn look(&mut self, picture: &Rgb) -> Result<Seen, GroundError> {
        let shown = self.shrunk(picture)?;
        let cut = patches(&shown.data, shown.size, &self.resize, &self.normalise, &mut self.resampler)?;
        let width = 3 * TEMPORAL * (self.resize.patch as usize).pow(2);
        let pixels = Tensor::f32s(&[cut.values.len() / width, width], cut.values);
        let mut seen = Seen {
            features: Vec::new(),
            grid: (cut.grid[1], cut.grid[2]),
            states: Vec::new(),
            picture: picture.size,
            image: cut.placement.image,
            aux: None,
        };
        let mut outputs = self.vision.run(&[("pixel_values", &pixels), ("image_grid_thw", &seen.grid_tensor())])?;
        let shape = [seen.tokens(), self.hidden];
        let features = outputs.take_f32("image_features", &shape);
        seen.features = features.map_err(|reason| self.vision.failed(reason))?;
        let wanted = self.regions.inputs();
        let mut keep = |outputs: &mut engine::Outputs| {
            seen.states.extend(wanted.iter().filter_map(|port| Some((port.name.clone(), outputs.take(&port.name)?))));
        };
        keep(&mut outputs);
        if let Some(aux) = &mut self.aux {
            let (pixels, size) = aux.pixels(&shown, &mut self.resampler)?;
            keep(&mut aux.engine.run(&[("pixel_values", &pixels)])?);
            seen.aux = Some(size);
        }
        Ok(seen)
    }

    /// `[boxes, hidden]`: what the model is told of some boxes, in pixels of the picture that was looked at.
    pub(super) fn regions(&mut self, seen: &Seen, boxes: &[BBox]) -> Result<Vec<f32>, GroundError> {
        let corners = |to: Size| {
            let data = boxes.iter().flat_map(|bbox| laid(bbox, seen.picture, to)).collect();
            Tensor::f32s(&[boxes.len(), 4], data)
        };
        let own = [corners(seen.image), corners(seen.aux.unwrap_or(seen.image)), seen.grid_tensor()];
        let feeds = OWN.into_iter().zip(&own).chain(seen.states.iter().map(|(name, state)| (name.as_str(), state)));
        let feeds: Vec<_> = feeds.filter(|(name, _)| self.regions.input(name).is_some()).collect();
        let shape = [boxes.len(), self.hidden];
        let [features] = engine::run_f32(self.regions.as_mut(), &feeds, [("region_features", &shape)])?;
        Ok(features)
    }

    /// The picture, no larger than the model was ever shown one, and no smaller than one token.
    fn shrunk(&mut self, picture: &Rgb) -> Result<Rgb, GroundError> {
        let size = fitted(picture.size, self.longest, self.resize.factor());
        if size == picture.size {
            return Ok(picture.clone());
        }
        let data = self.resampler.resize(&picture.data, picture.size, size, Filter::Bicubic)?;
        Ok(Rgb { size, data: data.into() })
    }
}

impl Second {
    fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let Aux { width, height, mean, std } = need(manifest, "aux", manifest.aux.clone())?;
        let normalise = Normalise { mean, std };
        if !picture::usable(mean, std) {
            return Err(GroundError::unfit(manifest, "aux.mean, aux.std: should be numbers, and std above 0"));
        }
        let size = match (width, height) {
            (Some(width), Some(height)) if width.min(height) > 0 && width.max(height) <= 8192 => {
                Some(Size::new(width, height))
            }
            (None, None) => None,
            _ => {
                let reason = "aux.width, aux.height: should both be 1 to 8192, or both be unset";
                return Err(GroundError::unfit(manifest, reason));
            }
        };
        Ok(Self { engine: open_role(manifest, "aux_encoder", open)?, size, normalise })
    }

    /// f32 `[1, 3, height, width]`, and its size.
    fn pixels(&self, picture: &Rgb, resampler: &mut Resampler) -> Result<(Tensor, Size), GroundError> {
        let size = self.size.unwrap_or(picture.size);
        let resized = resampler.resize(&picture.data, picture.size, size, Filter::Bicubic)?;
        let mut data = vec![0.0; size.area() * 3];
        self.normalise.planes(resized, &mut data, size.area());
        let shape = vec![1, 3, size.height as usize, size.width as usize];
        Ok((Tensor::f32s(&shape, data), size))
    }
}

/// The size a picture is shown at: its own, or with the longer side at `longest`, fractions of a pixel cut off; and no
/// side below `least` (`resize_shortest_edge_images_and_bboxes` of VLM-FO1's `mm_utils.py`). Without a limit its own.
fn fitted(size: Size, longest: Option<u32>, least: u32) -> Size {
    let Some(longest) = longest else { return size };
    let long = size.width.max(size.height).max(1);
    let scale = if long > longest { f64::from(longest) / f64::from(long) } else { 1.0 };
    let side = |side: u32| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no more than the side itself")]
        let scaled = (f64::from(side) * scale) as u32;
        scaled.max(least)
    };
    Size::new(side(size.width), side(size.height))
}

/// Corners of a box of a picture, cut at its edges, in pixels of the same picture at another size.
fn laid(bbox: &BBox, picture: Size, to: Size) -> [f32; 4] {
    let [x1, y1, x2, y2] = bbox.corners();
    let along = |v: f32, side: u32, to: u32| v.clamp(0.0, side as f32) * (to as f32 / side.max(1) as f32);
    let (x, y) = (|v| along(v, picture.width, to.width), |v| along(v, picture.height, to.height));
    [x(x1), y(y1), x(x2), y(y2)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn large_pictures_are_shrunk_and_small_ones_are_not_too_small() {
        let of = |w, h| fitted(Size::new(w, h), Some(2048), 28);
        assert_eq!(of(3840, 2160), Size::new(2048, 1152));
        assert_eq!(of(2048, 1000), Size::new(2048, 1000));
        assert_eq!(of(1000, 4001), Size::new(511, 2048));
        assert_eq!(of(9, 4), Size::new(28, 28));
        assert_eq!(fitted(Size::new(9, 4), None, 28), Size::new(9, 4));
    }

    proptest! {
        #[test]
        fn boxes_stay_in_the_picture_and_in_proportion(
            (w, h) in (1u32..5000, 1u32..5000), (tw, th) in (1u32..3000, 1u32..3000),
            corners in [-100f32..6000.0, -100f32..6000.0, -100f32..6000.0, -100f32..6000.0],
        ) {
            let [a, b, c, d] = corners;
            if let Some(bbox) = BBox::new(a.min(c), b.min(d), a.max(c), b.max(d)) {
                let got = laid(&bbox, Size::new(w, h), Size::new(tw, th));
                let (side, to) = ([w, h, w, h], [tw, th, tw, th]);
                for (i, (got, given)) in got.iter().zip(bbox.corners()).enumerate() {
                    let (side, to) = (side[i] as f32, to[i] as f32);
                    let want = given.clamp(0.0, side) * to / side;
                    prop_assert!((got - want).abs() <= 1e-5 * to && *got >= 0.0 && *got <= to * 1.000_001);
                }
            }
        }
    }
}
