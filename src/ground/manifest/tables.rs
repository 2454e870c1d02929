//! The tables of a manifest, as they are written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[input]`: what frames must look like.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Width in pixels, unless the model takes any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub width: u32,
    /// Height in pixels, unless the model takes any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub height: u32,
    /// Widths and heights of other canvases that it takes, for pictures that are larger on them; with `letterbox`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<[u32; 2]>,
    /// How a picture is laid on the model's image.
    pub fit: Fit,
    /// Side of a patch in pixels; with `patches`.
    pub patch: Option<u32>,
    /// Patches merged into one token, on a side; with `patches`.
    pub merge: Option<u32>,
    /// Frames in a patch; with `patches`.
    pub temporal_patch: Option<usize>,
    /// Side in pixels of the windows that attention is kept to; with `patches`, where the model has them.
    pub window: Option<u32>,
    /// Fewest pixels of a resized picture; with `patches`.
    pub min_pixels: Option<u64>,
    /// Most pixels of a resized picture; with `patches`.
    pub max_pixels: Option<u64>,
    /// How pixels are interpolated.
    pub resample: Option<Resample>,
    /// The byte around the picture; with `corner`.
    pub pad: Option<u8>,
    /// Whether the image ends soon after the picture, at a whole step of the coarsest grid, where the graph takes pictures of any
    /// size; with `corner`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rect: bool,
    /// Shorter side of the scaled picture; with `shortest`.
    pub shortest: Option<u32>,
    /// Longer side of the scaled picture at most; with `shortest`.
    pub longest: Option<u32>,
    /// Which colour is the tensor's first; red unless said.
    #[serde(default)]
    pub channels: Channels,
    /// What a byte is multiplied by, first of all.
    pub scale: Option<f64>,
    /// What is subtracted from each channel.
    pub mean: Option<[f32; 3]>,
    /// What each channel is divided by.
    pub std: Option<[f32; 3]>,
    /// What the numbers in an answer count.
    pub coordinates: Option<Coordinates>,
}

/// How a picture is laid on the model's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Scaled by one factor and centred on black.
    #[default]
    Letterbox,
    /// Stretched to a fixed size.
    Stretch,
    /// Resized to whole patches, near its own size.
    Patches,
    /// Scaled by one factor, in the top left corner, the rest filled with one value.
    Corner,
    /// In the top left corner with its shorter side at a given length, the rest masked out.
    Shortest,
    /// Made square with grey to the right or below, then scaled.
    Square,
    /// Scaled by one factor until the image is covered, what juts out cut off on both sides.
    Centre,
}

impl Fit {
    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Letterbox => "letterbox",
            Self::Stretch => "stretch",
            Self::Patches => "patches",
            Self::Corner => "corner",
            Self::Shortest => "shortest",
            Self::Square => "square",
            Self::Centre => "centre",
        }
    }
}

/// How pixels are interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resample {
    /// Pillow's bilinear.
    Bilinear,
    /// Pillow's bicubic.
    Bicubic,
    /// Straight lines between neighbours, whatever the scale: `OpenCV`'s bilinear.
    Linear,
}

/// The order of a tensor's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red: `OpenCV`'s.
    Bgr,
}

/// What the numbers in an answer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coordinates {
    /// Thousandths of the image.
    Thousandths,
    /// Pixels of the resized image.
    ResizedPixels,
    /// Location tokens, x first.
    BinsXyxy,
    /// Location tokens, y first.
    BinsYxyx,
}

/// `[limits]`: the sizes the files were made for. Which ones are needed depends on the family; of those that have no value of
/// their own 0 is none given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Regions proposed on every frame.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub regions: usize,
    /// Tokens a query can have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub query_tokens: usize,
    /// Most frames in one batch.
    #[serde(default = "one")]
    pub max_batch: usize,
    /// Tokens the language model can hold, prompt and answer together.
    #[serde(default)]
    pub context: usize,
    /// Most tokens that stand for a picture.
    #[serde(default)]
    pub image_tokens: usize,
    /// Most tokens of an answer; what is longer is cut.
    #[serde(default = "answer_tokens")]
    pub answer_tokens: usize,
    /// Most boxes of an answer; what comes after is not asked for.
    #[serde(default = "boxes")]
    pub boxes: usize,
    /// Most answers written side by side, where the graphs take several; each needs memory for a cache of its own.
    #[serde(default = "rows")]
    pub rows: usize,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> usize {
    1
}

/// Some thirty boxes as JSON; models that write more have usually lost themselves.
fn answer_tokens() -> usize {
    1024
}

fn boxes() -> usize {
    100
}

