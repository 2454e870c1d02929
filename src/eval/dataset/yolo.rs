//! A folder with `images/` and `labels/`: for `images/a/b.jpg` the things in `labels/a/b.txt`, a line each of
//! `class cx cy width height` in fractions of the image.
//!
//! Classes are named by `data.yaml` (its `names`) or `classes.txt` (a line each), in the folder or the one above; without either they are COCO's 80, and only
//! those that occur are asked: nothing says that the others were looked for. An image without a file has no things.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use yaml_rust2::{Yaml, YamlLoader};

use super::{Dataset, DatasetError, Entry, Options, Phrase, Style, Wanted, choice, layout, missing, record, words};
use crate::{
    eval::{
        matching::{Rect, Truth},
        picture::{EXTENSIONS, Picture},
    },
    types::Size,
};

/// The folder that makes a folder such a data set.
pub(super) const LABELS: &str = "labels";
const IMAGES: &str = "images";

const YAML: [&str; 2] = ["data.yaml", "dataset.yaml"];
const CLASSES: [&str; 2] = ["classes.txt", "labels/classes.txt"];

/// How far from the image's corner, in images, a number may lie and still be taken for a fraction.
const FARTHEST: f64 = 2.0;

/// COCO's 80 classes in their usual order.
const COCO: &str = "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,\
    parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,\
    frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,\
    wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,\
    couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,\
    refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush";

/// What the classes are called, and whether all of them were looked for in every image.
struct Names {
    names: BTreeMap<usize, Arc<str>>,
    complete: bool,
}

/// One line of a label file.
struct Label {
    class: usize,
    /// Centre and size in fractions of the image.
    part: [f64; 4],
}

pub(super) fn load(root: &Path, options: &Options) -> Result<Dataset, DatasetError> {
    let names = names(root)?;
    let images = options.images.clone().unwrap_or_else(|| root.join(IMAGES));
    let start = match &options.split {
        Some(split) if !images.join(split).is_dir() => {
            let folders = fs::read_dir(&images).map_err(|source| missing(&images, source))?.filter_map(Result::ok);
            let folders: Vec<String> =
                folders.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            return Err(choice("--split", split, root, folders.into_iter()));
        }
        Some(split) => images.join(split),
        None => images.clone(),
    };
    let (mut files, mut others) = (Vec::new(), 0);
    walk(&start, &mut files, &mut others).map_err(|source| missing(&start, source))?;
    files.sort();
    let mut labelled = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&images).unwrap_or(&file);
        let labels = root.join(LABELS).join(inside).with_extension("txt");
        labelled.push((file, read(&labels, &names)?));
    }
    if !labelled.iter().any(|(_, labels)| labels.is_some()) {
        let reason = format!("no image under {} has a file of the same name under labels", start.display());
        return Err(layout(root, reason));
    }
    let used: BTreeSet<usize> = labelled.iter().filter_map(|(_, l)| l.as_ref()).flatten().map(|l| l.class).collect();
    let names_known = names.complete;
    let mut asked: BTreeMap<usize, Arc<str>> =
        names.names.into_iter().filter(|(class, _)| names.complete || used.contains(class)).collect();
    let wanted = Wanted::among(asked.values().map(AsRef::as_ref), options, root)?;
    asked.retain(|_, name| wanted.has(name));
    let (mut entries, mut unseen) = (Vec::new(), 0);
    for (file, labels) in labelled.into_iter().take(options.limit.unwrap_or(usize::MAX)) {
        let picture = Picture::measure(&file, None)?;
        let labels = labels.unwrap_or_default();
        let ask = |(class, name): (&usize, &Arc<str>)| Phrase {
            text: Arc::clone(name),
            kind: Arc::clone(name),
            truths: labels.iter().filter(|l| l.class == *class).filter_map(|l| l.truth(picture.size)).collect(),
        };
        unseen += labels.iter().filter(|l| l.truth(picture.size).is_none()).count();
        let phrases = asked.iter().map(ask).collect();
        entries.push(Entry { picture, phrases });
    }
    let assumed = usize::from(!names_known);
    let notes = [
        (assumed, format!("{}: neither data.yaml nor classes.txt; class numbers are taken for COCO's", root.display())),
        (others, format!("{}: {others} files that are neither JPEG nor PNG left out", start.display())),
        (unseen, format!("{}: {unseen} boxes that lie outside their images left out", root.join(LABELS).display())),
    ];
    let notes = notes.into_iter().filter(|(count, _)| *count > 0).map(|(_, note)| note).collect();
    Ok(Dataset { path: root.to_owned(), style: Style::Yolo, entries, notes })
}

/// Image files below `folder`, and how many others there are.
fn walk(folder: &Path, found: &mut Vec<PathBuf>, others: &mut usize) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_image = |e: &std::ffi::OsStr| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known));
        if path.is_dir() {
            walk(&path, found, others)?;
        } else if path.extension().is_some_and(is_image) {
            found.push(path);
        } else {
            *others += 1;
        }
    }
    Ok(())
}

