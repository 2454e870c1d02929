//! The tables of models that give scored boxes: detectors with classes of their own, and what ranks regions by words.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// `[head]`: what the numbers of a detector with classes of its own mean.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Names of the classes, in the order of the scores. An empty name is a place that stands for nothing.
    pub classes: Vec<String>,
    /// Other words for a class.
    #[serde(default)]
    pub words: BTreeMap<String, String>,
    /// Pixels between neighbouring cells of each grid; where the boxes are told relative to cells.
    #[serde(default)]
    pub strides: Vec<u32>,
    /// Where in its cell a box is told from, 0 its top left corner, 1 its bottom right one.
    #[serde(default = "middle")]
    pub centre: f32,
    /// What has to be done to a score to be between 0 and 1.
    #[serde(default)]
    pub activation: Activation,
    /// Whether the graph gives pixels already, rather than numbers relative to cells.
    #[serde(default)]
    pub decoded: bool,
}

fn middle() -> f32 {
    0.5
}

/// How a raw number becomes a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// It is one.
    #[default]
    None,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// Its share among the texts it is compared with.
    Softmax,
}

/// `[text]`: how a text becomes tokens, where a model reads it as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TextInput {
    /// Most tokens, those that begin and end a text included.
    pub length: usize,
    /// What fills every text up to `length`; unset is texts of their own length.
    pub pad: Option<i64>,
    /// Whether capitals become small before anything else.
    #[serde(default)]
    pub lowercase: bool,
    /// Whether ASCII punctuation is dropped.
    #[serde(default)]
    pub plain: bool,
    /// Whether every query is asked in a pass of its own, where several could share one text.
    #[serde(default)]
    pub alone: bool,
    /// What the model is told for a query: `{}` is the query.
    #[serde(default = "bare")]
    pub template: String,
}

fn bare() -> String {
    "{}".to_owned()
}

/// `[proposer]`: the model that offers the regions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Proposer {
    /// Its folder, relative to this one; or the name of one among the models.
    pub model: PathBuf,
    /// Most regions taken of those it offers, the surest first.
    pub regions: usize,
}

/// `[contrast]`: how likeness of picture and text becomes a score.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contrast {
    /// What the cosine of the two is multiplied by.
    pub scale: f32,
    /// What is added then.
    #[serde(default)]
    pub bias: f32,
    /// `sigmoid`, or `softmax` over the query and `against`.
    pub activation: Activation,
    /// What else a region may be, with `softmax`: whole texts, the template is not put around them.
    #[serde(default)]
    pub against: Vec<String>,
    /// What a region is widened by on each side, as a share of that side.
    #[serde(default)]
    pub margin: f32,
    /// Most regions in one pass.
    #[serde(default = "crops")]
    pub batch: usize,
}

/// Larger passes are hardly faster on a CPU, and a picture of 224 pixels takes 0.6 MB before the first layer.
fn crops() -> usize {
    16
}

/// `[regions]`: how a language model is shown the regions that it chooses among.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Regions {
    /// Most regions in one prompt; more of them are shown in several, each with the regions of one part of the picture.
    pub prompt: usize,
    /// How its choice is read.
    #[serde(default)]
    pub selection: Selection,
    /// In what order regions are shown.
    #[serde(default)]
    pub order: Order,
    /// Most queries in one question, where answers are decoded.
    #[serde(default = "alone")]
    pub queries: usize,
    /// Of two offered regions that overlap more than this only the surer one is shown.
    pub nms_iou: f32,
    /// What is asked, `{}` being the queries; unset is what the family was trained on.
    pub question: Option<String>,
}

fn alone() -> usize {
    1
}

/// How a model's choice among regions is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The answer is written out, token by token: every region it names is a match.
    #[default]
    Decode,
    /// The answer is begun for the model and read in the one pass over the prompt: how likely each region is named first.
    OnePass,
}

/// In what order regions are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The surest first.
    #[default]
    None,
    /// By their left edge, then by their top: what VLX-Seek calls so, though a raster's lines lie the other way.
    Raster,
    /// The smallest first.
    AreaAsc,
    /// The largest first.
    AreaDesc,
}

/// `[aux]`: the picture as a second vision tower takes it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Aux {
    /// Width in pixels it is stretched to; unset, with the height, is the picture's own size.
    pub width: Option<u32>,
    /// Height in pixels it is stretched to.
    pub height: Option<u32>,
    /// What is subtracted from each channel, of values between 0 and 1.
    pub mean: [f32; 3],
    /// What each channel is divided by.
    pub std: [f32; 3],
}

/// `[grounding]`: how the phrases of an answer become boxes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grounding {
    /// What the language model is told: `<image>` is the picture, `{}` the query.
    pub prompt: String,
    /// The token by which the model asks that a phrase be found.
    pub mark: String,
    /// Tokens that stand around phrases: no query may contain them.
    #[serde(default)]
    pub around: Vec<String>,
    /// Most boxes of a phrase, the surest first.
    #[serde(default = "alone")]
    pub boxes: usize,
    /// Whether a box is the bounds of a mask.
    #[serde(default)]
    pub masks: bool,
}
