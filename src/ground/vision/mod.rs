//! Pictures -> the tensors that real checkpoints expect, and the index tensors their graphs need beside them.
//!
//! Everything here is pure and follows the reference processors number by number: transformers 4.57.1 over Pillow.
//! It knows no model, no engine and no frame: 8-bit RGB in, `f32` (or indices) out. What a checkpoint combines:
//!
//! | model | picture | tensor | more |
//! |---|---|---|---|
//! | Qwen2-VL, Qwen2.5-VL | [`smart_resize`], bicubic, [`Normalise::CLIP`] | [`qwen::patches`] | [`mrope`] |
//! | Qwen3-VL | same with factor 32, [`Normalise::HALF`] | [`qwen::patches`] | [`mrope`] |
//! | Florence-2, `PaliGemma`, CLIP and `SigLIP` towers | [`Fit`] | `[1, 3, s, s]` | |
//! | `OWLv2` | [`owl::prepare`] | `[1, 3, s, s]` | boxes are fractions of the padded square |
//! | detectors with classes of their own | [`Lay`] | `[1, 3, h, w]` | |
//! | Grounding DINO | [`dino::prepare`] | `[1, 3, h, w]` | pixel mask |
//!
//! # Why the resampling is ours
//!
//! The reference is Pillow's 8-bit resampler. `fast_image_resize` keeps 16-bit coefficients: measured over 163 million
//! samples it is off by one level in 0.3 % and by two in a few of them, and it runs the vertical pass first, which is
//! off by up to 30. [`resample`] is Pillow's own arithmetic and was equal in every sample.

pub mod dino;
pub mod fit;
pub mod lay;
mod linear;
pub mod mrope;
pub mod normalise;
pub mod owl;
pub mod qwen;
pub mod resample;

#[cfg(test)]
mod reference;

pub use fit::Fit;
pub use lay::{Laid, Lay, Values};
pub use normalise::Normalise;
pub use qwen::{SmartResize, smart_resize};
pub use resample::{Filter, Resampler};

use crate::types::Size;

/// Why a picture cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisionError {
    /// A picture without pixels.
    #[error("a picture of {width}x{height} pixels has nothing to look at; give the model a picture with an area")]
    Empty {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// Longer than the model was ever shown.
    #[error(
        "a picture of {width}x{height} pixels is more than 200 times as long as wide, which the model cannot take; \
         crop it first"
    )]
    TooLong {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// Not `width · height · 3` bytes.
    #[error("a picture of {width}x{height} pixels takes {expected} bytes of RGB, not {got}")]
    Bytes {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// What it takes.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// Sides that patches do not tile.
    #[error("{width}x{height} pixels are not whole blocks of {block}; resize with `smart_resize` first")]
    NotWhole {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels that make one merged patch, on a side.
        block: u32,
    },
    /// The images do not fit the text.
    #[error("{0}")]
    Prompt(String),
}

/// Checks that `rgb` is a packed picture of `size` with an area.
fn check(rgb: &[u8], size: Size) -> Result<(), VisionError> {
    let Size { width, height } = size;
    if size.area() == 0 {
        return Err(VisionError::Empty { width, height });
    }
    let expected = size.area().saturating_mul(3);
    if rgb.len() != expected {
        return Err(VisionError::Bytes { width, height, expected, got: rgb.len() });
    }
    Ok(())
}
