//! What each family's configuration says, as its reference processor reads it.

use serde::Deserialize;

use super::{Facts, Json, Source};
use crate::{
    ground::manifest::{Coordinates, File, Fit, Input, Manifest, ManifestError, Resample, Sizes, Tokens},
    types::{Method, published::VOCABULARY},
};

/// Tokens that a picture of a stream should cost at most, whatever the checkpoint was trained for.
const STREAM_TOKENS: u64 = 1280;
/// Cameras that a batch holds at most, as `tools/export` has it.
const BATCH: usize = 4;
/// What Qwen's checkpoints hold if nothing is said.
const CONTEXT: usize = 32_768;
/// The one of Qwen's families whose vision tower has windows, and their side in pixels if nothing is said.
const QWEN2_5: &str = "qwen2.5-vl";
const WINDOW: u32 = 112;
const LOCATIONS: u32 = 1000;
const BINS: u32 = 1024;
const SEGMENTS: u32 = 128;

/// The families whose configuration says all that a manifest would, by their `model_type`.
const TOLD: [&str; 5] = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "florence2", "paligemma"];
/// Those that are run by a manifest only.
const BY_MANIFEST: [&str; 9] =
    ["owlv2", "grounding-dino", "clip", "siglip", "rt_detr", "rt_detr_v2", "rf_detr", "d_fine", "deformable_detr"];
/// Tokens of a picture from which on a manifest is refused, whatever else it says.
const MOST_TOKENS: usize = 1 << 18;

/// One id or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

/// Refuses a configuration of another family.
pub(super) fn check(config: &Json) -> Result<(), ManifestError> {
    let kind: String = config.need(&["model_type"])?;
    if TOLD.contains(&kind.as_str()) { Ok(()) } else { Err(refused(config, &kind)) }
}

fn refused(config: &Json, kind: &str) -> ManifestError {
    let reason = if BY_MANIFEST.contains(&kind) {
        format!(
            "is `{kind}`, a family that needs a model.toml: tools/export makes one from the checkpoint, \
             tools/export/wrap.py from a detector's .onnx"
        )
    } else {
        format!("is `{kind}`; this build runs: {}", TOLD.join(", "))
    };
    config.wrong("model_type", &reason)
}

pub(super) fn manifest(source: &Source, facts: Facts, files: Vec<File>) -> Result<Manifest, ManifestError> {
    let kind: String = source.config.need(&["model_type"])?;
    let (family, methods, input, limits, tokens) = match kind.as_str() {
        "qwen2_vl" => qwen(source, "qwen2-vl", Coordinates::Thousandths)?,
        "qwen2_5_vl" => qwen(source, QWEN2_5, Coordinates::ResizedPixels)?,
        "qwen3_vl" => qwen(source, "qwen3-vl", Coordinates::Thousandths)?,
        "florence2" => florence(source)?,
        "paligemma" => paligemma(source)?,
        _ => return Err(refused(&source.config, &kind)),
    };
    let Facts { name, version, licence, provenance } = facts;
    Ok(Manifest {
        name,
        version,
        family: family.to_owned(),
        methods: methods.to_vec(),
        licence,
        provenance,
        input,
        limits,
        tokens,
        files,
        dir: source.dir.clone(),
        ..Manifest::default()
    })
}

type Parts = (&'static str, &'static [Method], Input, Sizes, Tokens);

