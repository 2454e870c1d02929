//! `groundd eval`, and its manual.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{
    Model,
    values::{count, one_of, query_text, score},
};
use crate::{ground::methods::zoom::ZoomConfig, types::Method};

/// The methods that can be tried: all but `auto`, which is one of the others.
const METHODS: &[Method] = Method::ALL.split_at(1).1;

/// Accuracy and cost of a model's methods on a data set of yours.
///
/// Asks every phrase of every image, prints a table, and on request writes JSON, a plot and drawn examples. Pictures are put
/// on the model's canvas as those of cameras are.
#[derive(ClapArgs)]
#[command(after_long_help = "\
Data sets, told apart by their content:

COCO-style: a JSON file with
  images       id, file_name; width and height are checked where given
  annotations  image_id, category_id, bbox [x, y, width, height]; iscrowd, area
  categories   id, name
Each category is asked of each image.

YOLO folders: images/ and labels/, with a text file an image, a line a thing:
  class cx cy width height         in fractions of the image
Classes are named by data.yaml or classes.txt and all asked; otherwise they are COCO's 80, and those that occur are asked.

Phrases of your own: a JSON list, or an object with it as `phrases`, of
  {\"image\": \"a.jpg\", \"phrase\": \"red car\", \"kind\": \"colour\",
   \"boxes\": [[x1, y1, x2, y2], ...]}
Boxes are pixels. Several are several things, none says that nothing is there. kind is free: figures are also given by kind.
\"ignored\" may list further boxes, within which an answer counts neither way, as in COCO's crowds.

RefCOCO-style: a JSON list beside the instances.json it refers to, as RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO are published:
  {\"ref_id\": 1, \"image_id\": 2, \"ann_id\": 3, \"split\": \"testA\",
   \"sentences\": [{\"sent\": \"red car\"}]}
ann_id may be a list; an empty one or -1 says that nothing is there. A pickle is made into JSON by
  python3 -c 'import json, pickle, sys; json.dump(pickle.load(sys.stdin.buffer),
  sys.stdout)' < 'refs(unc).p' > refs.json

Images, JPEG or PNG, are looked for beside the file, in images/, and where COCO keeps them; --images names another folder.

acc and IoU go by the best-scoring box that is reported where one thing is there (RefCOCO's figures are of the best one whatever its \
score: --threshold 0); F1 by all boxes at IoU 0.5 (F1+: of phrases for several things); \
miss is silence where nothing is there; AP and AP50 are COCO's. For AP, models with thresholds are asked a second time, for every \
box they could give; of words that mean one thing, as in `largest car`, that is the best one alone, so that their recall and AP say \
whether it is right. A phrase that the model cannot be asked counts as wrong; a search that ran out of passes counts by what it said, \
silence as well. An image that breaks off is left out and counted. Costs are of one image with all its phrases at once, \
after a first one to warm up; decoding and scaling are not in them.")]
pub(in crate::cli) struct Eval {
    /// A JSON file or a folder, see below
    #[arg(value_name = "DATASET")]
    pub(in crate::cli) dataset: PathBuf,
    /// Which methods; default is all that the model has
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = one_of(METHODS, Method::name))]
    pub(in crate::cli) methods: Vec<Method>,
    #[command(flatten)]
    pub(in crate::cli) model: Model,
    /// Only these phrases or categories; may be given several times
    #[arg(long = "query", value_name = "TEXT", value_parser = query_text)]
    pub(in crate::cli) queries: Vec<String>,
    /// Only this split of the data set
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) split: Option<String>,
    /// Only the first N images, of those that are asked something
    #[arg(long, value_name = "N", value_parser = count)]
    pub(in crate::cli) limit: Option<usize>,
    /// Where the images are
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) images: Option<PathBuf>,
    /// The COCO annotations that referring expressions refer to
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) instances: Option<PathBuf>,
    /// Boxes below this score, 0 to 1, are not reported; default is the model's own
    #[arg(long, value_name = "SCORE", value_parser = score)]
    pub(in crate::cli) threshold: Option<f32>,
    /// Passes that `zoom` may take for a phrase, beyond the whole image's; there is no limit of time
    #[arg(long, default_value_t = ZoomConfig::default().passes, value_name = "N")]
    pub(in crate::cli) zoom_passes: usize,
    /// `zoom` looks at every area, as it was published: no limit, and nothing spared
    #[arg(long)]
    pub(in crate::cli) zoom_exhaustive: bool,
    /// No average precision: asks once instead of twice
    #[arg(long)]
    pub(in crate::cli) no_ap: bool,
    /// Write all figures, also by kind, as JSON
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) json: Option<PathBuf>,
    /// Write a plot of accuracy against cost, PNG
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) plot: Option<PathBuf>,
    /// Draw the best and the worst answers of each method into this folder
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) examples: Option<PathBuf>,
}
