//! `OWLv2`'s pictures: padded to a square with grey, then shrunk with a Gaussian before straight lines.
//!
//! After `image_processing_owlv2.py` (transformers 4.57.1, not the fast one), which copies scikit-image's `resize`: the
//! bytes as 0 to 1, grey 0.5 to the right and below up to the longer side, a Gaussian of `σ = max(0, (factor − 1) / 2)`
//! cut at `4σ` (`scipy.ndimage.gaussian_filter`, mode `mirror`), then linear interpolation at pixel centres
//! (`scipy.ndimage.zoom`, order 1, `grid_mode`), then CLIP's normalisation. The model's boxes are fractions of the
//! padded square: what lies in the padding is cut off by the [`Placement`].

use super::{Normalise, VisionError, check, normalise::rescaled};
use crate::{ground::codec::Placement, types::Size};

/// The tensor `[1, 3, side, side]` of a packed RGB picture, and how the picture lies in it.
pub fn prepare(rgb: &[u8], picture: Size, side: u32) -> Result<(Vec<f32>, Placement), VisionError> {
    check(rgb, picture)?;
    if side == 0 {
        return Err(VisionError::Empty { width: 0, height: 0 });
    }
    let square = picture.width.max(picture.height);
    let axis = Axis::new(square as usize, side as usize);
    let (side_len, width) = (side as usize, picture.width as usize);
    let mut out = vec![0.0; side_len * side_len * 3];
    let mut column = vec![0.5; square as usize];
    // Each pass is one matrix per axis, so rows first or columns first is the same but for rounding. Columns first, as
    // scipy does it, straight from the bytes: what is padding all the way down is never computed.
    let mut between = vec![0.5; side_len * square as usize];
    for (c, plane) in out.chunks_exact_mut(side_len * side_len).enumerate() {
        for x in 0..width {
            for (y, v) in column.iter_mut().take(picture.height as usize).enumerate() {
                *v = rescaled(rgb[(y * width + x) * 3 + c].into());
            }
            axis.apply(&column, |y, v| between[y * square as usize + x] = v);
        }
        let (mean, std) = (Normalise::CLIP.mean[c], Normalise::CLIP.std[c]);
        for (row, out) in between.chunks_exact(square as usize).zip(plane.chunks_exact_mut(side_len)) {
            axis.apply(row, |x, v| out[x] = (v - mean) / std);
        }
    }
    let whole = Size::new(square, square);
    let placement = Placement { picture, inner: picture, image: whole };
    Ok((out, placement))
}

/// Blur and interpolation along one axis.
struct Axis {
    /// Half of the symmetric kernel, from its middle.
    kernel: Vec<f64>,
    /// For each output: the lower input and the share of the next.
    points: Vec<(usize, f64)>,
    len: usize,
}

impl Axis {
    fn new(from: usize, to: usize) -> Self {
        let factor = from as f64 / to as f64;
        let sigma = ((factor - 1.0) / 2.0).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few pixels")]
        let radius = (4.0 * sigma + 0.5) as usize;
        let half: Vec<f64> =
            (0..=radius).map(|x| if x == 0 { 1.0 } else { (-0.5 / (sigma * sigma) * (x * x) as f64).exp() }).collect();
        let sum = half[0] + 2.0 * half[1..].iter().sum::<f64>();
        let last = from.saturating_sub(1) as f64;
        let points = (0..to).map(|i| {
            let at = ((i as f64 + 0.5) * factor - 0.5).abs();
            // Beyond the last pixel the picture is mirrored about it, as before the first.
            let at = if at > last { (2.0 * last - at).max(0.0) } else { at };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the picture")]
            let low = at as usize;
            (low, at - low as f64)
        });
        Self { kernel: half.iter().map(|v| v / sum).collect(), points: points.collect(), len: from }
    }

    fn apply(&self, line: &[f32], mut set: impl FnMut(usize, f32)) {
        // Neighbouring outputs share an input: keep the last two blurred values.
        let mut kept = [(usize::MAX, 0.0), (usize::MAX, 0.0)];
        let mut blurred = |at: usize| {
            if let Some(&(_, v)) = kept.iter().find(|(k, _)| *k == at) {
                return v;
            }
            let v = self.blur(line, at);
            kept = [kept[1], (at, v)];
            v
        };
        for (i, &(low, share)) in self.points.iter().enumerate() {
            let value = if share == 0.0 {
                blurred(low)
            } else {
                let (a, b) = (blurred(low), blurred((low + 1).min(self.len - 1)));
                a * (1.0 - share) + b * share
            };
            #[expect(clippy::cast_possible_truncation, reason = "0..=1; rounding to f32 is meant")]
            set(i, value as f32);
        }
    }

    fn blur(&self, line: &[f32], at: usize) -> f64 {
        let side = |offset: usize| {
            // Left of 0 the picture is mirrored about 0, which is what the absolute difference does.
            let (left, right) = (mirrored(at.abs_diff(offset), self.len), mirrored(at + offset, self.len));
            f64::from(line[left]) + f64::from(line[right])
        };
        let middle = f64::from(line[at]) * self.kernel[0];
        // scipy rounds the blurred picture to the input's type before it interpolates.
        let sum = middle + self.kernel.iter().enumerate().skip(1).map(|(o, k)| side(o) * k).sum::<f64>();
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
        let rounded = sum as f32;
        rounded.into()
    }
}

/// Where a place beyond the last pixel is mirrored to, about the last and then about the first, and so on.
fn mirrored(at: usize, len: usize) -> usize {
    if at < len {
        return at;
    }
    let period = (2 * len).saturating_sub(2).max(1);
    let at = at % period;
    at.min(period - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_do_not_repeat_the_edge() {
        let got: Vec<_> = (0..9).map(|i| mirrored(i, 4)).collect();
        assert_eq!(got, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!(mirrored(7, 1), 0);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn one_colour_stays_one_colour_and_padding_is_grey() {
        let (pixels, placement) = prepare(&[255; 40 * 20 * 3], Size::new(40, 20), 10).unwrap();
        let value = |v: f32| (v - Normalise::CLIP.mean[0]) / Normalise::CLIP.std[0];
        assert!((pixels[0] - value(1.0)).abs() < 1e-5);
        assert!((pixels[99] - value(0.5)).abs() < 1e-5);
        assert_eq!(placement.to_picture([0.0, 0.0, 1.0, 1.0]).unwrap().corners(), [0.0, 0.0, 40.0, 20.0]);
        assert_eq!(placement.to_picture([0.0, 0.6, 1.0, 1.0]), None);
    }
}
