//! Pillow's 8-bit resampling, bit for bit.
//!
//! After `src/libImaging/Resample.c` (Pillow up to 12): for each output pixel a window of `support · max(scale, 1)`
//! input pixels to either side of its centre, weights normalised in `f64`, then rounded half away from zero to
//! 22 fractional bits; each pass sums from `1 << 21`, shifts right by 22 and clips to a byte. The horizontal pass comes
//! first, into bytes, and then the vertical one; a pass that would not change its size is left out. (Pillow 13 swaps the
//! passes where that is less work; the processors these models were trained with did not.)

use super::{VisionError, check, linear};
use crate::types::Size;

/// Fractional bits of a weight: 32 less 8 for the sample and 2 for weights outside 0..1.
const BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (BITS - 1);

/// The interpolation kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle, support 1.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2.
    Bicubic,
    /// Not Pillow's but `OpenCV`'s: straight lines between neighbours, whatever the scale ([`super::linear`]).
    Linear,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear | Self::Linear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear | Self::Linear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// Resizes packed 8-bit RGB. Keeps its buffers and weights, so one that lives on allocates nothing for pictures of a
/// size it has seen last.
#[derive(Debug, Default)]
pub struct Resampler {
    horizontal: Weights,
    vertical: Weights,
    /// The picture after the horizontal pass: `dst.width · src.height · 3`.
    between: Vec<u8>,
    /// One row of sums.
    sums: Vec<i32>,
    out: Vec<u8>,
}

impl Resampler {
    /// Resizes `rgb` (`from.width · from.height · 3` bytes, rows from the top) to `to`. Both passes always see the whole
    /// picture; the result stays valid until the next call. A picture that has its size already is given back.
    pub fn resize<'a>(
        &'a mut self,
        rgb: &'a [u8],
        from: Size,
        to: Size,
        filter: Filter,
    ) -> Result<&'a [u8], VisionError> {
        check(rgb, from)?;
        if to.area() == 0 {
            return Err(VisionError::Empty { width: to.width, height: to.height });
        }
        if from == to {
            return Ok(rgb);
        }
        if filter == Filter::Linear {
            linear::resize(rgb, from, to, &mut self.out);
            return Ok(&self.out);
        }
        let mut rows = rgb;
        if from.width != to.width {
            self.horizontal.fit(from.width, to.width, filter);
            self.between.resize(Size::new(to.width, from.height).area() * 3, 0);
            horizontal(rgb, from.width as usize, &self.horizontal, &mut self.between);
            rows = &self.between;
        }
        if from.height == to.height {
            return Ok(rows);
        }
        self.vertical.fit(from.height, to.height, filter);
        self.out.resize(to.area() * 3, 0);
        vertical(rows, to.width as usize * 3, &self.vertical, &mut self.sums, &mut self.out);
        Ok(&self.out)
    }
}

/// The weights of one pass.
#[derive(Debug, Default)]
struct Weights {
    made_for: Option<(u32, u32, Filter)>,
    /// For each output pixel: the first input pixel, and the end of its weights in `values`.
    windows: Vec<(usize, usize)>,
    values: Vec<i32>,
}

impl Weights {
    /// Computes the weights from `from` to `to` pixels, unless they are here already.
    fn fit(&mut self, from: u32, to: u32, filter: Filter) {
        if self.made_for == Some((from, to, filter)) {
            return;
        }
        self.windows.clear();
        self.values.clear();
        let scale = f64::from(from) / f64::from(to);
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut window = Vec::new();
        for out in 0..to {
            let centre = (f64::from(out) + 0.5) * scale;
            // Casts to integers truncate towards zero, as C's do; the order of the operations is Pillow's as well.
            #[expect(clippy::cast_possible_truncation, reason = "positions in a picture")]
            let (first, end) =
                (((centre - support + 0.5) as i64).max(0), ((centre + support + 0.5) as i64).min(from.into()));
            window.clear();
            window.extend((0..end - first).map(|i| {
                let i = i as f64 + first as f64;
                filter.weight((i - centre + 0.5) * (1.0 / stretch))
            }));
            let sum: f64 = window.iter().sum();
            let norm = if sum == 0.0 { 1.0 } else { 1.0 / sum };
            self.values.extend(window.iter().map(|w| fixed(w * norm)));
            self.windows.push((usize::try_from(first).unwrap_or_default(), self.values.len()));
        }
        self.made_for = Some((from, to, filter));
    }

