//! Against the reference processors: what `tests/data/codec/generate.py` dumped from transformers and Pillow.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{dino, mrope::Positions, owl, qwen, *};

macro_rules! fixture {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!("../../../tests/data/codec/", $name))).unwrap()
    };
}

/// The same picture that `generate.py` makes; kind 0: noise; 1: black and white noise; 2: a smooth slope.
fn picture(width: u32, height: u32, kind: u32, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(Size::new(width, height).area() * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = state.to_le_bytes()[3];
                out.push(match kind {
                    0 => noise,
                    1 => (noise >> 7) * 255,
                    _ => ((x * 3 + y * 2 + c * 40 + seed) / 4).to_le_bytes()[0],
                });
            }
        }
    }
    out
}

fn digest(bytes: impl IntoIterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.into_iter().collect();
    Sha256::digest(&bytes)
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .filter_map(|n| char::from_digit(n.into(), 16))
        .collect()
}

fn floats(values: &[f32]) -> String {
    digest(values.iter().flat_map(|v| v.to_le_bytes()))
}

fn integers(values: &[i64]) -> String {
    digest(values.iter().flat_map(|v| v.to_le_bytes()))
}

#[derive(Deserialize)]
struct Resample {
    from: (u32, u32),
    to: (u32, u32),
    kind: u32,
    seed: u32,
    cubic: bool,
    sha256: String,
}

#[test]
fn resampling_is_pillow_s_to_the_bit() {
    let cases: Vec<Resample> = fixture!("resample.json");
    let mut resampler = Resampler::default();
    for Resample { from, to, kind, seed, cubic, sha256 } in cases {
        let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
        let rgb = picture(from.0, from.1, kind, seed);
        let got = resampler.resize(&rgb, Size::new(from.0, from.1), Size::new(to.0, to.1), filter).unwrap();
        assert_eq!(digest(got.iter().copied()), sha256, "{from:?} to {to:?}, kind {kind}, cubic {cubic}");
    }
}

/// Height, width, factor, fewest and most pixels; the size, height first, if there is one.
type Smart = (u32, u32, u32, u64, u64, Option<(u32, u32)>);

#[derive(Deserialize)]
struct Sizes {
    smart_resize: Vec<Smart>,
    grounding_dino: Vec<(u32, u32, u32, u32)>,
}

#[test]
fn sizes_are_those_of_transformers() {
    let sizes: Sizes = fixture!("sizes.json");
    for (h, w, factor, min_pixels, max_pixels, expected) in sizes.smart_resize {
        let limits = SmartResize { patch: factor / 2, min_pixels, max_pixels };
        let got = smart_resize(Size::new(w, h), &limits).ok();
        assert_eq!(got.map(|s| (s.height, s.width)), expected, "{w}x{h} {limits:?}");
    }
    for (h, w, to_h, to_w) in sizes.grounding_dino {
        assert_eq!(dino::fitted(Size::new(w, h), 800, 1333), Size::new(to_w, to_h), "{w}x{h}");
    }
}

#[derive(Deserialize)]
struct Tensor {
    size: (u32, u32),
    kind: u32,
    seed: u32,
    model: String,
    shape: Vec<usize>,
    #[serde(default)]
    grid: Vec<u32>,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    mask_sha256: String,
    #[serde(default)]
    head: Vec<f32>,
    #[serde(default)]
    step: usize,
    #[serde(default)]
    values: Vec<f32>,
}

#[test]
fn tensors_are_those_of_transformers() {
    let cases: Vec<Tensor> = fixture!("tensors.json");
    let mut r = Resampler::default();
    for t in cases {
        let size = Size::new(t.size.0, t.size.1);
        let rgb = picture(size.width, size.height, t.kind, t.seed);
        let got = match t.model.as_str() {
            "qwen2" | "qwen3" => {
                let (limits, normalise) = match t.model.as_str() {
                    "qwen2" => (SmartResize::QWEN2, Normalise::CLIP),
                    _ => (SmartResize::QWEN3, Normalise::HALF),
                };
                let got = qwen::patches(&rgb, size, &limits, &normalise, &mut r).unwrap();
                assert_eq!(got.grid.as_slice(), t.grid);
                got.values
            }
            "florence" | "paligemma" => {
                let (side, normalise) =
                    if t.model == "florence" { (768, Normalise::IMAGENET) } else { (224, Normalise::HALF) };
                let fit = Fit { image: Size::new(side, side), filter: Filter::Bicubic, normalise };
                let mut out = Vec::new();
                fit.prepare(&rgb, size, &mut r, &mut out).unwrap();
                out
            }
            "dino" | "dino_canvas" => {
                let canvas = (t.model == "dino_canvas").then_some(Size::new(140, 140));
                let got = dino::prepare(&rgb, size, (80, 133), canvas, &mut r).unwrap();
                assert_eq!([got.canvas.height, got.canvas.width].map(|v| v as usize), t.shape[2..]);
                if canvas.is_some() {
                    assert_eq!(integers(&got.mask), t.mask_sha256);
                }
                got.pixels
            }
            "owl" => owl::prepare(&rgb, size, u32::try_from(t.shape[3]).unwrap()).unwrap().0,
            other => panic!("unknown model {other}"),
        };
        assert_eq!(got.len(), t.shape.iter().product::<usize>(), "{} {size:?}", t.model);
        if t.model == "owl" {
            let far = got.iter().step_by(t.step).zip(&t.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 2e-5, "owl {size:?} {:?}: {far}", t.shape);
        } else {
            assert!(got.iter().zip(&t.head).all(|(a, b)| (a - b).abs() < 1e-5), "{} {size:?}", t.model);
            assert_eq!(floats(&got), t.sha256, "{} {size:?}", t.model);
        }
    }
}

#[derive(Deserialize)]
struct RopeCase {
    tokens: Vec<i64>,
    grids: Vec<(u32, u32)>,
    ids: Vec<i64>,
    delta: i64,
}

#[test]
fn rope_positions_are_those_of_transformers() {
    let cases: Vec<RopeCase> = fixture!("mrope.json");
    for case in cases {
        let got = Positions::of(&case.tokens, 7, &case.grids).unwrap();
        assert_eq!((got.ids, got.delta), (case.ids, case.delta), "{:?}", case.grids);
    }
}
