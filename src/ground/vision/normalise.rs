//! Bytes -> numbers: `(v / 255 − mean) / std`, and the channel orders models take.

/// Mean and standard deviation of each channel, R G B, of values between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalise {
    /// What is subtracted.
    pub mean: [f32; 3],
    /// What is divided by.
    pub std: [f32; 3],
}

impl Normalise {
    /// CLIP's: Qwen2-VL, Qwen2.5-VL, `OWLv2` (`OPENAI_CLIP_MEAN`, `OPENAI_CLIP_STD`).
    pub const CLIP: Self =
        Self { mean: [0.481_454_66, 0.457_827_5, 0.408_210_73], std: [0.268_629_54, 0.261_302_6, 0.275_777_1] };
    /// `ImageNet`'s: Florence-2, Grounding DINO (`IMAGENET_DEFAULT_MEAN`, `IMAGENET_DEFAULT_STD`).
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// -1 to 1: Qwen3-VL, `PaliGemma`, `SigLIP`, OFA (`IMAGENET_STANDARD_MEAN`, `IMAGENET_STANDARD_STD`).
    pub const HALF: Self = Self { mean: [0.5; 3], std: [0.5; 3] };

    /// The value of every byte of every channel. In the order transformers computes: `v · (1/255)` in `f64`, rounded to
    /// `f32`, then minus mean, then by std, in `f32`; so all of an image is a look-up, and exact.
    pub fn table(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| std::array::from_fn(|v| (rescaled(v) - self.mean[c]) / self.std[c]))
    }

    /// Writes packed RGB as planes R, G, B of `stride` values each into `out`, of which the first `rgb.len() / 3` are
    /// set.
    pub fn planes(&self, rgb: &[u8], out: &mut [f32], stride: usize) {
        let table = self.table();
        for (c, plane) in out.chunks_mut(stride.max(1)).take(3).enumerate() {
            for (out, pixel) in plane.iter_mut().zip(rgb.chunks_exact(3)) {
                *out = table[c][pixel[c] as usize];
            }
        }
    }
}

/// A byte as 0 to 1, the way transformers' `rescale` rounds it.
pub(super) fn rescaled(v: usize) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "0..=1; rounding to f32 is meant")]
    let v = (v as f64 * (1.0 / 255.0)) as f32;
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn planes_are_one_colour_each() {
        let mut out = [9.0; 9];
        Normalise::HALF.planes(&[255, 0, 0, 0, 255, 0], &mut out, 3);
        assert_eq!(out, [1.0, -1.0, 9.0, -1.0, 1.0, 9.0, -1.0, -1.0, 9.0]);
    }
}
