//! Models that score boxes by words: detectors with classes of their own, on tiny graphs with their references' answers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "measured values are worth seeing")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

mod offering;
mod reading;
mod regional;

use groundd::types::{Answer, Job, Ledger, Method, Query, QueryId, Rgb, ScoreKind, Size, Status, Worth};
use serde::Deserialize;

use crate::support::{
    ground::{batch, edit_manifest, load, load_error, replace_file},
    h264,
    process::{finish, groundd},
    vlm::{canvas_frame, full_frame},
    worst,
};

/// Detectors with classes of their own.
const CLOSED: [&str; 10] = [
    "yolox",
    "yolox-rect",
    "nanodet",
    "nanodet-plus",
    "picodet",
    "fastestdet",
    "rt-detr",
    "d-fine",
    "rf-detr",
    "d-fine-deployed",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/heads").join(name)
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn picture(name: &str) -> Rgb {
    let image = image::open(folder(&format!("{name}.png"))).unwrap().to_rgb8();
    let size = Size::new(image.width(), image.height());
    Rgb::new(size, image.into_raw()).unwrap()
}

fn query(text: &str, method: Method, threshold: Option<f32>) -> Arc<Query> {
    let id = QueryId::new("q").unwrap();
    Arc::new(Query { id, rev: 1, text: text.to_owned(), cameras: None, method, threshold, worth: Worth::default() })
}

#[derive(Deserialize)]
struct Expected {
    picture: String,
    text: String,
    /// Corners in pixels of the picture, and the score.
    boxes: Vec<[f32; 5]>,
}

fn expected(name: &str) -> Vec<Expected> {
    serde_json::from_slice(&std::fs::read(folder(name).join("expected.json")).unwrap()).unwrap()
}

/// Whether two answers are the same boxes; says by how many pixels and how much of a score they differ.
fn differ(answer: &Answer, expected: &[[f32; 5]]) -> Result<(f32, f32), String> {
    assert_eq!(answer.status, Status::Ok);
    let got: Vec<[f32; 5]> = answer
        .matches
        .iter()
        .map(|m| {
            let [x1, y1, x2, y2] = m.bbox.corners();
            [x1, y1, x2, y2, m.score]
        })
        .collect();
    apart(&got, expected)
}

/// Whether boxes with scores are the same; says by how many pixels and how much of a score they differ.
fn apart(got: &[[f32; 5]], expected: &[[f32; 5]]) -> Result<(f32, f32), String> {
    if got.len() != expected.len() {
        return Err(format!("{} boxes instead of {}: {got:?} instead of {expected:?}", got.len(), expected.len()));
    }
    let (mut far, mut off): (f32, f32) = (0.0, 0.0);
    let mut left = expected.to_vec();
    for one in got {
        // Boxes that are cut off at the picture's edges are often equal: their scores tell them apart.
        let distance = |a: &[f32; 5]| worst(&a[..4], &one[..4]);
        let unlike = |at: &usize| distance(&left[*at]) + 100.0 * (left[*at][4] - one[4]).abs();
        let at = (0..left.len()).min_by(|a, b| unlike(a).total_cmp(&unlike(b))).unwrap();
        far = far.max(distance(&left[at]));
        off = off.max(worst(&left.swap_remove(at)[4..], &one[4..]));
    }
    Ok((far, off))
}

#[test]
fn detectors_find_what_their_reference_finds() {
    let ledger = Arc::new(Ledger::default());
    for name in CLOSED {
        let mut grounder = load(&folder(name));
        assert_eq!(grounder.describe().methods, [Method::Detector], "{name}");
        let mut by_picture: HashMap<String, Vec<Expected>> = HashMap::new();
        for one in expected(name) {
            by_picture.entry(one.picture.clone()).or_default().push(one);
        }
        assert!(by_picture.len() >= 2);
        let (mut far, mut off, mut boxes) = (0.0f32, 0.0f32, 0);
        for (shown, wanted) in by_picture {
            let (frame, _) = full_frame(&ledger, &picture(&shown));
            let queries: Vec<_> = wanted.iter().map(|one| query(&one.text, Method::Detector, None)).collect();
            let answers = grounder.ground(&batch(vec![Job { frame, queries }])).unwrap().remove(0);
            for (answer, one) in answers.iter().zip(&wanted) {
                let (px, score) =
                    differ(answer, &one.boxes).unwrap_or_else(|e| panic!("{name} {shown} {}: {e}", one.text));
                (far, off, boxes) = (far.max(px), off.max(score), boxes + one.boxes.len());
                for found in &answer.matches {
                    assert_eq!((found.score_kind, found.via.method), (ScoreKind::Logit, Method::Detector));
                }
                assert!(answer.matches.is_sorted_by(|a, b| a.score >= b.score));
            }
        }
        println!("{name}: {boxes} boxes within {far} px, scores within {off}");
        assert!(boxes >= 20 && far < 0.5 && off < 5e-3, "{name}: {boxes} boxes, {far} px, {off}");
    }
}

#[test]
fn queries_do_not_change_one_another_and_have_thresholds_of_their_own() {
    let ledger = Arc::new(Ledger::default());
    let mut seen = 0;
    for name in CLOSED {
        let mut grounder = load(&folder(name));
        let shown = picture("street");
        let (frame, whole) = full_frame(&ledger, &shown);
        let ask = [
            query("bicycles and traffic lights", Method::Auto, None),
            query("a bicycle", Method::Auto, None),
            query("traffic light", Method::Auto, Some(0.4)),
            query("person", Method::Auto, Some(1.0)),
            query("zebra", Method::Auto, None),
            query("person", Method::Zoom, None),
        ];
        let answers =
            grounder.ground(&batch(vec![Job { frame: Arc::clone(&frame), queries: ask.to_vec() }])).unwrap().remove(0);
        let alone: Vec<_> = ask
            .iter()
            .map(|one| {
                let job = Job { frame: Arc::clone(&frame), queries: vec![Arc::clone(one)] };
                grounder.ground(&batch(vec![job])).unwrap().remove(0).remove(0)
            })
            .collect();
        for (together, alone) in answers.iter().zip(&alone) {
            assert_eq!((&together.status, &together.matches), (&alone.status, &alone.matches), "{name}");
        }
        assert_eq!(whole.1.load(std::sync::atomic::Ordering::Relaxed), 1 + 4, "{name}: one look for all queries");
        let wanted: Vec<_> = expected(name).into_iter().filter(|one| one.picture == "street").collect();
        let count = |text: &str| wanted.iter().filter(|one| one.text == text).map(|one| one.boxes.len()).sum::<usize>();
        let (bikes, lights) = (count("bicycle"), count("traffic light"));
        seen += bikes + lights;
        assert_eq!((answers[0].matches.len(), answers[1].matches.len()), (bikes + lights, bikes), "{name}");
        assert!(answers[2].matches.iter().all(|m| m.score >= 0.4), "{name}");
        assert!(answers[3].matches.is_empty(), "{name}");
        let Status::Error(reason) = &answers[4].status else { panic!("{name}: a zebra was looked for") };
        assert!(reason.contains("`zebra`") && reason.contains("person, bicycle, car, traffic light, dog"), "{reason}");
        assert!(matches!(&answers[5].status, Status::Error(r) if r.contains("it can do: detector")), "{name}");
        // Without the full picture the canvas serves, its borders cut off.
        let canvas = canvas_frame(&ledger, &shown);
        let job = Job { frame: canvas, queries: ask[..1].to_vec() };
        assert_eq!(grounder.ground(&batch(vec![job])).unwrap()[0][0].matches, answers[0].matches, "{name}");
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn detectors_that_contradict_their_manifest_are_refused_with_the_key() {
    for (name, from, to, expected) in [
        ("yolox", "strides = [8, 16, 32]", "strides = [8, 16]", "f32[1,80,10]"),
        ("yolox", "strides = [8, 16, 32]", "strides = []", "head.strides"),
        ("yolox", "\"dog\"", "\"dog\", \"cat\"", "6 classes"),
        ("yolox", "\"dog\"", "\"Person\"", "`Person` is there twice"),
        ("yolox", "people = \"person\"", "people = \"folk\"", "`folk`, which is no class"),
        ("yolox", "pad = 114\n", "", "input.pad"),
        ("yolox", "fit = \"corner\"", "fit = \"patches\"", "needs `stretch` or `corner`"),
        ("rf-detr", "width = 64", "width = 32", "one picture, f32[1,3,64,32]"),
        ("yolox", "std = [1.0, 1.0, 1.0]", "std = [1.0, 0.0, 1.0]", "std above 0"),
        ("yolox", "role = \"detector\"", "role = \"vision\"", "role = \"detector\""),
        ("yolox", "methods = [\"detector\"]", "methods = [\"retrieve\"]", "can do: detector"),
        ("nanodet", "strides = [8, 16, 32]", "strides = [8, 16, 32, 64]", "head:"),
        ("nanodet-plus", "activation = \"sigmoid\"", "activation = \"softmax\"", "head.activation"),
        ("fastestdet", "strides = [16]", "strides = [8, 16]", "the one grid's step"),
        ("fastestdet", "strides = [16]", "strides = [8]", "f32[1,10,8,8]"),
        ("fastestdet", "\"dog\"", "\"dog\", \"cat\"", "f32[1,11,4,4]"),
        ("rf-detr", "family = \"rf-detr\"", "family = \"yolox\"", "head.strides"),
        ("rf-detr", "[limits]", "rect = true\n[limits]", "with fit = \"corner\" only, and this is rf-detr"),
        ("yolox-rect", "fit = \"corner\"", "fit = \"stretch\"", "with fit = \"stretch\"; take it out"),
        ("yolox-rect", "strides = [8, 16, 32]", "strides = [8, 16]", "should be f32[80, 10]"),
        ("rf-detr", "\"dog\"", "\"dog\", \"cat\"", "f32[1, queries, 7]"),
        ("d-fine-deployed", "[scores]", "[scoring]", "scoring"),
    ] {
        let dir = copy_of(name);
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected), "{name} {to}: {text}");
    }
}

#[test]
fn a_graph_that_takes_pictures_of_one_size_only_is_shown_their_border() {
    let shape = |rows: i64| [1i64, 10, rows].map(i64::to_le_bytes).concat();
    let mut graph = std::fs::read(folder("yolox-rect").join("detector.onnx")).unwrap();
    for cells in [64, 16, 4] {
        let at =
            graph.windows(24).position(|bytes| bytes == shape(-1)).expect("a shape with as many rows as there are");
        graph.splice(at..at + 24, shape(cells));
    }
    let dir = copy_of("yolox-rect");
    replace_file(dir.path(), "detector.onnx", &graph);
    let (frame, _) = full_frame(&Arc::new(Ledger::default()), &picture("narrow"));
    let found = |model: &Path| {
        let queries = ["person", "traffic light"].map(|text| query(text, Method::Detector, None)).to_vec();
        let answers = load(model).ground(&batch(vec![Job { frame: Arc::clone(&frame), queries }])).unwrap().remove(0);
        assert!(answers.iter().all(|answer| answer.status == Status::Ok));
        answers.into_iter().flat_map(|answer| answer.matches).map(|one| (one.bbox, one.score)).collect::<Vec<_>>()
    };
    let with_border = found(&folder("yolox"));
    assert!(!with_border.is_empty());
    assert_eq!(found(dir.path()), with_border);
    assert_ne!(found(&folder("yolox-rect")), with_border);
}

#[test]
fn pictures_of_several_shapes_are_each_seen_without_their_border() {
    let ledger = Arc::new(Ledger::default());
    let mut grounder = load(&folder("yolox-rect"));
    let mut found = |frame| {
        let queries = vec![query("traffic light", Method::Detector, None)];
        grounder.ground(&batch(vec![Job { frame, queries }])).unwrap().remove(0).remove(0).matches
    };
    let mut all = Vec::new();
    for shape in ["strip", "narrow", "street", "strip"].map(picture) {
        let whole = found(full_frame(&ledger, &shape).0);
        assert_eq!(found(canvas_frame(&ledger, &shape)), whole);
        all.push(whole);
    }
    assert!(all.iter().all(|matches| !matches.is_empty()) && all[0] == all[3] && all[0] != all[1]);
}

#[test]
fn watch_runs_a_detector_of_ones_own() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("clip.mp4");
    h264(&file, "160x90", 5, 3);
    let watch = |text: &str| {
        let mut command = groundd();
        command.arg("watch").arg(&file).args(["--every-frame", "--method", "detector", "--query", text, "--model"]);
        finish(command.arg(folder("yolox")))
    };
    let output = watch("person");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    for line in out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["queries"][0]["status"], "ok", "{line}");
    }
    let output = watch("zebra");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && err.contains("`zebra`") && err.contains("traffic light"), "{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    for line in out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["queries"][0]["status"], "error", "{line}");
    }
}

