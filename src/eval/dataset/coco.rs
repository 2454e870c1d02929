//! COCO-style annotations: `images`, `annotations` with `bbox` as x, y, width, height, and `categories`.
//!
//! The format is that of <https://cocodataset.org/#format-data>. Each category's name is asked of each image.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    Dataset, DatasetError, Entry, Options, Phrase, Style, Wanted, choice, image_folder, outside, parse, record, words,
};
use crate::{
    eval::{
        matching::{Rect, Truth},
        picture::Picture,
    },
    types::Size,
};

const EXPECTED: &str =
    "COCO-style: images (id, file_name), annotations (id, image_id, category_id, bbox) and categories (id, name)";

#[derive(Deserialize)]
struct File {
    images: Vec<ImageRecord>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct ImageRecord {
    id: i64,
    file_name: PathBuf,
    width: Option<u32>,
    height: Option<u32>,
}

#[derive(Deserialize)]
struct Annotation {
    id: Option<i64>,
    image_id: i64,
    category_id: i64,
    bbox: Vec<f64>,
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

/// One annotated thing.
pub(super) struct Thing {
    pub(super) image: i64,
    category: i64,
    pub(super) truth: Truth,
}

/// The checked content of a file, in the order of ids.
pub(super) struct Content {
    file: PathBuf,
    folder: PathBuf,
    images: BTreeMap<i64, ImageRecord>,
    categories: BTreeMap<i64, Arc<str>>,
    /// By annotation id where there is one, in the file's order.
    pub(super) things: Vec<(Option<i64>, Thing)>,
    /// Boxes without an area, which no answer could match.
    empty: usize,
}

impl Content {
    pub(super) fn read(file: &Path, bytes: &[u8], options: &Options) -> Result<Self, DatasetError> {
        let parsed: File = parse(file, bytes, EXPECTED)?;
        let mut images = BTreeMap::new();
        for image in parsed.images {
            let id = image.id;
            if images.insert(id, image).is_some() {
                return Err(record(file, format!("image {id}"), "there are two of that id; give each its own"));
            }
        }
        let Some(first) = images.values().next() else {
            return Err(record(file, "images", "the list is empty; there is nothing to ask"));
        };
        let folder = image_folder(file, options, &first.file_name, &customary(file))?;
        let mut categories = BTreeMap::new();
        for Category { id, name } in parsed.categories {
            let words = words(&name).map_err(|reason| record(file, format!("category {id}"), reason))?;
            if categories.insert(id, words).is_some() {
                return Err(record(file, format!("category {id}"), "there are two of that id; give each its own"));
            }
        }
        let mut content = Self { file: file.to_owned(), folder, images, categories, things: Vec::new(), empty: 0 };
        for (i, annotation) in parsed.annotations.iter().enumerate() {
            let name = annotation.id.map_or_else(|| format!("annotations[{i}]"), |id| format!("annotation {id}"));
            let thing = content.thing(annotation).map_err(|reason| record(file, name, reason))?;
            content.empty += usize::from(thing.truth.rect.area() == 0.0);
            content.things.push((annotation.id, thing));
        }
        Ok(content)
    }

    fn thing(&self, annotation: &Annotation) -> Result<Thing, String> {
        let Annotation { image_id, category_id, bbox, area, iscrowd, .. } = annotation;
        let image = self.images.get(image_id).ok_or_else(|| format!("image_id {image_id} is not among the images"))?;
        if !self.categories.contains_key(category_id) {
            return Err(format!("category_id {category_id} is not among the categories"));
        }
        let &[x, y, width, height] = bbox.as_slice() else {
            return Err(format!("bbox has {} numbers; x, y, width and height are needed", bbox.len()));
        };
        if !bbox.iter().all(|v| v.is_finite()) || width < 0.0 || height < 0.0 {
            return Err(format!("bbox {bbox:?} is no box; x, y, width and height in pixels are needed"));
        }
        let rect = Rect { x, y, width, height };
        if let (Some(w), Some(h)) = (image.width, image.height)
            && rect.area() > 0.0
            && outside(rect.corners(), Size::new(w, h))
        {
            let reason = format!("bbox {bbox:?} is outside its image of {w}x{h}; pixels of that image are needed");
            return Err(reason);
        }
        let area = area.filter(|a| a.is_finite() && *a >= 0.0).unwrap_or_else(|| rect.area());
        let truth = Truth { rect, area, crowd: *iscrowd != 0 };
        Ok(Thing { image: *image_id, category: *category_id, truth })
    }

    /// The header of an image, if it is one of this file.
    pub(super) fn picture(&self, id: i64) -> Result<Option<Picture>, DatasetError> {
        let Some(image) = self.images.get(&id) else { return Ok(None) };
        let declared = image.width.zip(image.height).map(|(w, h)| Size::new(w, h));
        Ok(Some(Picture::measure(&self.folder.join(&image.file_name), declared)?))
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let note = format!(
            "{}: {} boxes without width or height can never be found; they count as missed",
            self.file.display(),
            self.empty
        );
        if self.empty > 0 { vec![note] } else { Vec::new() }
    }
}

/// Where COCO itself keeps the images of `annotations/instances_val2017.json`.
fn customary(file: &Path) -> Vec<PathBuf> {
    let Some(parent) = file.parent().and_then(Path::parent) else { return Vec::new() };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let split = stem.rsplit('_').next().unwrap_or_default();
    [format!("images/{split}"), split.to_owned(), "images".to_owned()].iter().map(|dir| parent.join(dir)).collect()
}

pub(super) fn load(file: &Path, bytes: &[u8], options: &Options) -> Result<Dataset, DatasetError> {
    if let Some(split) = &options.split {
        return Err(choice("--split", split, file, std::iter::empty()));
    }
    let content = Content::read(file, bytes, options)?;
    if content.categories.is_empty() {
        return Err(record(file, "categories", "the list is empty; their names are what is asked"));
    }
    let mut truths: HashMap<(i64, Arc<str>), Vec<Truth>> = HashMap::new();
    for (_, thing) in &content.things {
        // Categories of the same name are one question.
        if let Some(name) = content.categories.get(&thing.category) {
            truths.entry((thing.image, Arc::clone(name))).or_default().push(thing.truth);
        }
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    for name in content.categories.values() {
        if !names.contains(name) {
            names.push(Arc::clone(name));
        }
    }
    let wanted = Wanted::among(names.iter().map(AsRef::as_ref), options, file)?;
    names.retain(|name| wanted.has(name));
    let mut entries = Vec::new();
    for id in content.images.keys().take(options.limit.unwrap_or(usize::MAX)) {
        let Some(picture) = content.picture(*id)? else { continue };
        let ask = |name: &Arc<str>| Phrase {
            text: Arc::clone(name),
            kind: Arc::clone(name),
            truths: truths.remove(&(*id, Arc::clone(name))).unwrap_or_default(),
        };
        entries.push(Entry { picture, phrases: names.iter().map(ask).collect() });
    }
    let notes = content.notes();
    Ok(Dataset { path: file.to_owned(), style: Style::Coco, entries, notes })
}
