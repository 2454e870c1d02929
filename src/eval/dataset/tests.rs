//! Every layout, as somebody might have it, and what is said of files that nobody meant.

use std::fs;

use image::RgbImage;
use tempfile::TempDir;

use super::*;
use crate::eval::matching::Rect;

/// A folder with grey images, `name: (width, height)`, and text files.
fn folder(images: &[(&str, (u32, u32))], files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for (name, (width, height)) in images {
        RgbImage::from_pixel(*width, *height, image::Rgb([90, 90, 90])).save(place(name)).unwrap();
    }
    for (name, text) in files {
        fs::write(place(name), text).unwrap();
    }
    folder
}

const COCO: &str = r#"{"info": {}, "images": [
    {"id": 9, "file_name": "b.png", "width": 40, "height": 30}, {"id": 7, "file_name": "a.png", "width": 20, "height": 10}],
  "annotations": [
    {"id": 1, "image_id": 9, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0, "segmentation": [[1]]},
    {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 40, 30], "area": 900, "iscrowd": 1},
    {"id": 4, "image_id": 9, "category_id": 3, "bbox": [5, 5, 0, 3]}],
  "categories": [{"id": 3, "name": "traffic_light"}, {"id": 1, "name": "dog"}]}"#;

fn coco() -> TempDir {
    folder(&[("a.png", (20, 10)), ("images/other.png", (1, 1)), ("b.png", (40, 30))], &[("some.json", COCO)])
}

fn texts(entry: &Entry) -> Vec<(&str, &str, usize)> {
    entry.phrases.iter().map(|p| (&*p.text, &*p.kind, p.truths.len())).collect()
}

fn fails(path: &Path, options: &Options, words: &[&str]) {
    let error = load(path, options).expect_err("it should be refused");
    let mut said = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        said += &source.to_string();
    }
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not all in: {said}");
}

#[test]
fn coco_asks_every_category_of_every_image() {
    let folder = coco();
    let dataset = load(&folder.path().join("some.json"), &Options::default()).unwrap();
    assert_eq!(dataset.style, Style::Coco);
    let names: Vec<_> = dataset.entries.iter().map(|e| e.picture.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["a.png", "b.png"], "in the order of their ids");
    assert_eq!(texts(&dataset.entries[0]), [("dog", "dog", 0), ("traffic light", "traffic light", 0)]);
    let truths = &dataset.entries[1].phrases[1].truths;
    let rect = Rect { x: 1.0, y: 2.0, width: 10.0, height: 20.0 };
    assert_eq!(truths[0], Truth { rect, area: 150.5, crowd: false });
    assert!(truths[1].crowd && truths.len() == 3);
    assert!(truths[2].rect.area() < 1e-9, "counts as missed, as pycocotools has it");
    assert!(dataset.notes[0].contains("1 boxes without"), "{:?}", dataset.notes);
    // The folder has one JSON file, so it will do.
    assert_eq!(load(folder.path(), &Options::default()).unwrap().entries.len(), 2);
}

#[test]
fn coco_finds_its_images_where_coco_keeps_them() {
    let text = COCO.replace("b.png", "a.png").replace("\"width\": 40, \"height\": 30", "\"width\": 20, \"height\": 10");
    let text = text.replace("[1, 2, 10, 20]", "[1, 2, 10, 5]").replace("[0, 0, 40, 30]", "[0, 0, 20, 10]");
    for place in ["val2017/a.png", "images/val2017/a.png", "images/a.png", "annotations/images/a.png"] {
        let folder = folder(&[(place, (20, 10))], &[("annotations/instances_val2017.json", &text)]);
        let file = folder.path().join("annotations/instances_val2017.json");
        assert_eq!(load(&file, &Options::default()).unwrap().entries.len(), 2, "{place}");
    }
    let folder = folder(&[("elsewhere/a.png", (20, 10))], &[("x.json", &text)]);
    fails(folder.path(), &Options::default(), &["x.json", "a.png", "looked in", "--images"]);
    let images = Some(folder.path().join("elsewhere"));
    assert!(load(folder.path(), &Options { images, ..Options::default() }).is_ok());
}

#[test]
fn a_part_can_be_chosen() {
    let folder = coco();
    let queries = vec!["Dog ".to_owned()];
    let dataset = load(folder.path(), &Options { queries, limit: Some(1), ..Options::default() }).unwrap();
    assert_eq!(dataset.entries.len(), 1);
    assert_eq!(texts(&dataset.entries[0]), [("dog", "dog", 0)]);
    let queries = vec!["unicorn".to_owned()];
    fails(folder.path(), &Options { queries, ..Options::default() }, &["--query", "unicorn", "\"traffic light\""]);
    let split = Some("val".to_owned());
    fails(folder.path(), &Options { split, ..Options::default() }, &["--split", "val", "nothing"]);
}

