//! Pictures as detectors with classes of their own take them: at a fixed size, stretched or in a corner, in whatever
//! numbers and order of colours their training had.

use super::{Filter, Resampler, VisionError};
use crate::{ground::codec::Placement, types::Size};

/// How a picture is laid on the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laid {
    /// Over all of it.
    Stretch,
    /// Scaled by one factor, in the top left corner; the rest is filled with this byte, which is normalised as the
    /// picture is.
    Corner(u8),
    /// The same, the scaled sides rounded to whole pixels rather than cut to them: detectron2's `ResizeScale` and
    /// `FixedSizeCrop`.
    Rounded(u8),
}

/// What the numbers of a tensor mean: `(byte · scale − mean) / std`, the latter two in the tensor's order of colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values {
    /// What a byte is multiplied by.
    pub scale: f64,
    /// What is subtracted.
    pub mean: [f32; 3],
    /// What is divided by.
    pub std: [f32; 3],
    /// Whether the tensor begins with blue.
    pub bgr: bool,
}

/// Prepares pictures for one model.
#[derive(Debug, Clone)]
pub struct Lay {
    image: Size,
    laid: Laid,
    /// Where the image ends soon after the picture: the sides are multiples of this.
    step: Option<u32>,
    filter: Filter,
    /// The value of every byte in each of the tensor's planes.
    table: [[f32; 256]; 3],
    /// The colour of each plane, as its place in RGB.
    colours: [usize; 3],
}

impl Lay {
    /// Prepares images of `image`.
    pub fn new(image: Size, laid: Laid, filter: Filter, values: &Values) -> Self {
        let value = |c: usize, v: usize| {
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
            let scaled = (v as f64 * values.scale) as f32;
            (scaled - values.mean[c]) / values.std[c]
        };
        let table = std::array::from_fn(|c| std::array::from_fn(|v| value(c, v)));
        Self { image, laid, step: None, filter, table, colours: if values.bgr { [2, 1, 0] } else { [0, 1, 2] } }
    }

    /// Lets the image end soon after the picture, at a multiple of `step`, rather than fill what is left: a network of
    /// convolutions need not be asked about that. At least half a step of the border stays, so that what lies at the picture's
    /// edge looks as it did in training: on 400 pictures of COCO YOLOX-nano's AP50 is 0.434 with the border, 0.431 with
    /// this much of it, 0.427 with none. `None` takes it back.
    pub fn end_after(&mut self, step: Option<u32>) {
        self.step = step;
    }

    /// The largest size of the image.
    pub fn image(&self) -> Size {
        self.image
    }

    /// Size of the image for a picture that was scaled to `inner`.
    fn image_around(&self, inner: Size) -> Size {
        let Some(step) = self.step else { return self.image };
        let side = |inner: u32, most: u32| (inner + step / 2).next_multiple_of(step).min(most);
        Size::new(side(inner.width, self.image.width), side(inner.height, self.image.height))
    }

    /// Whether a picture that was scaled by one factor to fit into `canvas` is as large as it will be here.
    pub fn keeps(&self, canvas: Size) -> bool {
        matches!(self.laid, Laid::Corner(_)) && canvas == self.image
    }

    /// The tensor `[1, 3, height, width]` of a packed RGB picture, into `out`, and how the picture lies in it.
    pub fn prepare(
        &self,
        rgb: &[u8],
        size: Size,
        resampler: &mut Resampler,
        out: &mut Vec<f32>,
    ) -> Result<Placement, VisionError> {
        let placement = self.placement(size);
        let Placement { inner, image, .. } = placement;
        let resized = resampler.resize(rgb, size, inner, self.filter)?;
        let (area, width, row) = (image.area(), image.width as usize, inner.width as usize);
        out.resize(area * 3, 0.0);
        for ((plane, table), colour) in out.chunks_exact_mut(area).zip(&self.table).zip(self.colours) {
            if let Laid::Corner(pad) | Laid::Rounded(pad) = self.laid
                && inner != image
            {
                plane.fill(table[usize::from(pad)]);
            }
            for (line, out) in resized.chunks_exact(row * 3).zip(plane.chunks_exact_mut(width)) {
                for (out, pixel) in out.iter_mut().zip(line.chunks_exact(3)) {
                    *out = table[usize::from(pixel[colour])];
                }
            }
        }
        Ok(placement)
    }

    /// How a picture of this size lies in its image.
    pub fn placement(&self, picture: Size) -> Placement {
        let inner = match self.laid {
            Laid::Stretch => self.image,
            Laid::Corner(_) => inner(picture, self.image, f64::trunc),
            Laid::Rounded(_) => inner(picture, self.image, f64::round_ties_even),
        };
        Placement::top_left(picture, inner, self.image_around(inner))
    }
}

