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

    /// The same of a picture that covers the image and keeps its shape: scaled by one factor, what juts out cut off on
    /// both sides (`CLIPImageProcessor` with its centre crop; the longer side is cut to whole pixels, the crop's corner
    /// too). What is cut off is not seen, so this is for models whose boxes come from elsewhere.
    pub fn centre(
        &self,
        rgb: &[u8],
        size: Size,
        resampler: &mut Resampler,
        out: &mut Vec<f32>,
    ) -> Result<(), VisionError> {
        let covering = covering(size, self.image);
        let resized = resampler.resize(rgb, size, covering, self.filter)?;
        let (left, top) = ((covering.width - self.image.width) / 2, (covering.height - self.image.height) / 2);
        let (row, from, kept) = (covering.width as usize * 3, left as usize * 3, self.image.width as usize * 3);
        let rows = resized.chunks_exact(row).skip(top as usize).take(self.image.height as usize);
        let cut: Vec<u8> = rows.flat_map(|row| &row[from..from + kept]).copied().collect();
        out.clear();
        out.resize(self.image.area() * 3, 0.0);
        self.normalise.planes(&cut, out, self.image.area());
        Ok(())
    }
}

/// The size of `picture` scaled by one factor so that it just covers `image`: one side is the image's, the other cut to
/// whole pixels, as `get_resize_output_image_size` does for square images.
fn covering(picture: Size, image: Size) -> Size {
    let side = |own: u32, other: u32, scaled: u32, least: u32| {
        let whole = u64::from(own) * u64::from(scaled) / u64::from(other.max(1));
        u32::try_from(whole).unwrap_or(u32::MAX).max(least)
    };
    let (w, h) = (picture.width, picture.height);
    let wide = u64::from(w) * u64::from(image.height) > u64::from(h) * u64::from(image.width);
    if wide {
        Size::new(side(w, h, image.height, image.width), image.height)
    } else {
        Size::new(image.width, side(h, w, image.width, image.height))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_middle_of_a_wide_picture_is_kept() {
        let fit = Fit { image: Size::new(2, 2), filter: Filter::Bilinear, normalise: Normalise::HALF };
        let line: Vec<u8> = [0, 0, 255, 255, 0, 0].iter().flat_map(|v| [*v; 3]).collect();
        let mut out = vec![7.0];
        fit.centre(&[line.clone(), line].concat(), Size::new(6, 2), &mut Resampler::default(), &mut out).unwrap();
        assert_eq!(out, [1.0; 12]);
    }

    #[test]
    fn the_other_side_is_cut_to_whole_pixels() {
        let image = Size::new(224, 224);
        for (picture, expected) in [((640, 480), (298, 224)), ((480, 640), (224, 298)), ((9, 9), (224, 224))] {
            assert_eq!(covering(Size::new(picture.0, picture.1), image), Size::new(expected.0, expected.1));
        }
    }

    proptest! {
        #[test]
        fn an_image_is_covered(w in 1u32..3000, h in 1u32..3000, iw in 1u32..500, ih in 1u32..500) {
            let got = covering(Size::new(w, h), Size::new(iw, ih));
            prop_assert!(got.width >= iw && got.height >= ih && (got.width == iw || got.height == ih));
        }
    }
}