#[test]
fn coco_files_that_nobody_meant() {
    let cases: [(&str, &str, &[&str]); 9] = [
        (
            "\"image_id\": 9, \"category_id\": 3, \"bbox\": [1",
            "\"image_id\": 8, \"category_id\": 3, \"bbox\": [1",
            &["annotation 1", "image_id 8"],
        ),
        ("\"category_id\": 3, \"bbox\": [1", "\"category_id\": 5, \"bbox\": [1", &["annotation 1", "category_id 5"]),
        ("[1, 2, 10, 20]", "[1, 2, 10]", &["annotation 1", "3 numbers", "width"]),
        ("[1, 2, 10, 20]", "[1, 2, -10, 20]", &["annotation 1", "no box"]),
        ("[1, 2, 10, 20]", "[100, 2, 10, 20]", &["annotation 1", "outside", "40x30"]),
        ("\"id\": 7", "\"id\": 9", &["image 9", "two"]),
        ("\"dog\"", "\" \"", &["category 1", "empty"]),
        ("\"width\": 20", "\"width\": 21", &["a.png", "20x10", "21x10"]),
        ("\"categories\"", "\"kategories\"", &["some.json", "line 7", "`categories`", "COCO-style"]),
    ];
    for (from, to, words) in cases {
        assert!(COCO.contains(from), "{from}");
        let folder = coco();
        fs::write(folder.path().join("some.json"), COCO.replacen(from, to, 1)).unwrap();
        fails(folder.path(), &Options::default(), words);
    }
}

#[test]
fn yolo_labels_are_fractions_and_unnamed_classes_are_those_of_coco() {
    let files = [
        ("labels/a.txt", "0 0.5 0.5 0.5 0.2\n\n0 1.3 0.5 0.2 0.2"),
        ("labels/n/b.txt", "2 1.0 0.5 0.5 1.0\n2 0.1 0.1 0.1 0.1"),
    ];
    let images = [("images/a.png", (40, 20)), ("images/n/b.JPG.png", (9, 9)), ("images/n/b.png", (40, 20))];
    let folder = folder(&images, &files);
    fs::write(folder.path().join("images/readme.md"), "x").unwrap();
    let dataset = load(folder.path(), &Options::default()).unwrap();
    assert_eq!(dataset.style, Style::Yolo);
    let all: Vec<_> = dataset.entries.iter().map(texts).collect();
    let (none, one, two) = (("car", "car", 0), ("person", "person", 1), ("car", "car", 2));
    assert_eq!(all, [vec![one, none], vec![("person", "person", 0), none], vec![("person", "person", 0), two]]);
    let clipped = Rect { x: 30.0, y: 0.0, width: 10.0, height: 20.0 };
    assert_eq!(dataset.entries[2].phrases[1].truths[0].rect, clipped, "to the picture");
    let notes = dataset.notes.join("\n");
    assert!(notes.contains("1 files") && notes.contains("1 boxes that lie outside"), "{notes}");
    let split = |name: &str| Options { split: Some(name.to_owned()), ..Options::default() };
    assert_eq!(load(folder.path(), &split("n")).unwrap().entries.len(), 2);
    fails(folder.path(), &split("val"), &["--split", "val", "n"]);
}

#[test]
fn yolo_classes_can_be_named_and_then_all_are_asked() {
    let names = [
        ("data.yaml", "train: images\nnames:\n  0: red_car\n  1: van\n"),
        ("data.yaml", "names: [red_car, van]"),
        ("dataset.yaml", "names: ['red_car', 'van']"),
        ("classes.txt", "red_car\nvan\n"),
        ("labels/classes.txt", "red_car\n van \n"),
    ];
    for (file, text) in names {
        let folder = folder(&[("images/a.png", (40, 20))], &[(file, text), ("labels/a.txt", "0 0.5 0.5 0.5 0.2")]);
        let dataset = load(folder.path(), &Options::default()).unwrap();
        assert_eq!(texts(&dataset.entries[0]), [("red car", "red car", 1), ("van", "van", 0)], "{file}");
    }
}

#[test]
fn yolo_names_may_lie_beside_the_folders_of_splits_and_are_said_to_be_assumed_where_there_are_none() {
    let labels = ("valid/labels/a.txt", "0 0.5 0.5 0.5 0.2");
    let named = folder(&[("valid/images/a.png", (40, 20))], &[("data.yaml", "names: [helmet]"), labels]);
    let dataset = load(&named.path().join("valid"), &Options::default()).unwrap();
    assert_eq!(texts(&dataset.entries[0]), [("helmet", "helmet", 1)]);
    assert!(dataset.notes.is_empty(), "{:?}", dataset.notes);
    let unnamed = folder(&[("valid/images/a.png", (40, 20))], &[labels]);
    let dataset = load(&unnamed.path().join("valid"), &Options::default()).unwrap();
    assert!(dataset.notes[0].contains("COCO"), "{:?}", dataset.notes);
}

