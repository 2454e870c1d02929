//! Data sets: which images, which phrases are asked of each, and what is there.
//!
//! [`coco`] reads COCO-style annotations, [`yolo`] folders with text labels, [`refs`] the referring-expression files
//! published with COCO images, [`phrases`] a plain list of phrases. Which of them a path is, its content tells.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    matching::Truth,
    picture::{Picture, PictureError},
};
use crate::types::{Size, query::check_text};

pub mod coco;
pub mod phrases;
pub mod refs;
pub mod yolo;

/// What is to be asked of which images.
#[derive(Debug)]
pub struct Dataset {
    /// The file or folder it came from.
    pub path: PathBuf,
    /// How it is laid out.
    pub style: Style,
    /// The images, in the order they are asked.
    pub entries: Vec<Entry>,
    /// What was left out, for people.
    pub notes: Vec<String>,
}

/// The layout of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// COCO annotations: each category is asked of each image.
    Coco,
    /// A folder with text labels: each class is asked of each image.
    Yolo,
    /// Referring expressions beside COCO annotations.
    Refs,
    /// A list of phrases.
    Phrases,
}

impl Style {
    /// Whether the same words are asked of every image.
    pub fn has_classes(self) -> bool {
        matches!(self, Self::Coco | Self::Yolo)
    }
}

/// One image and what is asked of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The image.
    pub picture: Picture,
    /// The phrases; at least one.
    pub phrases: Vec<Phrase>,
}

/// One phrase, and what it means on its image.
#[derive(Debug, Clone)]
pub struct Phrase {
    /// The words.
    pub text: Arc<str>,
    /// What phrases are told apart by in the figures: a category's name, a split, or what the data set says.
    pub kind: Arc<str>,
    /// What is there; nothing is a declared miss.
    pub truths: Vec<Truth>,
}

/// Which part of a data set, and where its other parts are.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder of the images, where it is not beside the annotations.
    pub images: Option<PathBuf>,
    /// The COCO annotations that referring expressions refer to; unset is `instances.json` beside them.
    pub instances: Option<PathBuf>,
    /// Only this split.
    pub split: Option<String>,
    /// Only these phrases; empty is all.
    pub queries: Vec<String>,
    /// Only that many images, of those that are asked something.
    pub limit: Option<usize>,
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder cannot be read.
    #[error("{}: cannot be read; {remedy}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not laid out as any data set known here.
    #[error("{}: {reason}. Known are: a COCO-style file (images, annotations, categories), a list of phrases (phrases), \
             referring expressions (ref_id, sentences), and a folder with images/ and labels/; see `groundd eval --help`",
            .path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// A file is not what its layout asks for; the reason has line and column.
    #[error("{}: {reason}; it should be {expected}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        reason: String,
        /// What would be right.
        expected: &'static str,
    },
    /// One record makes no sense.
    #[error("{}: {record}: {reason}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record, as in `annotation 17`.
        record: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// An image cannot be used.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// What was chosen is not in the data set.
    #[error("{option} {wanted}: {} has none; it has: {has}", .path.display())]
    Choice {
        /// The option, as in `--split`.
        option: &'static str,
        /// Its value.
        wanted: String,
        /// The data set.
        path: PathBuf,
        /// What could be chosen.
        has: String,
    },
}

impl DatasetError {
    /// Whether the command line is wrong, rather than the data set.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Choice { .. })
    }
}

/// Reads the data set at `path`, and the header of every image that will be asked.
pub fn load(path: &Path, options: &Options) -> Result<Dataset, DatasetError> {
    let meta = fs::metadata(path).map_err(|source| missing(path, source))?;
    let dataset = if meta.is_dir() && path.join(yolo::LABELS).is_dir() {
        yolo::load(path, options)?
    } else {
        let file = if meta.is_dir() { only_json(path)? } else { path.to_owned() };
        let bytes = fs::read(&file).map_err(|source| missing(&file, source))?;
        match style_of(&file, &bytes)? {
            Style::Refs => refs::load(&file, &bytes, options)?,
            Style::Phrases => phrases::load(&file, &bytes, options)?,
            Style::Coco | Style::Yolo => coco::load(&file, &bytes, options)?,
        }
    };
    if dataset.entries.is_empty() {
        return Err(layout(path, "it has no images"));
    }
    Ok(dataset)
}

fn missing(path: &Path, source: io::Error) -> DatasetError {
    let remedy = "name a file or folder that is there";
    DatasetError::Read { path: path.to_owned(), remedy, source }
}

fn layout(path: &Path, reason: impl Into<String>) -> DatasetError {
    DatasetError::Layout { path: path.to_owned(), reason: reason.into() }
}

