//! A list of phrases: the layout for one's own data.
//!
//! `{"phrases": [{"image": "a.jpg", "phrase": "red car", "boxes": [[x1, y1, x2, y2]], "kind": "colour"}]}`, or the list alone.
//! Boxes are pixels, x right, y down, as in groundd's messages; an empty list says that nothing is there. `kind` is free. `ignored`
//! are further boxes, within which an answer counts neither way: what nobody knows to be meant or not, as COCO's crowds.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    Dataset, DatasetError, Entry, Options, Phrase, Style, Wanted, choice, image_folder, outside, parse, record,
};
use crate::{
    eval::{
        matching::{Rect, Truth},
        picture::Picture,
    },
    types::{Size, query::check_text},
};

const EXPECTED: &str =
    "{\"phrases\": [{\"image\": file, \"phrase\": text, \"boxes\": [[x1, y1, x2, y2], …], \"kind\": text}]}";

#[derive(Deserialize)]
struct Phrases {
    phrases: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    image: PathBuf,
    phrase: String,
    /// Required, so that a mistyped name is not taken for "nothing is there".
    boxes: Vec<Vec<f64>>,
    #[serde(default)]
    ignored: Vec<Vec<f64>>,
    kind: Option<String>,
}

pub(super) fn load(file: &Path, bytes: &[u8], options: &Options) -> Result<Dataset, DatasetError> {
    if let Some(split) = &options.split {
        return Err(choice("--split", split, file, std::iter::empty()));
    }
    let list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let records: Vec<Record> =
        if list { parse(file, bytes, EXPECTED)? } else { parse::<Phrases>(file, bytes, EXPECTED)?.phrases };
    let Some(first) = records.first() else {
        return Err(record(file, "phrases", "the list is empty; there is nothing to ask"));
    };
    let wanted = Wanted::among(records.iter().map(|one| one.phrase.as_str()), options, file)?;
    let folder = image_folder(file, options, &first.image, &[])?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: HashMap<PathBuf, usize> = HashMap::new();
    for (i, one) in records.iter().enumerate().filter(|(_, one)| wanted.has(&one.phrase)) {
        let wrong = |reason| record(file, format!("phrases[{i}]"), reason);
        let place = match places.get(&one.image) {
            Some(place) => *place,
            None if entries.len() == options.limit.unwrap_or(usize::MAX) => continue,
            None => {
                let picture = Picture::measure(&folder.join(&one.image), None)?;
                entries.push(Entry { picture, phrases: Vec::new() });
                places.insert(one.image.clone(), entries.len() - 1);
                entries.len() - 1
            }
        };
        let entry = &mut entries[place];
        let text = check_text(&one.phrase).map_err(wrong)?.into();
        let meant = one.boxes.iter().map(|corners| (corners, false));
        let truths = meant
            .chain(one.ignored.iter().map(|corners| (corners, true)))
            .map(|(corners, crowd)| Ok(Truth { crowd, ..Truth::boxed(rect(corners, entry.picture.size)?) }));
        let truths = truths.collect::<Result<_, _>>().map_err(wrong)?;
        let kind: Arc<str> = one.kind.as_deref().unwrap_or("phrase").into();
        entry.phrases.push(Phrase { text, kind, truths });
    }
    Ok(Dataset { path: file.to_owned(), style: Style::Phrases, entries, notes: Vec::new() })
}

fn rect(corners: &[f64], size: Size) -> Result<Rect, String> {
    let &[x1, y1, x2, y2] = corners else {
        return Err(format!("the box {corners:?} has {} numbers; x1, y1, x2 and y2 are needed", corners.len()));
    };
    if !corners.iter().all(|v| v.is_finite()) || x1 >= x2 || y1 >= y2 {
        return Err(format!("the box {corners:?} is empty; x1, y1, x2 and y2 with x1 < x2 and y1 < y2 are needed"));
    }
    if outside([x1, y1, x2, y2], size) {
        let Size { width, height } = size;
        return Err(format!("the box {corners:?} is outside its image of {width}x{height}; pixels of it are needed"));
    }
    Ok(Rect { x: x1, y: y1, width: x2 - x1, height: y2 - y1 })
}
