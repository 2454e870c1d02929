//! Qwen's pictures: resized to whole patches, then cut up in the order the vision tower merges them.
//!
//! After `image_processing_qwen2_vl.py` (transformers 4.57.1), which Qwen2.5-VL and Qwen3-VL share.

use super::{Filter, Normalise, Resampler, VisionError, check};
use crate::{ground::codec::Placement, types::Size};

/// Patches merged into one token, on a side.
pub const MERGE: u32 = 2;
/// Frames in a patch; a single picture is shown twice.
pub const TEMPORAL: usize = 2;

/// How large pictures may get, and in what steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmartResize {
    /// Patch side in pixels: 14 for Qwen2-VL and 2.5, 16 for Qwen3-VL.
    pub patch: u32,
    /// Fewest pixels of the resized picture.
    pub min_pixels: u64,
    /// Most pixels of the resized picture; this bounds the tokens, `pixels / (2 · patch)²`.
    pub max_pixels: u64,
}

impl SmartResize {
    /// Qwen2-VL and Qwen2.5-VL as published: 4 to 16 384 tokens. Lower the maximum for streams.
    pub const QWEN2: Self = Self { patch: 14, min_pixels: 3136, max_pixels: 12_845_056 };
    /// Qwen3-VL as published: 64 to 16 384 tokens.
    pub const QWEN3: Self = Self { patch: 16, min_pixels: 65_536, max_pixels: 16_777_216 };

    /// The step in pixels: 28 or 32.
    pub fn factor(&self) -> u32 {
        self.patch.saturating_mul(MERGE)
    }
}

/// The size a picture is resized to: multiples of the factor, near its own, between the two numbers of pixels.
///
/// `h̄ = round(h / f) · f`, halves to even as Python's; if `h̄ · w̄` exceeds the maximum, `β = √(h · w / max)` and
/// `h̄ = max(f, ⌊h / β / f⌋ · f)`; if it is under the minimum, `β = √(min / (h · w))` and `h̄ = ⌈h · β / f⌉ · f`.
/// Pictures more than 200 times as long as wide are refused.
pub fn smart_resize(size: Size, limits: &SmartResize) -> Result<Size, VisionError> {
    let Size { width, height } = size;
    if size.area() == 0 {
        return Err(VisionError::Empty { width, height });
    }
    let (w, h) = (f64::from(width), f64::from(height));
    if w.max(h) / w.min(h) > 200.0 {
        return Err(VisionError::TooLong { width, height });
    }
    let f = f64::from(limits.factor());
    let (min, max) = (limits.min_pixels as f64, limits.max_pixels as f64);
    let mut out = [h, w].map(|side| (side / f).round_ties_even() * f);
    if out[0] * out[1] > max {
        let beta = (h * w / max).sqrt();
        out = [h, w].map(|side| f.max((side / beta / f).floor() * f));
    } else if out[0] * out[1] < min {
        let beta = (min / (h * w)).sqrt();
        out = [h, w].map(|side| (side * beta / f).ceil() * f);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, positive, of a picture's size")]
    let [height, width] = out.map(|side| side as u32);
    Ok(Size::new(width, height))
}

/// A picture in patches.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// `[grid_h · grid_w, 3 · 2 · patch²]`, patches in the order `[grid_h/2, grid_w/2, 2, 2]`, values within a patch
    /// in the order `[channel, frame, y, x]`.
    pub values: Vec<f32>,
    /// Time, height and width in patches: the tensor `grid_thw`. Time is 1.
    pub grid: [u32; 3],
    /// How the picture lies in the model's image.
    pub placement: Placement,
}

/// Resizes a packed RGB picture and cuts it into patches.
pub fn patches(
    rgb: &[u8],
    size: Size,
    limits: &SmartResize,
    normalise: &Normalise,
    resampler: &mut Resampler,
) -> Result<Patches, VisionError> {
    check(rgb, size)?;
    let image = smart_resize(size, limits)?;
    let resized = resampler.resize(rgb, size, image, Filter::Bicubic)?;
    let (values, grid) = cut(resized, image, limits.patch, normalise)?;
    Ok(Patches { values, grid, placement: Placement::squash(size, image) })
}

/// Cuts a picture whose sides are multiples of `2 · patch` into [`Patches::values`] and the grid.
pub fn cut(rgb: &[u8], size: Size, patch: u32, normalise: &Normalise) -> Result<(Vec<f32>, [u32; 3]), VisionError> {
    check(rgb, size)?;
    let Size { width, height } = size;
    let block = patch.saturating_mul(MERGE);
    if block == 0 || !width.is_multiple_of(block) || !height.is_multiple_of(block) {
        return Err(VisionError::NotWhole { width, height, block });
    }
    let table = normalise.table();
    let (p, stride) = (patch as usize, width as usize * 3);
    let mut values = Vec::with_capacity(size.area() * 3 * TEMPORAL);
    for (row, column) in merge_order(height / patch, width / patch) {
        let corner = row as usize * p * stride + column as usize * p * 3;
        for (channel, table) in table.iter().enumerate() {
            let start = values.len();
            for line in rgb[corner..].chunks(stride).take(p) {
                values.extend(line[..p * 3].chunks_exact(3).map(|pixel| table[pixel[channel] as usize]));
            }
            values.extend_from_within(start..);
        }
    }
    Ok((values, [1, height / patch, width / patch]))
}