fn qwen(source: &Source, family: &'static str, coordinates: Coordinates) -> Result<Parts, ManifestError> {
    let (config, picture) = (&source.config, &source.picture);
    let patch: u32 = config.need(&["vision_config.patch_size"])?;
    let merge: u32 = config.get("vision_config.spatial_merge_size")?.unwrap_or(2);
    let unit = u64::from(patch.saturating_mul(merge)).pow(2).max(1);
    let min_pixels: u64 = picture.first(&["min_pixels", "size.shortest_edge"])?.unwrap_or(unit.saturating_mul(4));
    let max_pixels: Option<u64> = picture.first(&["max_pixels", "size.longest_edge"])?;
    let max_pixels = max_pixels.unwrap_or(u64::MAX).min(STREAM_TOKENS.saturating_mul(unit));
    let input = Input {
        fit: Fit::Patches,
        patch: Some(patch),
        merge: Some(merge),
        temporal_patch: Some(config.get("vision_config.temporal_patch_size")?.unwrap_or(2)),
        window: config.get("vision_config.window_size")?.or((family == QWEN2_5).then_some(WINDOW)),
        min_pixels: Some(min_pixels.min(max_pixels)),
        max_pixels: Some(max_pixels),
        coordinates: Some(coordinates),
        ..normalised(source)?
    };
    let context = config.first(&["text_config.max_position_embeddings", "max_position_embeddings"])?;
    let mark = |key: &str, text: &str| match source.config.get(key)? {
        Some(id) => Ok(Some(id)),
        None => named(source, text).map(Some),
    };
    let tokens = Tokens {
        image: mark("image_token_id", "<|image_pad|>")?,
        vision_start: mark("vision_start_token_id", "<|vision_start|>")?,
        vision_end: mark("vision_end_token_id", "<|vision_end|>")?,
        turn_start: Some(named(source, "<|im_start|>")?),
        turn_end: Some(named(source, "<|im_end|>")?),
        ref_start: source.tokens.get("<|object_ref_start|>").copied(),
        ref_end: source.tokens.get("<|object_ref_end|>").copied(),
        box_start: source.tokens.get("<|box_start|>").copied(),
        box_end: source.tokens.get("<|box_end|>").copied(),
        ..ends(source)?
    };
    let image_tokens = usize::try_from(max_pixels / unit).unwrap_or(usize::MAX);
    Ok((family, &[Method::Coords, Method::Zoom], input, sizes(context.unwrap_or(CONTEXT), image_tokens), tokens))
}

fn florence(source: &Source) -> Result<Parts, ManifestError> {
    let config = &source.config;
    let (input, side) = stretched(source, Coordinates::BinsXyxy)?;
    let image_tokens = if let Some(count) = source.picture.get("image_seq_length")? {
        count
    } else {
        // One token a cell of the tower's last stage, and one for the whole.
        let strides: Vec<u32> = config.need(&["vision_config.patch_stride"])?;
        (strides.iter().fold(side, |cells, stride| cells.div_ceil((*stride).max(1))) as usize).pow(2) + 1
    };
    let begin = config.first(&["text_config.bos_token_id", "bos_token_id"])?;
    let first = config.first(&["text_config.decoder_start_token_id", "decoder_start_token_id"])?;
    let first = match (&source.generation, first) {
        (Some(generation), None) => generation.get("decoder_start_token_id")?,
        (_, first) => first,
    };
    let ends = ends(source)?;
    let tokens = Tokens {
        // Published exports lay the picture before the words and have no token for it.
        image: config.first(&["image_token_id", "image_token_index"])?,
        // BART begins with what it ends with, and configurations leave out what is usual.
        first: first.or_else(|| ends.end.first().copied()),
        begin: Some(begin.map_or_else(|| named(source, "<s>"), Ok)?),
        pad: config.first(&["text_config.pad_token_id", "pad_token_id"])?,
        location_first: Some(run(source, LOCATIONS, |i| format!("<loc_{i}>"))?),
        location_count: Some(LOCATIONS),
        ..ends
    };
    let context = config.need(&["text_config.max_position_embeddings", "max_position_embeddings"])?;
    Ok(("florence-2", &[Method::Bins], input, sizes(context, image_tokens), tokens))
}

