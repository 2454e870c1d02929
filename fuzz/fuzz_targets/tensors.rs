//! Any sizes, limits, grids and prompts: refused or answered, never a panic, and what is answered has the right length.

#![no_main]

use arbitrary::Arbitrary;
use groundd::{
    ground::vision::{Filter, Normalise, Resampler, SmartResize, dino, mrope::Positions, owl, qwen, smart_resize},
    types::Size,
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    huge: (u32, u32),
    limits: (u32, u64, u64),
    size: (u8, u8),
    to: (u8, u8),
    grids: Vec<(u8, u8)>,
    tokens: Vec<bool>,
    rgb: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let limits = SmartResize { patch: input.limits.0, min_pixels: input.limits.1, max_pixels: input.limits.2 };
    let huge = Size::new(input.huge.0, input.huge.1);
    let _ = smart_resize(huge, &limits);
    dino::fitted(huge, input.limits.0 % 4096, 1333);

    let (size, to) =
        (Size::new(input.size.0.into(), input.size.1.into()), Size::new(input.to.0.into(), input.to.1.into()));
    let mut rgb = input.rgb;
    rgb.resize(size.area() * 3 + usize::from(input.limits.0 == 7), 0);
    let mut resampler = Resampler::default();
    for filter in [Filter::Bilinear, Filter::Bicubic] {
        if let Ok(out) = resampler.resize(&rgb, size, to, filter) {
            assert_eq!(out.len(), to.area() * 3);
        }
    }
    if let Ok((values, grid)) = qwen::cut(&rgb, size, input.limits.0 % 32, &Normalise::CLIP) {
        assert_eq!(values.len(), size.area() * 6);
        assert_eq!(grid[1] * grid[2] * (input.limits.0 % 32).pow(2), size.area() as u32);
    }
    let _ = owl::prepare(&rgb, size, u32::from(input.to.0 % 64));
    let _ = dino::prepare(&rgb, size, (u32::from(input.to.1), 300), Some(to), &mut resampler);

    let grids: Vec<(u32, u32)> =
        input.grids.iter().take(4).map(|&(h, w)| (u32::from(h % 64), u32::from(w % 64))).collect();
    let tokens: Vec<i64> = input.tokens.iter().map(|&image| i64::from(image)).collect();
    if let Ok(positions) = Positions::of(&tokens, 1, &grids) {
        assert_eq!(positions.ids.len(), tokens.len() * 3);
    }
});