fn record(path: &Path, record: impl Into<String>, reason: impl Into<String>) -> DatasetError {
    DatasetError::Record { path: path.to_owned(), record: record.into(), reason: reason.into() }
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, bytes: &'a [u8], expected: &'static str) -> Result<T, DatasetError> {
    serde_json::from_slice(bytes).map_err(|e| DatasetError::Syntax {
        path: path.to_owned(),
        reason: e.to_string(),
        expected,
    })
}

/// The only JSON file of a folder.
fn only_json(folder: &Path) -> Result<PathBuf, DatasetError> {
    let entries = fs::read_dir(folder).map_err(|source| missing(folder, source))?;
    let json = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).filter(json).collect();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (Some(_), n) => Err(layout(folder, format!("the folder has {} JSON files; name one of them", n + 1))),
        (None, _) => Err(layout(folder, "the folder has neither labels/ nor a JSON file")),
    }
}

/// What a JSON file is, by the names in it.
fn style_of(path: &Path, bytes: &[u8]) -> Result<Style, DatasetError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Keys {
        annotations: Option<IgnoredAny>,
        phrases: Option<IgnoredAny>,
        phrase: Option<IgnoredAny>,
        sentences: Option<IgnoredAny>,
    }
    let keys: Keys = match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => parse(path, bytes, "one JSON object")?,
        Some(b'[') => parse::<Vec<Keys>>(path, bytes, "a list of JSON objects")?.pop().unwrap_or_default(),
        _ => return Err(layout(path, "it is not JSON")),
    };
    match keys {
        Keys { annotations: Some(_), .. } => Ok(Style::Coco),
        Keys { phrases: Some(_), .. } | Keys { phrase: Some(_), .. } => Ok(Style::Phrases),
        Keys { sentences: Some(_), .. } => Ok(Style::Refs),
        _ => Err(layout(path, "the JSON has none of `annotations`, `phrases` and `sentences`")),
    }
}

/// Which of the phrases are asked. It has to be known before images are counted for a limit: of many phrases most images have
/// none that is wanted.
struct Wanted<'a>(&'a [String]);

impl<'a> Wanted<'a> {
    /// Those that were named, each of which must be one of `texts`; all, if none was.
    fn among<'t>(
        texts: impl IntoIterator<Item = &'t str>,
        options: &'a Options,
        path: &Path,
    ) -> Result<Self, DatasetError> {
        let texts: BTreeSet<&str> = texts.into_iter().map(str::trim).collect();
        match options.queries.iter().find(|query| !texts.iter().any(|text| is(query, text))) {
            Some(query) => Err(choice("--query", query, path, texts.iter().map(|text| format!("\"{text}\"")))),
            None => Ok(Self(&options.queries)),
        }
    }

    fn has(&self, text: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|query| is(query, text))
    }
}

/// Whether the words that were named are a phrase's: blanks around them and capitals do not matter.
fn is(query: &str, text: &str) -> bool {
    query.trim().eq_ignore_ascii_case(text.trim())
}

/// Values listed in an error; more are counted.
const LISTED: usize = 20;

fn choice(option: &'static str, wanted: &str, path: &Path, has: impl ExactSizeIterator<Item = String>) -> DatasetError {
    let count = has.len();
    let mut has: Vec<String> = has.take(LISTED).collect();
    if count > LISTED {
        has.push(format!("and {} more", count - LISTED));
    }
    let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
    DatasetError::Choice { option, wanted: wanted.to_owned(), path: path.to_owned(), has }
}

/// A category's name as words: data sets write `traffic_light` as well.
fn words(name: &str) -> Result<Arc<str>, String> {
    let text = name.replace('_', " ");
    check_text(&text).map(Into::into)
}

/// Where images may be, the likeliest first.
fn image_folder(file: &Path, options: &Options, first: &Path, more: &[PathBuf]) -> Result<PathBuf, DatasetError> {
    let beside = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let candidates: Vec<PathBuf> = match &options.images {
        Some(folder) => vec![folder.clone()],
        None => [beside.to_owned(), beside.join("images")].into_iter().chain(more.iter().cloned()).collect(),
    };
    let there = candidates.iter().find(|folder| folder.join(first).is_file());
    there.cloned().ok_or_else(|| {
        let looked: Vec<String> = candidates.iter().map(|c| c.display().to_string()).collect();
        let looked = looked.join(", ");
        let reason = format!("the image is not there; looked in {looked}. Name the folder of the images with --images");
        record(file, format!("image {}", first.display()), reason)
    })
}

/// Whether a box lies in the picture at all, for boxes that somebody may have given in other units.
fn outside(corners: [f64; 4], size: Size) -> bool {
    let [x1, y1, x2, y2] = corners;
    x1 >= f64::from(size.width) || y1 >= f64::from(size.height) || x2 <= 0.0 || y2 <= 0.0
}

#[cfg(test)]
mod tests;