/// Merged units in a window of Qwen2.5-VL's attention, on a side: `window` pixels of patches of `patch` pixels. 0 if not even one
/// fits.
pub fn units(window: u32, patch: u32) -> u32 {
    (window / MERGE).checked_div(patch).unwrap_or(0)
}

/// `(row, column)` of every patch of a grid in the order the tower takes them: 2×2 blocks, row by row within.
fn merge_order(grid_h: u32, grid_w: u32) -> impl Iterator<Item = (u32, u32)> {
    let blocks = (0..grid_h / MERGE).flat_map(move |by| (0..grid_w / MERGE).map(move |bx| (by, bx)));
    blocks.flat_map(|(by, bx)| (0..MERGE).flat_map(move |y| (0..MERGE).map(move |x| (by * MERGE + y, bx * MERGE + x))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_round_to_even() {
        let any = SmartResize { patch: 14, min_pixels: 0, max_pixels: u64::MAX };
        assert_eq!(smart_resize(Size::new(70, 70), &any), Ok(Size::new(56, 56)));
        assert_eq!(smart_resize(Size::new(98, 42), &any), Ok(Size::new(112, 56)));
    }

    #[test]
    fn a_window_is_as_large_as_the_configuration_says() {
        assert_eq!((units(112, 14), units(56, 14), units(64, 16), units(20, 14), units(112, 0)), (4, 2, 2, 0, 0));
    }

    #[test]
    fn what_cannot_be_resized_is_refused_with_a_reason() {
        let q = SmartResize::QWEN2;
        assert!(matches!(smart_resize(Size::new(0, 5), &q), Err(VisionError::Empty { .. })));
        assert!(matches!(smart_resize(Size::new(201, 1), &q), Err(VisionError::TooLong { .. })));
        assert!(smart_resize(Size::new(200, 1), &q).is_ok());
        let odd = cut(&[0; 30 * 28 * 3], Size::new(30, 28), 14, &Normalise::CLIP);
        assert!(matches!(odd, Err(VisionError::NotWhole { block: 28, .. })));
    }

    proptest! {
        #[test]
        fn the_size_is_whole_and_within_the_limits(w in 1u32..6000, h in 1u32..6000, tokens in 16u64..4000) {
            for patch in [14u32, 16] {
                let f = u64::from(patch * MERGE);
                let limits = SmartResize { patch, min_pixels: 4 * f * f, max_pixels: tokens * f * f };
                if let Ok(out) = smart_resize(Size::new(w, h), &limits) {
                    prop_assert!(u64::from(out.width) % f == 0 && u64::from(out.height) % f == 0);
                    let area = out.area() as u64;
                    prop_assert!(area >= limits.min_pixels, "{out:?}");
                    // One side may not go under a block, so only long pictures may exceed the maximum.
                    prop_assert!(area <= limits.max_pixels || u64::from(out.width.min(out.height)) == f, "{out:?}");
                }
            }
        }

        #[test]
        fn every_pixel_is_in_its_place(bw in 1u32..4, bh in 1u32..4, patch in 1u32..4, seed: u8) {
            let size = Size::new(bw * 2 * patch, bh * 2 * patch);
            let rgb: Vec<u8> = (0u8..=255).cycle().map(|i| i.wrapping_mul(31) ^ seed).take(size.area() * 3).collect();
            let (values, grid) = cut(&rgb, size, patch, &Normalise::HALF).unwrap();
            let table = Normalise::HALF.table();
            let p = patch as usize;
            // The index as the nine-dimensional transpose of the reference has it.
            let mut at = 0;
            for by in 0..grid[1] as usize / 2 { for bx in 0..grid[2] as usize / 2 {
                for my in 0..2 { for mx in 0..2 { for c in 0..3 { for _t in 0..2 { for y in 0..p { for x in 0..p {
                    let (py, px) = ((by * 2 + my) * p + y, (bx * 2 + mx) * p + x);
                    let sample = rgb[(py * size.width as usize + px) * 3 + c];
                    prop_assert!((values[at] - table[c][sample as usize]).abs() < 1e-9);
                    at += 1;
                } } } } } }
            } }
            prop_assert_eq!(at, values.len());
        }
    }
}