/// The size of `picture` scaled by one factor into `image`, made `whole`: YOLOX cuts (`preproc` in
/// `yolox/data/data_augment.py`).
fn inner(picture: Size, image: Size, whole: fn(f64) -> f64) -> Size {
    let ratio = (f64::from(image.height) / f64::from(picture.height.max(1)))
        .min(f64::from(image.width) / f64::from(picture.width.max(1)));
    let side = |v: u32, most: u32| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the image")]
        let pixels = whole(f64::from(v) * ratio).clamp(1.0, f64::from(most)) as u32;
        pixels
    };
    Size::new(side(picture.width, image.width), side(picture.height, image.height))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Values = Values { scale: 1.0, mean: [0.0; 3], std: [1.0; 3], bgr: false };

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn a_corner_is_padded_and_colours_are_in_the_order_asked() {
        let lay = Lay::new(Size::new(3, 2), Laid::Corner(114), Filter::Linear, &Values { bgr: true, ..PLAIN });
        let mut out = vec![7.0; 2];
        let rgb = [1, 2, 3].repeat(4);
        let placement = lay.prepare(&rgb, Size::new(2, 2), &mut Resampler::default(), &mut out).unwrap();
        let plane = |v: f32| vec![v, v, 114.0, v, v, 114.0];
        assert_eq!(out, [plane(3.0), plane(2.0), plane(1.0)].concat());
        assert_eq!(placement.to_picture([0.0, 0.0, 1.0, 1.0]).unwrap().corners(), [0.0, 0.0, 2.0, 2.0]);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn an_image_may_end_soon_after_the_picture() {
        let mut lay = Lay::new(Size::new(8, 8), Laid::Corner(9), Filter::Linear, &PLAIN);
        lay.end_after(Some(2));
        let mut out = Vec::new();
        let placement = lay.prepare(&[5; 24 * 3], Size::new(8, 3), &mut Resampler::default(), &mut out).unwrap();
        assert_eq!((placement.inner, placement.image), (Size::new(8, 3), Size::new(8, 4)));
        assert_eq!(out, [[5.0; 24].as_slice(), &[9.0; 8]].concat().repeat(3));
        assert_eq!(placement.to_picture([0.0, 0.0, 1.0, 1.0]).unwrap().corners(), [0.0, 0.0, 8.0, 3.0]);
        for (inner, step, image) in
            [((8, 4), 4, (8, 8)), ((8, 2), 4, (8, 4)), ((7, 8), 3, (8, 8)), ((1, 8), 16, (8, 8)), ((1, 8), 1, (1, 8))]
        {
            lay.end_after(Some(step));
            assert_eq!(lay.image_around(Size::new(inner.0, inner.1)), Size::new(image.0, image.1), "{inner:?} {step}");
        }
        lay.end_after(None);
        assert_eq!(lay.image_around(Size::new(1, 1)), Size::new(8, 8));
    }

    #[test]
    fn a_stretched_picture_fills_the_image() {
        let values = Values { scale: 1.0 / 255.0, mean: [0.5; 3], std: [0.5; 3], bgr: false };
        let lay = Lay::new(Size::new(4, 4), Laid::Stretch, Filter::Bilinear, &values);
        let mut out = Vec::new();
        lay.prepare(&[255; 6], Size::new(2, 1), &mut Resampler::default(), &mut out).unwrap();
        assert_eq!(out, [1.0; 48]);
        // Kept memory holds the next picture and nothing of the last.
        lay.prepare(&[0; 3], Size::new(1, 1), &mut Resampler::default(), &mut out).unwrap();
        assert_eq!(out, [-1.0; 48]);
    }

    #[test]
    fn a_corner_keeps_the_shape() {
        for (picture, image, expected, rounded) in [
            ((640, 480), (416, 416), (416, 312), (416, 312)),
            ((1920, 1080), (416, 416), (416, 234), (416, 234)),
            ((100, 2000), (416, 416), (20, 416), (21, 416)),
            ((1, 5000), (416, 416), (1, 416), (1, 416)),
            // Half a pixel goes to the even side.
            ((1024, 333), (512, 512), (512, 166), (512, 166)),
            ((1024, 331), (512, 512), (512, 165), (512, 166)),
        ] {
            let (picture, image) = (Size::new(picture.0, picture.1), Size::new(image.0, image.1));
            assert_eq!(inner(picture, image, f64::trunc), Size::new(expected.0, expected.1), "{picture:?}");
            assert_eq!(inner(picture, image, f64::round_ties_even), Size::new(rounded.0, rounded.1), "{picture:?}");
        }
    }
}
