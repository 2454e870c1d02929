//! How a detector is shown a picture, and where in the picture its boxes lie.

use crate::{
    ground::{
        GroundError,
        codec::Placement,
        engine::{Element, Engine, Tensor},
        manifest::{Fit, Manifest},
        models::picture,
        vision::{Lay, Resampler, VisionError, dino},
    },
    types::Size,
};

/// The input that says which pixels are the picture's: i64 `[1, height, width]`, 1 where they are.
pub(super) const MASK: &str = "pixel_mask";

/// How a picture is laid on the model's image.
pub(super) enum Sight {
    /// At a fixed size, stretched or in a corner.
    Laid(Box<Lay>),
    /// In a corner with its shorter side at a given length, as the DETRs were trained. What a mask covers is all that
    /// the model then knows: its boxes are fractions of that, and without one, of the whole image.
    Shortest { image: Size, limits: (u32, u32), masked: bool },
}

impl Sight {
    /// As `[input]` says; a graph that takes a mask is given one.
    pub(super) fn of(manifest: &Manifest, engine: &dyn Engine) -> Result<Self, GroundError> {
        if manifest.input.fit != Fit::Shortest || manifest.family != super::SHORTEST {
            return Ok(Self::Laid(Box::new(picture::lay(manifest)?)));
        }
        let (image, limits) = (Size::new(manifest.input.width, manifest.input.height), picture::shortest(manifest)?);
        let port = engine.input(MASK);
        let wanted = [1, image.height as usize, image.width as usize];
        if let Some(port) = port
            && (port.element != Element::I64 || !port.has_shape(&wanted.map(Some)))
        {
            let expected = format!("{MASK} i64{wanted:?} as [input] of the manifest says");
            return Err(engine.wrong_ports("inputs", expected, port.to_string()).into());
        }
        Ok(Self::Shortest { image, limits, masked: port.is_some() })
    }

    /// The largest size of the image.
    pub(super) fn image(&self) -> Size {
        match self {
            Self::Laid(lay) => lay.image(),
            Self::Shortest { image, .. } => *image,
        }
    }

    /// Size of the image in which a picture of this size is seen.
    pub(super) fn image_of(&self, picture: Size) -> Size {
        match self {
            Self::Laid(lay) => lay.placement(picture).image,
            Self::Shortest { image, .. } => *image,
        }
    }

    /// Size of the image in which a picture lies so.
    pub(super) fn image_around(&self, placement: &Placement) -> Size {
        match self {
            Self::Laid(_) => placement.image,
            // Of what a mask covers, a placement knows nothing.
            Self::Shortest { image, .. } => *image,
        }
    }

    /// See [`Lay::end_after`].
    pub(super) fn end_after(&mut self, step: Option<u32>) {
        if let Self::Laid(lay) = self {
            lay.end_after(step);
        }
    }

    /// Whether the graph takes a mask.
    pub(super) fn masked(&self) -> bool {
        matches!(self, Self::Shortest { masked: true, .. })
    }

    /// Whether a picture that was scaled by one factor to fit into `canvas` is as large as it will be here.
    pub(super) fn keeps(&self, canvas: Size) -> bool {
        matches!(self, Self::Laid(lay) if lay.keeps(canvas))
    }

    /// The tensor `[1, 3, height, width]` of a packed RGB picture, into `out`; the mask, where the graph takes one; and
    /// how fractions of the model's boxes lie in the picture.
    pub(super) fn prepare(
        &self,
        rgb: &[u8],
        size: Size,
        resampler: &mut Resampler,
        out: &mut Vec<f32>,
    ) -> Result<(Option<Tensor>, Placement), VisionError> {
        match self {
            Self::Laid(lay) => Ok((None, lay.prepare(rgb, size, resampler, out)?)),
            Self::Shortest { image, limits, masked } => {
                let shown = dino::prepare(rgb, size, *limits, Some(*image), resampler)?;
                let unmasked = shown.unmasked(size);
                *out = shown.pixels;
                let shape = vec![1, image.height as usize, image.width as usize];
                Ok(if *masked { (Some(Tensor::i64s(&shape, shown.mask)), shown.placement) } else { (None, unmasked) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_told_of_what_the_mask_covers_or_of_the_whole_image() {
        // A picture of 6 by 4 becomes 3 by 2 in the corner of 4 by 4.
        for (masked, fractions) in [(true, [0.0, 0.0, 1.0, 1.0]), (false, [0.0, 0.0, 0.75, 0.5])] {
            let sight = Sight::Shortest { image: Size::new(4, 4), limits: (2, 10), masked };
            let mut out = Vec::new();
            let (mask, placement) =
                sight.prepare(&[255; 72], Size::new(6, 4), &mut Resampler::default(), &mut out).unwrap();
            assert_eq!((out.len(), mask.map(|m| m.shape)), (48, masked.then(|| vec![1, 4, 4])));
            let all = placement.to_picture(fractions).unwrap().corners();
            assert!(all.iter().zip([0.0, 0.0, 6.0, 4.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{all:?}");
        }
    }
}
