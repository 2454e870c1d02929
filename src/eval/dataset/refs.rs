//! Referring expressions beside COCO annotations, as RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO publish them.
//!
//! A list of `{"ref_id", "image_id", "ann_id", "split", "sentences": [{"sent"}]}` refers to an `instances.json`. `ann_id` is one
//! id or, as in gRefCOCO, a list; an empty list or -1 is a phrase for nothing. RefCOCO's own `refs(unc).p` is the same list as
//! a Python pickle, which only Python can read: `json.dump(pickle.load(open("refs(unc).p", "rb")), open("refs.json", "w"))`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use serde::Deserialize;

use super::{Dataset, DatasetError, Entry, Options, Phrase, Style, Wanted, choice, coco::Content, parse, record};
use crate::{eval::matching::Truth, types::query::check_text};

const EXPECTED: &str = "a list of {\"ref_id\", \"image_id\", \"ann_id\", \"split\", \"sentences\": [{\"sent\"}]}";

/// The file that references refer to, beside them.
const INSTANCES: &str = "instances.json";

/// Left out unless it is asked for: models may have been trained on it.
const TRAIN: &str = "train";

#[derive(Deserialize)]
struct Reference {
    ref_id: i64,
    image_id: i64,
    ann_id: Ids,
    split: Option<Arc<str>>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Many(Vec<i64>),
}

impl Ids {
    fn list(&self) -> impl Iterator<Item = i64> {
        let ids = match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        };
        ids.iter().copied().filter(|id| *id != -1)
    }
}

#[derive(Deserialize)]
struct Sentence {
    sent: String,
}

pub(super) fn load(file: &Path, bytes: &[u8], options: &Options) -> Result<Dataset, DatasetError> {
    let references: Vec<Reference> = parse(file, bytes, EXPECTED)?;
    let instances = options.instances.clone().unwrap_or_else(|| file.with_file_name(INSTANCES));
    let content = fs::read(&instances).map_err(|source| DatasetError::Read {
        path: instances.clone(),
        remedy: "referring expressions need the COCO annotations they refer to: name them with --instances",
        source,
    })?;
    let content = Content::read(&instances, &content, options)?;
    let things: HashMap<i64, (i64, Truth)> =
        content.things.iter().filter_map(|(id, thing)| Some(((*id)?, (thing.image, thing.truth)))).collect();
    let (of_split, mut notes) = split(&references, options, file)?;
    let references: Vec<&Reference> = references.iter().filter(|r| of_split(r)).collect();
    let texts = references.iter().flat_map(|r| r.sentences.iter().map(|one| one.sent.as_str()));
    let wanted = Wanted::among(texts, options, file)?;
    let mut phrases: BTreeMap<i64, Vec<Phrase>> = BTreeMap::new();
    for reference in references {
        let wrong = |reason: String| record(file, format!("ref_id {}", reference.ref_id), reason);
        let mut truths = Vec::new();
        for id in reference.ann_id.list() {
            match things.get(&id) {
                Some((image, truth)) if *image == reference.image_id => truths.push(*truth),
                Some((image, _)) => {
                    let asked = reference.image_id;
                    return Err(wrong(format!("ann_id {id} is on image {image}, not on image_id {asked}")));
                }
                None => return Err(wrong(format!("ann_id {id} is not in {}", instances.display()))),
            }
        }
        let kind = reference.split.clone().unwrap_or_else(|| "phrase".into());
        let phrases = phrases.entry(reference.image_id).or_default();
        for Sentence { sent } in reference.sentences.iter().filter(|one| wanted.has(&one.sent)) {
            let text = check_text(sent).map_err(wrong)?.into();
            phrases.push(Phrase { text, kind: Arc::clone(&kind), truths: truths.clone() });
        }
    }
    let mut entries = Vec::new();
    let asked = phrases.into_iter().filter(|(_, phrases)| !phrases.is_empty());
    for (id, phrases) in asked.take(options.limit.unwrap_or(usize::MAX)) {
        let unknown = || record(file, format!("image_id {id}"), format!("is not in {}", instances.display()));
        entries.push(Entry { picture: content.picture(id)?.ok_or_else(unknown)?, phrases });
    }
    notes.extend(content.notes());
    Ok(Dataset { path: file.to_owned(), style: Style::Refs, entries, notes })
}

type OfSplit<'a> = Box<dyn Fn(&Reference) -> bool + 'a>;

/// Which references are asked, and what there is to say about the others.
fn split<'a>(
    references: &[Reference],
    options: &'a Options,
    file: &Path,
) -> Result<(OfSplit<'a>, Vec<String>), DatasetError> {
    let splits: BTreeSet<&str> = references.iter().filter_map(|r| r.split.as_deref()).collect();
    if let Some(split) = &options.split {
        if !splits.contains(split.as_str()) {
            return Err(choice("--split", split, file, splits.iter().map(ToString::to_string)));
        }
        return Ok((Box::new(move |r| r.split.as_deref() == Some(split)), Vec::new()));
    }
    if splits.len() > 1 && splits.contains(TRAIN) {
        let note = format!("{}: the split `{TRAIN}` is left out; --split {TRAIN} asks it", file.display());
        return Ok((Box::new(|r| r.split.as_deref() != Some(TRAIN)), vec![note]));
    }
    Ok((Box::new(|_| true), Vec::new()))
}