/// What `tools/parity/detectors.py` compares: every picture of a folder, asked for every class.
#[test]
#[ignore = "needs real pictures and a real detector; tools/parity/detectors.py runs it"]
fn real_pictures() {
    let given = |name: &str| std::env::var(format!("GROUNDD_PARITY_{name}")).unwrap_or_else(|_| panic!("set {name}"));
    let dir = PathBuf::from(given("MODEL"));
    let least: f32 = given("LEAST").parse().unwrap();
    let head = groundd::ground::manifest::Manifest::load(&dir).unwrap().head.unwrap();
    let queries: Vec<_> = head.classes.iter().map(|class| query(class, Method::Detector, Some(least))).collect();
    let mut grounder = load(&dir);
    let ledger = Arc::new(Ledger::default());
    let mut files: Vec<_> = std::fs::read_dir(given("PICTURES")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut found = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let image = image::open(file).unwrap().to_rgb8();
        let size = Size::new(image.width(), image.height());
        let (frame, _) = full_frame(&ledger, &Rgb::new(size, image.into_raw()).unwrap());
        let answers = grounder.ground(&batch(vec![Job { frame, queries: queries.clone() }])).unwrap().remove(0);
        for (class, answer) in answers.iter().enumerate() {
            assert_eq!(answer.status, Status::Ok);
            for one in &answer.matches {
                let [x1, y1, x2, y2] = one.bbox.corners();
                found.push((number, class, x1, y1, x2, y2, one.score));
            }
        }
    }
    std::fs::write(given("FOUND"), serde_json::to_vec(&found).unwrap()).unwrap();
}