    /// Each output pixel's first input pixel and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut start = 0;
        self.windows.iter().map(move |&(first, end)| {
            let weights = &self.values[start..end];
            start = end;
            (first, weights)
        })
    }
}

/// A weight with `BITS` fractional bits, rounded half away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << BITS);
    #[expect(clippy::cast_possible_truncation, reason = "weights are within -2..2")]
    let fixed = (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
    fixed
}

fn byte(sum: i32) -> u8 {
    #[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
    let byte = (sum >> BITS).clamp(0, 255) as u8;
    byte
}

fn horizontal(rgb: &[u8], width: usize, weights: &Weights, out: &mut [u8]) {
    let columns = weights.windows.len();
    for (row, out) in rgb.chunks_exact(width * 3).zip(out.chunks_exact_mut(columns * 3)) {
        for ((first, weights), out) in weights.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [HALF; 3];
            let pixels = row[first * 3..(first + weights.len()) * 3].chunks_exact(3);
            for (pixel, weight) in pixels.zip(weights) {
                for (sum, sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*sample) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = byte(sum);
            }
        }
    }
}

fn vertical(rows: &[u8], stride: usize, weights: &Weights, sums: &mut Vec<i32>, out: &mut [u8]) {
    for ((first, weights), out) in weights.iter().zip(out.chunks_exact_mut(stride)) {
        sums.clear();
        sums.resize(stride, HALF);
        for (row, weight) in rows[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(*sample) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.iter()) {
            *out = byte(*sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resize(rgb: &[u8], from: (u32, u32), to: (u32, u32), filter: Filter) -> Vec<u8> {
        let (from, to) = (Size::new(from.0, from.1), Size::new(to.0, to.1));
        Resampler::default().resize(rgb, from, to, filter).unwrap().to_vec()
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let mut r = Resampler::default();
        let s = |w, h| Size::new(w, h);
        assert!(matches!(r.resize(&[0; 11], s(2, 2), s(4, 4), Filter::Bilinear), Err(VisionError::Bytes { .. })));
        assert!(matches!(r.resize(&[], s(0, 2), s(4, 4), Filter::Bilinear), Err(VisionError::Empty { .. })));
        assert!(matches!(r.resize(&[0; 12], s(2, 2), s(4, 0), Filter::Bilinear), Err(VisionError::Empty { .. })));
    }

    proptest! {
        #[test]
        fn one_colour_stays_one_colour(
            (w, h) in (1u32..40, 1u32..40), (tw, th) in (1u32..60, 1u32..60), colour: [u8; 3], cubic: bool,
        ) {
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let rgb = colour.repeat(Size::new(w, h).area());
            let out = resize(&rgb, (w, h), (tw, th), filter);
            prop_assert_eq!(out, colour.repeat(Size::new(tw, th).area()));
        }

        #[test]
        fn a_resampler_that_lives_on_remembers_nothing_it_should_not(
            sizes in prop::collection::vec(((1u32..20, 1u32..20), (1u32..20, 1u32..20), any::<bool>()), 1..6),
            seed: u8,
        ) {
            let mut kept = Resampler::default();
            for (from, to, cubic) in sizes {
                let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
                let len = Size::new(from.0, from.1).area() * 3;
                let rgb: Vec<u8> = (0u8..=255).cycle().map(|i| i.wrapping_mul(37) ^ seed).take(len).collect();
                let (f, t) = (Size::new(from.0, from.1), Size::new(to.0, to.1));
                prop_assert_eq!(kept.resize(&rgb, f, t, filter).unwrap(), resize(&rgb, from, to, filter));
            }
        }
    }
}
