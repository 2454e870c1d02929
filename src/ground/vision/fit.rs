//! Pictures stretched over a fixed square: Florence-2, `PaliGemma`, CLIP and `SigLIP` towers, OFA.

use super::{Filter, Normalise, Resampler, VisionError};
use crate::{ground::codec::Placement, types::Size};

/// A fixed input size that pictures are stretched to, whatever their shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Size of the model's input image.
    pub image: Size,
    /// How it is interpolated.
    pub filter: Filter,
    /// What the values mean.
    pub normalise: Normalise,
}

impl Fit {
    /// Florence-2: 768 by 768, bicubic (`preprocessor_config.json`; no centre crop). 577 image tokens.
    pub const FLORENCE: Self =
        Self { image: Size { width: 768, height: 768 }, filter: Filter::Bicubic, normalise: Normalise::IMAGENET };

    /// `PaliGemma`: 224, 448 or 896, bicubic, -1 to 1.
    pub fn paligemma(side: u32) -> Self {
        Self::squash(side, Normalise::HALF)
    }

    /// Any square tower, bicubic: OFA (512, [`Normalise::HALF`]), `SigLIP` ([`Normalise::HALF`]), CLIP without its
    /// centre crop ([`Normalise::CLIP`]), for a crop would hide what we look for.
    pub fn squash(side: u32, normalise: Normalise) -> Self {
        Self { image: Size::new(side, side), filter: Filter::Bicubic, normalise }
    }

    /// The tensor `[1, 3, height, width]` of a packed RGB picture, into `out`, and how the picture lies in it.
    pub fn prepare(
        &self,
        rgb: &[u8],
        size: Size,
        resampler: &mut Resampler,
        out: &mut Vec<f32>,
    ) -> Result<Placement, VisionError> {
        let resized = resampler.resize(rgb, size, self.image, self.filter)?;
        out.clear();
        out.resize(self.image.area() * 3, 0.0);
        self.normalise.planes(resized, out, self.image.area());
        Ok(Placement::squash(size, self.image))
    }
}
