//! Grounding DINO's pictures: short side 800, long side at most 1333, in the top left of a canvas with a mask.
//!
//! After `image_processing_grounding_dino.py` (transformers 4.57.1, not the fast one): bilinear, `ImageNet`'s
//! normalisation, then zeros to the right and below. The model's boxes are fractions of the *valid* region, mask and
//! all (`valid_width`, `valid_height`), so the [`Placement`] has no padding in it.

use super::{Filter, Normalise, Resampler, VisionError, check};
use crate::{ground::codec::Placement, types::Size};

/// What `size` becomes when its short side is scaled to `shortest`, or less so that its long side stays within
/// `longest` (`get_size_with_aspect_ratio`, its roundings included: the short side to even halves, the long side down).
pub fn fitted(size: Size, shortest: u32, longest: u32) -> Size {
    let (short, long) = (size.width.min(size.height), size.width.max(size.height));
    let ratio = f64::from(long) / f64::from(short);
    let over = ratio * f64::from(shortest) > f64::from(longest);
    let raw = if over { f64::from(longest) * f64::from(short) / f64::from(long) } else { f64::from(shortest) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a side of at most `longest`")]
    let (to, other) = (raw.round_ties_even() as u32, (raw * f64::from(long) / f64::from(short)) as u32);
    if short == to {
        size
    } else if size.width < size.height {
        Size::new(to, other)
    } else {
        Size::new(other, to)
    }
}

/// A prepared picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// `pixel_values`, `[1, 3, height, width]` of the canvas.
    pub pixels: Vec<f32>,
    /// `pixel_mask`, `[1, height, width]`: 1 where the picture is, 0 where it is not.
    pub mask: Vec<i64>,
    /// Size of the canvas.
    pub canvas: Size,
    /// From the model's boxes to the picture.
    pub placement: Placement,
}

impl Prepared {
    /// From the boxes of a model that is not told where the picture, of this size, ends on its canvas.
    pub fn unmasked(&self, picture: Size) -> Placement {
        Placement::top_left(picture, self.placement.inner, self.canvas)
    }
}

/// Prepares a packed RGB picture. Without a `canvas` it gets one of its own fitted size; a graph of fixed size names
/// its own, and the picture is shrunk further if it must be.
pub fn prepare(
    rgb: &[u8],
    size: Size,
    limits: (u32, u32),
    canvas: Option<Size>,
    resampler: &mut Resampler,
) -> Result<Prepared, VisionError> {
    check(rgb, size)?;
    let mut inner = fitted(size, limits.0, limits.1);
    if let Some(canvas) = canvas
        && (inner.width > canvas.width || inner.height > canvas.height)
    {
        inner = within(size, canvas);
    }
    let canvas = canvas.unwrap_or(inner);
    if canvas.area() == 0 {
        return Err(VisionError::Empty { width: canvas.width, height: canvas.height });
    }
    let resized = resampler.resize(rgb, size, inner, Filter::Bilinear)?;
    let mut pixels = vec![0.0; canvas.area() * 3];
    let mut mask = vec![0; canvas.area()];
    let (width, row) = (canvas.width as usize, inner.width as usize);
    let table = Normalise::IMAGENET.table();
    for (y, line) in resized.chunks_exact(row * 3).enumerate() {
        for (c, table) in table.iter().enumerate() {
            let start = c * canvas.area() + y * width;
            for (out, pixel) in pixels[start..start + row].iter_mut().zip(line.chunks_exact(3)) {
                *out = table[pixel[c] as usize];
            }
        }
        mask[y * width..y * width + row].fill(1);
    }
    Ok(Prepared { pixels, mask, canvas, placement: Placement::squash(size, inner) })
}

/// The largest size of the same shape inside `canvas`.
fn within(size: Size, canvas: Size) -> Size {
    let scale =
        (f64::from(canvas.width) / f64::from(size.width)).min(f64::from(canvas.height) / f64::from(size.height));
    let scaled = |v: u32, max: u32| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the canvas")]
        let pixels = (f64::from(v) * scale).round().clamp(1.0, f64::from(max.max(1))) as u32;
        pixels
    };
    Size::new(scaled(size.width, canvas.width), scaled(size.height, canvas.height))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn a_canvas_is_filled_from_the_top_left() {
        let rgb = [255; 6 * 4 * 3];
        let got = prepare(&rgb, Size::new(6, 4), (2, 10), Some(Size::new(4, 4)), &mut Resampler::default()).unwrap();
        assert_eq!(got.mask, [[1, 1, 1, 0], [1, 1, 1, 0], [0; 4], [0; 4]].concat());
        assert!(got.pixels.chunks(16).all(|plane| plane.iter().zip(&got.mask).all(|(v, m)| (*v > 2.0) == (*m == 1))));
        assert_eq!(got.placement.to_picture([0.0, 0.0, 1.0, 1.0]).unwrap().corners(), [0.0, 0.0, 6.0, 4.0]);
        let unmasked = got.unmasked(Size::new(6, 4)).to_picture([0.0, 0.0, 0.75, 0.5]).unwrap();
        assert_eq!(unmasked.corners(), [0.0, 0.0, 6.0, 4.0], "the border is a part of it");
    }

    #[test]
    fn a_canvas_without_area_is_refused() {
        let got = prepare(&[0; 3], Size::new(1, 1), (1, 1), Some(Size::new(0, 1)), &mut Resampler::default());
        assert_eq!(got, Err(VisionError::Empty { width: 0, height: 1 }));
    }

    #[test]
    fn a_picture_too_large_for_the_canvas_is_shrunk_to_it() {
        let rgb = [0; 20 * 10 * 3];
        let got =
            prepare(&rgb, Size::new(20, 10), (800, 1333), Some(Size::new(8, 8)), &mut Resampler::default()).unwrap();
        assert_eq!(got.placement.inner, Size::new(8, 4));
    }

    proptest! {
        #[test]
        fn both_limits_hold(w in 1u32..5000, h in 1u32..5000) {
            prop_assume!(w.max(h) < 300 * w.min(h));
            let got = fitted(Size::new(w, h), 800, 1333);
            prop_assert!(got.width.min(got.height) <= 800 && got.width.max(got.height) <= 1333 || got == Size::new(w, h));
        }
    }
}