#[test]
fn yolo_folders_that_nobody_meant() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("labels/a.txt", "0 0.5 0.5 0.5", &["a.txt", "line 1", "3 numbers"]),
        ("labels/a.txt", "\n0 0.5 0.5 0.5 0.5 0.9", &["a.txt", "line 2", "5 numbers"]),
        ("labels/a.txt", "0 20 20 5 5", &["a.txt", "line 1", "not in the image"]),
        ("labels/a.txt", "person 0.5 0.5 0.5 0.5", &["a.txt", "`person`", "class number"]),
        ("labels/a.txt", "80 0.5 0.5 0.5 0.5", &["a.txt", "class 80", "80 are known"]),
        ("labels/b.txt", "0 0.5 0.5 0.5 0.5", &["images", "same name", "labels"]),
        ("data.yaml", "names: 7", &["data.yaml", "`names`"]),
    ];
    for (file, text, words) in cases {
        let folder = folder(&[("images/a.png", (40, 20))], &[("labels/c.txt", ""), (file, text)]);
        fails(folder.path(), &Options::default(), words);
    }
}

const REFS: &str = r#"[
    {"ref_id": 1, "image_id": 9, "ann_id": 1, "split": "testA", "sentences": [{"sent": "left light", "tokens": []}, {"sent": "it"}]},
    {"ref_id": 2, "image_id": 9, "ann_id": [1, 2], "split": "testB", "sentences": [{"sent": "both"}]},
    {"ref_id": 3, "image_id": 7, "ann_id": [-1], "split": "testB", "no_target": true, "sentences": [{"sent": "a zebra"}]},
    {"ref_id": 4, "image_id": 9, "ann_id": 2, "split": "train", "sentences": [{"sent": "learnt"}]}]"#;

#[test]
fn references_are_asked_by_split_and_may_be_for_nothing() {
    let folder = coco();
    fs::rename(folder.path().join("some.json"), folder.path().join("instances.json")).unwrap();
    let file = folder.path().join("refs.json");
    fs::write(&file, REFS).unwrap();
    let dataset = load(&file, &Options::default()).unwrap();
    assert_eq!(dataset.style, Style::Refs);
    assert_eq!(texts(&dataset.entries[0]), [("a zebra", "testB", 0)]);
    assert_eq!(texts(&dataset.entries[1]), [("left light", "testA", 1), ("it", "testA", 1), ("both", "testB", 2)]);
    assert!(dataset.notes[0].contains("`train` is left out"), "{:?}", dataset.notes);
    let train = Options { split: Some("train".to_owned()), ..Options::default() };
    assert_eq!(texts(&load(&file, &train).unwrap().entries[0]), [("learnt", "train", 1)]);
    // The first image has it not, and does not count.
    let both = Options { queries: vec!["both".to_owned()], limit: Some(1), ..Options::default() };
    let dataset = load(&file, &both).unwrap();
    assert_eq!((dataset.entries.len(), texts(&dataset.entries[0])), (1, vec![("both", "testB", 2)]));
    let learnt = Options { queries: vec!["learnt".to_owned()], ..Options::default() };
    fails(&file, &learnt, &["--query", "learnt", "\"a zebra\", \"both\""]);
    fails(&file, &Options { split: Some("val".to_owned()), ..Options::default() }, &["--split", "val", "testA, testB"]);
    fails(folder.path(), &Options::default(), &["2 JSON files"]);
    for (from, to, words) in [
        ("\"ann_id\": 1,", "\"ann_id\": 77,", ["ref_id 1", "ann_id 77"]),
        ("\"image_id\": 9, \"ann_id\": 1,", "\"image_id\": 7, \"ann_id\": 1,", ["ref_id 1", "on image 9"]),
        ("\"it\"", "\"\"", ["ref_id 1", "empty"]),
    ] {
        fs::write(&file, REFS.replacen(from, to, 1)).unwrap();
        fails(&file, &Options::default(), &words);
    }
    fs::write(&file, REFS).unwrap();
    fs::remove_file(folder.path().join("instances.json")).unwrap();
    fails(&file, &Options::default(), &["instances.json", "--instances"]);
}

const PHRASES: &str = r#"{"phrases": [
    {"image": "b.png", "phrase": "red car", "boxes": [[1, 2, 11, 22]], "kind": "colour"},
    {"image": "a.png", "phrase": "cars", "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "note": "free"},
    {"image": "b.png", "phrase": "dragon", "boxes": []}]}"#;