/// The things of one label file; `None` if there is no such file.
fn read(file: &Path, names: &Names) -> Result<Option<Vec<Label>>, DatasetError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(missing(file, source)),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let label = |(i, line): (usize, &str)| {
        Label::parse(line, names).map_err(|reason| record(file, format!("line {}", i + 1), reason))
    };
    lines.map(label).collect::<Result<_, _>>().map(Some)
}

impl Label {
    fn parse(line: &str, names: &Names) -> Result<Self, String> {
        let needed = "a line is `class cx cy width height`, with fractions of the image from 0 to 1";
        let columns: Vec<&str> = line.split_whitespace().collect();
        let &[class, ref numbers @ ..] = columns.as_slice() else { return Err(needed.to_owned()) };
        let class = class.parse().map_err(|_| format!("`{class}` is no class number; {needed}"))?;
        if !names.names.contains_key(&class) {
            return Err(format!("class {class} has no name; {} are known", names.names.len()));
        }
        let numbers: Result<Vec<f64>, String> =
            numbers.iter().map(|n| n.parse().map_err(|_| format!("`{n}` is no number; {needed}"))).collect();
        let part: [f64; 4] = numbers?
            .try_into()
            .map_err(|n: Vec<f64>| format!("there are {} numbers after the class; {needed}", n.len()))?;
        let [cx, cy, width, height] = part;
        // Boxes may stick out of the image, as of somebody who walks into it, but not be given in pixels.
        if !part.iter().all(|v| v.abs() <= FARTHEST) || width <= 0.0 || height <= 0.0 {
            return Err(format!("the box {cx} {cy} {width} {height} is not in the image; {needed}"));
        }
        Ok(Self { class, part })
    }

    /// The part in the image; `None` if nothing is.
    fn truth(&self, size: Size) -> Option<Truth> {
        let [cx, cy, width, height] = self.part;
        let (w, h) = (f64::from(size.width), f64::from(size.height));
        let edges =
            |c: f64, d: f64, max: f64| (((c - d / 2.0) * max).clamp(0.0, max), ((c + d / 2.0) * max).clamp(0.0, max));
        let ((x1, x2), (y1, y2)) = (edges(cx, width, w), edges(cy, height, h));
        (x1 < x2 && y1 < y2).then(|| Truth::boxed(Rect { x: x1, y: y1, width: x2 - x1, height: y2 - y1 }))
    }
}

fn names(root: &Path) -> Result<Names, DatasetError> {
    // Exports with a folder a split, as in `valid/images`, keep the names beside those folders.
    let folders = [Some(root), root.parent()];
    let there = |names: &[&str]| {
        let paths = folders.iter().flatten().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        paths.into_iter().find(|path| path.is_file())
    };
    let (file, listed) = if let Some(file) = there(&YAML) {
        let listed = yaml_names(&file)?;
        (file, listed)
    } else if let Some(file) = there(&CLASSES) {
        let text = fs::read_to_string(&file).map_err(|source| missing(&file, source))?;
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, name)| !name.is_empty());
        let listed = lines.map(|(i, name)| (i, name.to_owned())).collect();
        (file, listed)
    } else {
        let names = COCO.split(',').map(|name| name.trim().into()).enumerate().collect();
        return Ok(Names { names, complete: false });
    };
    let mut names = BTreeMap::new();
    for (class, name) in listed {
        let words = words(&name).map_err(|reason| record(&file, format!("class {class}"), reason))?;
        names.insert(class, words);
    }
    if names.is_empty() {
        return Err(record(&file, "names", "there are none; name the classes, as in `names: [person, car]`"));
    }
    Ok(Names { names, complete: true })
}

/// `names` of a YAML file: a list, or a map from the class's number.
fn yaml_names(file: &Path) -> Result<Vec<(usize, String)>, DatasetError> {
    let text = fs::read_to_string(file).map_err(|source| missing(file, source))?;
    let expected = "YAML with `names`, a list or a map from numbers to names";
    let wrong = |reason: String| DatasetError::Syntax { path: file.to_owned(), reason, expected };
    let documents = YamlLoader::load_from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let text_of = |value: &Yaml| match value {
        Yaml::String(name) => Ok(name.clone()),
        Yaml::Integer(n) => Ok(n.to_string()),
        other => Err(wrong(format!("the name {other:?} is no text"))),
    };
    match documents.first().map(|document| &document["names"]) {
        Some(Yaml::Array(names)) => names.iter().enumerate().map(|(i, name)| Ok((i, text_of(name)?))).collect(),
        Some(Yaml::Hash(names)) => names
            .iter()
            .map(|(class, name)| {
                let number = class.as_i64().and_then(|n| usize::try_from(n).ok());
                Ok((number.ok_or_else(|| wrong(format!("{class:?} is no class number")))?, text_of(name)?))
            })
            .collect(),
        _ => Err(wrong("it has no `names`".to_owned())),
    }
}