fn paligemma(source: &Source) -> Result<Parts, ManifestError> {
    let config = &source.config;
    let (input, side) = stretched(source, Coordinates::BinsYxyx)?;
    let told = source.picture.get("image_seq_length")?;
    let told = told.map_or_else(
        || config.first(&["text_config.num_image_tokens", "vision_config.num_image_tokens"]),
        |n| Ok(Some(n)),
    )?;
    let image_tokens: usize = if let Some(count) = told {
        count
    } else {
        let patch: u32 = config.need(&["vision_config.patch_size"])?;
        ((side / patch.max(1)) as usize).pow(2)
    };
    let begin = config.first(&["bos_token_id", "text_config.bos_token_id"])?;
    let tokens = Tokens {
        image: Some(config.need(&["image_token_index", "image_token_id"])?),
        begin: Some(begin.map_or_else(|| named(source, "<bos>"), Ok)?),
        location_first: Some(run(source, BINS, |i| format!("<loc{i:04}>"))?),
        location_count: Some(BINS),
        segment_first: Some(run(source, SEGMENTS, |i| format!("<seg{i:03}>"))?),
        segment_count: Some(SEGMENTS),
        ..ends(source)?
    };
    // Within a sliding layer's window every key is seen, as the exported graphs do.
    let context = config.get("text_config.max_position_embeddings")?.unwrap_or(8192);
    let gemma2 = config.get::<String>("text_config.model_type")?.is_some_and(|kind| kind == "gemma2");
    let window: Option<usize> = config.get("text_config.sliding_window")?.filter(|_| gemma2);
    if let Some(window) = window.filter(|window| (*window..MOST_TOKENS).contains(&image_tokens)) {
        let reason = format!(
            "is {window}, and a picture alone takes {image_tokens} tokens, so that nothing is left for a question; take a \
             checkpoint for smaller pictures, of 224 or 448 pixels"
        );
        return Err(config.wrong("text_config.sliding_window", &reason));
    }
    let context = window.map_or(context, |window| context.min(window));
    Ok(("paligemma", &[Method::Bins], input, sizes(context, image_tokens), tokens))
}

fn sizes(context: usize, image_tokens: usize) -> Sizes {
    Sizes { context, image_tokens, max_batch: BATCH, ..Sizes::default() }
}

/// How bytes become numbers.
fn normalised(source: &Source) -> Result<Input, ManifestError> {
    let picture = &source.picture;
    let resample = match picture.get::<u32>("resample")?.unwrap_or(3) {
        2 => Resample::Bilinear,
        3 => Resample::Bicubic,
        other => {
            return Err(picture.wrong("resample", &format!("is {other}; 2 (bilinear) and 3 (bicubic) are known here")));
        }
    };
    Ok(Input {
        fit: Fit::Stretch,
        resample: Some(resample),
        scale: Some(picture.get("rescale_factor")?.unwrap_or(1.0 / 255.0)),
        mean: Some(picture.need(&["image_mean"])?),
        std: Some(picture.need(&["image_std"])?),
        ..Input::default()
    })
}

/// A picture stretched to a square, and the square's side.
fn stretched(source: &Source, coordinates: Coordinates) -> Result<(Input, u32), ManifestError> {
    let picture = &source.picture;
    let (height, width): (u32, u32) =
        (picture.need(&["crop_size.height", "size.height"])?, picture.need(&["crop_size.width", "size.width"])?);
    if height != width {
        return Err(picture.wrong("size", &format!("is {width} by {height}; these models take squares")));
    }
    Ok((Input { width, height, coordinates: Some(coordinates), ..normalised(source)? }, width))
}

/// The vocabulary, and every token that ends an answer.
fn ends(source: &Source) -> Result<Tokens, ManifestError> {
    let told = source.generation.as_ref().map_or(Ok(None), |generation| generation.get::<Ids>("eos_token_id"))?;
    let told =
        told.map_or_else(|| source.config.first(&["eos_token_id", "text_config.eos_token_id"]), |ids| Ok(Some(ids)))?;
    let end = match told {
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Many(ids)) if !ids.is_empty() => ids,
        _ => return Err(source.config.wrong("eos_token_id", "is missing, here and in generation_config.json")),
    };
    Ok(Tokens { vocabulary: VOCABULARY.into(), end, ..Tokens::default() })
}

fn named(source: &Source, text: &str) -> Result<u32, ManifestError> {
    let missing = || ManifestError::Value {
        file: source.dir.join(VOCABULARY),
        key: "added_tokens".to_owned(),
        reason: format!("has no `{text}`: this vocabulary is not this family's"),
    };
    source.tokens.get(text).copied().ok_or_else(missing)
}

/// The first of `count` tokens that must follow one another.
fn run(source: &Source, count: u32, text: impl Fn(u32) -> String) -> Result<u32, ManifestError> {
    let first = named(source, &text(0))?;
    for i in 1..count {
        if Some(named(source, &text(i))?) != first.checked_add(i) {
            return Err(ManifestError::Value {
                file: source.dir.join(VOCABULARY),
                key: "added_tokens".to_owned(),
                reason: format!("`{}` should have the id {}", text(i), u64::from(first) + u64::from(i)),
            });
        }
    }
    Ok(first)
}