#[test]
fn a_list_of_phrases_is_asked_image_by_image() {
    let folder = coco();
    let file = folder.path().join("mine.json");
    for text in
        [PHRASES.to_owned(), PHRASES.replace("{\"phrases\": ", "").replace("]}]}", "]}]").replace("[]}]}", "[]}]")]
    {
        fs::write(&file, text).unwrap();
        let dataset = load(&file, &Options::default()).unwrap();
        assert_eq!(dataset.style, Style::Phrases);
        assert_eq!(texts(&dataset.entries[0]), [("red car", "colour", 1), ("dragon", "phrase", 0)]);
        assert_eq!(texts(&dataset.entries[1]), [("cars", "phrase", 2)]);
        let rect = Rect { x: 1.0, y: 2.0, width: 10.0, height: 20.0 };
        assert_eq!(dataset.entries[0].phrases[0].truths[0].rect, rect);
    }
    let limited = load(&file, &Options { limit: Some(1), ..Options::default() }).unwrap();
    assert_eq!(texts(&limited.entries[0]).len(), 2, "a limit is one of images, not of phrases");
    // Only images that are asked what was named count.
    let queries = vec!["Cars".to_owned()];
    let chosen = load(&file, &Options { queries, limit: Some(1), ..Options::default() }).unwrap();
    assert_eq!((chosen.entries.len(), texts(&chosen.entries[0])), (1, vec![("cars", "phrase", 2)]));
    let queries = vec!["unicorn".to_owned()];
    let unicorn = Options { queries, limit: Some(1), ..Options::default() };
    fails(&file, &unicorn, &["--query", "unicorn", "\"cars\", \"dragon\", \"red car\""]);
}

#[test]
fn what_nobody_knows_to_be_meant_counts_neither_way() {
    let folder = coco();
    let file = folder.path().join("mine.json");
    let ignored = "\"boxes\": [[1, 2, 11, 22]], \"ignored\": [[20, 2, 30, 22]]";
    assert!(PHRASES.contains("\"boxes\": [[1, 2, 11, 22]]"));
    fs::write(&file, PHRASES.replacen("\"boxes\": [[1, 2, 11, 22]]", ignored, 1)).unwrap();
    let dataset = load(&file, &Options::default()).unwrap();
    let truths = &dataset.entries[0].phrases[0].truths;
    let crowds: Vec<_> = truths.iter().map(|truth| (truth.rect.x, truth.crowd)).collect();
    assert_eq!(crowds, [(1.0, false), (20.0, true)]);
}

#[test]
fn phrases_that_nobody_meant() {
    let cases: [(&str, &str, &[&str]); 8] = [
        ("\"boxes\": [[1, 2, 11, 22]]", "\"boxes\": [], \"ignored\": [[1, 2]]", &["phrases[0]", "2 numbers"]),
        ("[1, 2, 11, 22]", "[1, 2, 11]", &["phrases[0]", "3 numbers"]),
        ("[1, 2, 11, 22]", "[11, 2, 1, 22]", &["phrases[0]", "x1 < x2"]),
        ("[1, 2, 11, 22]", "[100, 2, 110, 22]", &["phrases[0]", "outside", "40x30"]),
        ("\"red car\"", "\"\\u0000\"", &["phrases[0]", "control character"]),
        ("\"boxes\": []", "\"boxs\": []", &["line 4", "`boxes`", "[x1, y1, x2, y2]"]),
        ("a.png", "c.png", &["c.png", "image"]),
        ("{\"phrases\"", "{\"sayings\"", &["none of", "see `groundd eval --help`"]),
    ];
    for (from, to, words) in cases {
        assert!(PHRASES.contains(from), "{from}");
        let folder = coco();
        let file = folder.path().join("mine.json");
        fs::write(&file, PHRASES.replacen(from, to, 1)).unwrap();
        fails(&file, &Options::default(), words);
    }
}

#[test]
fn what_is_no_data_set_at_all() {
    let folder = folder(&[], &[("text.json", "hello"), ("half.json", "{\"images\": ["), ("empty.json", "[]")]);
    let at = |name: &str| folder.path().join(name);
    fails(&at("no-such.json"), &Options::default(), &["no-such.json", "No such file"]);
    fails(&at("text.json"), &Options::default(), &["text.json", "not JSON", "COCO-style"]);
    fails(&at("half.json"), &Options::default(), &["half.json", "line 1", "column"]);
    fails(&at("empty.json"), &Options::default(), &["empty.json", "none of"]);
    let bare = tempfile::tempdir().unwrap();
    fails(bare.path(), &Options::default(), &["labels/", "JSON"]);
}