/// A step of a language model takes as long for one answer as for some, and a cache is tens of megabytes.
fn rows() -> usize {
    8
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            regions: 0,
            query_tokens: 0,
            max_batch: one(),
            context: 0,
            image_tokens: 0,
            answer_tokens: answer_tokens(),
            boxes: boxes(),
            rows: rows(),
        }
    }
}

/// `[decoder]`: the language model's shape, to check the files against.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Decoder {
    /// Layers with a cache.
    pub layers: usize,
    /// Heads of a cache.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of an embedding.
    pub hidden: usize,
    /// Tokens it knows.
    pub vocabulary: usize,
    /// How it is told where a token stands.
    pub positions: Positions,
    /// Layers that see the picture's features again.
    #[serde(default)]
    pub deepstack: usize,
    /// Element type of the cache, for people; the code reads it from the graph.
    pub cache: String,
    /// Form of the weights, for people.
    pub weights: String,
}

/// How a language model is told where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// Three numbers a token: time, row and column.
    Mrope,
    /// Counted from 0.
    FromZero,
    /// Counted from 1.
    FromOne,
    /// Not at all: the graph counts.
    InGraph,
}

impl Positions {
    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mrope => "mrope",
            Self::FromZero => "from-zero",
            Self::FromOne => "from-one",
            Self::InGraph => "in-graph",
        }
    }
}

/// `[scores]`: thresholds, 0 to 1, as tuned on the model's own validation data.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Proposals below are not offered.
    pub objectness: f32,
    /// Matches below are not reported, unless the query has its own threshold.
    #[serde(rename = "match")]
    pub matching: f32,
    /// Of two matches that overlap more than this, the better one stays.
    pub nms_iou: f32,
    /// Of two matches that overlap less than that the weaker one's score falls, the more the more they overlap: the variance of
    /// Soft-NMS. Unset is not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_nms: Option<f32>,
    /// Likewise for `detector`; unset is 0.5.
    pub detector: Option<f32>,
    /// Likewise for `coords` and `bins`: how sure the model was that there is another box. Unset is 0.5, below which it
    /// writes none.
    pub write: Option<f32>,
    /// How sure the model must be that a crop shows what is asked for, for `zoom` to look at its boxes. Unset is 0.5.
    pub exist: Option<f32>,
}

/// `[tokens]`: how words become numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The vocabulary's path; one of the files.
    #[serde(default)]
    pub vocabulary: PathBuf,
    /// Words by which one thing is meant, as `largest`: only the best match is reported then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one: Vec<String>,
    /// Every token that ends an answer.
    #[serde(default)]
    pub end: Vec<u32>,
    /// Stands for a piece of the picture.
    pub image: Option<u32>,
    /// What an answer is begun with, where the model has an encoder.
    pub first: Option<u32>,
    /// Begins a text.
    pub begin: Option<u32>,
    /// Fills up.
    pub pad: Option<u32>,
    /// Before a picture.
    pub vision_start: Option<u32>,
    /// After a picture.
    pub vision_end: Option<u32>,
    /// Before a turn of the conversation.
    pub turn_start: Option<u32>,
    /// After a turn of the conversation.
    pub turn_end: Option<u32>,
    /// Before a name.
    pub ref_start: Option<u32>,
    /// After a name.
    pub ref_end: Option<u32>,
    /// Before a box.
    pub box_start: Option<u32>,
    /// After a box.
    pub box_end: Option<u32>,
    /// The first location token.
    pub location_first: Option<u32>,
    /// How many location tokens there are.
    pub location_count: Option<u32>,
    /// The first segmentation token.
    pub segment_first: Option<u32>,
    /// How many segmentation tokens there are.
    pub segment_count: Option<u32>,
}

impl Tokens {
    /// The tokens that give a prompt its structure and an answer its places: words must not contain them.
    pub fn reserved(&self) -> Vec<u32> {
        let single = [
            self.image,
            self.first,
            self.begin,
            self.pad,
            self.vision_start,
            self.vision_end,
            self.turn_start,
            self.turn_end,
            self.ref_start,
            self.ref_end,
            self.box_start,
            self.box_end,
        ];
        let ranges = [(self.location_first, self.location_count), (self.segment_first, self.segment_count)];
        let ranges = ranges.into_iter().filter_map(|(first, count)| Some(first?..first?.saturating_add(count?)));
        self.end.iter().copied().chain(single.into_iter().flatten()).chain(ranges.flatten()).collect()
    }
}

/// One `[[files]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it is for; families define their roles.
    pub role: String,
    /// Where it lies, relative to the folder and inside it.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, 64 lower-case hex digits.
    pub sha256: String,
}
