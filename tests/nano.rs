//! The nano family's five methods with the real ONNX Runtime, on a tiny model that has all of them, against what ONNX
//! Runtime answered where the model was made.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use groundd::{
    ground::{
        self, ModelConfig,
        engine::{
            Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor,
            local::{Compute, Local, Runtime},
        },
        library_path,
        manifest::Manifest,
        methods::{
            regions::Bar,
            retrieve::Ask,
            together::{self, Asked, Bars},
            zoom::{Zoom, ZoomConfig},
        },
        models::nano::Nano,
    },
    types::{BBox, Job, Ledger, Letterbox, Method, Query, QueryId, Rgb, ScoreKind, Size, Status},
};
use serde::Deserialize;

use crate::support::ground::*;

mod zoom;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nano_tiny")
}

type Cell = [u8; 6];

/// What the model answered where it was made: boxes in fractions of the canvas, each with its score.
#[derive(Deserialize)]
struct Case {
    cells: Vec<Cell>,
    text: String,
    #[serde(rename = "match")]
    matching: Vec<f32>,
    none: f32,
    detector: Vec<([f32; 4], f32)>,
    coords: Written,
    bins: Written,
}

#[derive(Deserialize)]
struct Written {
    boxes: Vec<([f32; 4], f32)>,
    /// Tokens of the answer, the first and the last among them.
    tokens: usize,
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(folder().join("cases.json")).unwrap()).unwrap()
}

/// Another canvas that the model takes: it lies in the middle of the model's frame, as high as that and 0.6 as wide.
const OTHER: Size = Size { width: 12, height: 10 };

/// The canvas that holds those cells.
fn painted(cells: &[Cell]) -> Rgb {
    painted_on(CANVAS, cells)
}

fn painted_on(canvas: Size, cells: &[Cell]) -> Rgb {
    let mut pixels = vec![0; canvas.area() * 3];
    for (row, cell) in cells.iter().enumerate() {
        let at = row * canvas.width as usize * 3;
        pixels[at..at + 6].copy_from_slice(cell);
    }
    Rgb::new(canvas, pixels).unwrap()
}

fn asking(text: &str, method: Method, threshold: Option<f32>) -> Arc<Query> {
    let id = QueryId::new("q").unwrap();
    Arc::new(Query {
        id,
        rev: 1,
        text: text.to_owned(),
        cameras: None,
        method,
        threshold,
        worth: groundd::types::Worth::default(),
    })
}

/// Boxes in pixels of the 32x16 source, best first, of equals the earlier first.
fn expected(boxes: &[([f32; 4], f32)], least: f32) -> Vec<([f32; 4], f32)> {
    let scaled = boxes.iter().filter(|(_, score)| *score >= least);
    let mut boxes: Vec<_> =
        scaled.map(|([x1, y1, x2, y2], score)| ([x1 * 32.0, y1 * 16.0, x2 * 32.0, y2 * 16.0], *score)).collect();
    boxes.sort_by(|a, b| b.1.total_cmp(&a.1));
    boxes
}

fn near(found: &[([f32; 4], f32)], expected: &[([f32; 4], f32)], what: &str) {
    let close = |a: &([f32; 4], f32), b: &([f32; 4], f32)| {
        a.0.iter().zip(b.0).all(|(x, y)| (x - y).abs() < 1e-3) && (a.1 - b.1).abs() < 1e-4
    };
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| close(a, b));
    assert!(same, "{what}: found {found:?}, expected {expected:?}");
}

/// A plain suppression, as a reference: in order of score, of two that overlap more than `iou` the first.
fn suppressed(boxes: &[([f32; 4], f32)], iou: f32) -> Vec<([f32; 4], f32)> {
    let bbox = |[x1, y1, x2, y2]: [f32; 4]| BBox::new(x1, y1, x2, y2).unwrap();
    let mut kept: Vec<([f32; 4], f32)> = Vec::new();
    for one in boxes {
        if kept.iter().all(|other| bbox(other.0).iou(&bbox(one.0)) <= iou) {
            kept.push(*one);
        }
    }
    kept
}

#[test]
fn every_method_answers_what_was_answered_where_the_model_was_made() {
    let ledger = Arc::new(Ledger::default());
    let mut model = load(&folder());
    assert_eq!(
        model.describe().methods,
        [Method::Retrieve, Method::Detector, Method::Coords, Method::Bins, Method::Zoom]
    );
    let methods = [Method::Bins, Method::Retrieve, Method::Coords, Method::Detector];
    let cases = cases();
    let jobs: Vec<_> = cases
        .chunks(3)
        .map(|same| {
            let texts = same.iter().flat_map(|case| methods.map(|method| asking(&case.text, method, None)));
            Job { frame: frame(&ledger, painted(&same[0].cells)), queries: texts.collect() }
        })
        .collect();
    // All at once: up to eight frames, twelve queries each, written answers of different lengths in one run.
    let answers: Vec<_> = jobs.chunks(8).flat_map(|jobs| model.ground(&batch(jobs.to_vec())).unwrap()).collect();
    let mut written = 0;
    for (case, answers) in cases.iter().zip(answers.iter().flat_map(|job| job.chunks(4))) {
        let [bins, retrieve, coords, detector] = answers else { panic!("four answers") };
        let what = format!("{} on {:?}", case.text, case.cells[0]);
        near(&found(bins), &expected(&case.bins.boxes, 0.5), &format!("bins of {what}"));
        near(&found(coords), &expected(&case.coords.boxes, 0.5), &format!("coords of {what}"));
        let corners = |cell: &Cell| [cell[0], cell[1], cell[2], cell[3]].map(|v| f32::from(v) / 255.0);
        let offered = case.cells[..4].iter().zip(&case.matching).filter(|(cell, _)| cell[4] >= 77);
        let regions: Vec<_> = offered.map(|(cell, score)| (corners(cell), *score)).collect();
        near(&found(retrieve), &suppressed(&expected(&regions, 0.5), 0.6), &format!("retrieve of {what}"));
        near(&found(detector), &suppressed(&expected(&case.detector, 0.7), 0.6), &format!("detector of {what}"));
        for (answer, method, kind) in [
            (bins, Method::Bins, ScoreKind::TokenProb),
            (coords, Method::Coords, ScoreKind::TokenProb),
            (retrieve, Method::Retrieve, ScoreKind::TokenProb),
            (detector, Method::Detector, ScoreKind::Logit),
        ] {
            let right =
                |m: &groundd::types::Match| m.via.method == method && m.score_kind == kind && m.via.crop.is_none();
            assert!(answer.matches.iter().all(right), "{method}");
        }
        written += bins.matches.len() + coords.matches.len();
    }
    assert!(written > 80, "only {written} boxes were written");
    // One by one they are the same.
    for (job, together) in jobs.iter().zip(&answers) {
        for (query, together) in job.queries.iter().zip(together) {
            let alone = Job { frame: Arc::clone(&job.frame), queries: vec![Arc::clone(query)] };
            let alone = model.ground(&batch(vec![alone])).unwrap().remove(0).remove(0);
            near(&found(&alone), &found(together), &format!("{} alone", query.method));
        }
    }
}

#[test]
fn on_a_canvas_of_another_shape_boxes_lie_where_they_do_on_the_models_frame() {
    let ledger = Arc::new(Ledger::default());
    let mut model = load(&folder());
    let source = Size::new(24, 20);
    let view = Letterbox::fit(source, 1.0, OTHER);
    assert_eq!(model.limits().canvases.view(source, 1.0), view);
    let on_source = |([x1, y1, x2, y2], score): &([f32; 4], f32)| {
        let x = |f: f32| ((f - 0.5) / 0.6 + 0.5) * 24.0;
        let bbox = BBox::new(x(*x1), y1 * 20.0, x(*x2), y2 * 20.0)?.clipped(source)?;
        Some((bbox.corners(), *score))
    };
    let expected = |boxes: &[([f32; 4], f32)], least: f32| {
        let mut boxes: Vec<_> = boxes.iter().filter(|(_, score)| *score >= least).filter_map(on_source).collect();
        boxes.sort_by(|a, b| b.1.total_cmp(&a.1));
        boxes
    };
    let cases = cases();
    let methods = [Method::Bins, Method::Coords, Method::Detector, Method::Retrieve];
    // Beside frames on the usual canvas, in one batch: each is told about its own.
    let jobs = cases.iter().step_by(3).flat_map(|case| {
        let other = frame_of("cam0", &ledger, (view, painted_on(OTHER, &case.cells)), None);
        let queries: Vec<_> = methods.iter().map(|method| asking(&case.text, *method, None)).collect();
        [other, frame(&ledger, painted(&case.cells))].map(|frame| Job { frame, queries: queries.clone() })
    });
    let jobs: Vec<_> = jobs.collect();
    let answers: Vec<_> = jobs.chunks(8).flat_map(|jobs| model.ground(&batch(jobs.to_vec())).unwrap()).collect();
    let mut told = 0;
    for (case, answers) in cases.iter().step_by(3).zip(answers.chunks(2)) {
        let [other, usual] = answers else { panic!("two frames") };
        near(&found(&usual[0]), &self::expected(&case.bins.boxes, 0.5), "bins on the usual canvas");
        near(&found(&usual[2]), &suppressed(&self::expected(&case.detector, 0.7), 0.6), "detector on the usual canvas");
        let [bins, coords, detector, retrieve] = &other[..] else { panic!("four answers") };
        let corners = |cell: &Cell| [cell[0], cell[1], cell[2], cell[3]].map(|v| f32::from(v) / 255.0);
        let offered = case.cells[..4].iter().zip(&case.matching).filter(|(cell, _)| cell[4] >= 77);
        let regions: Vec<_> = offered.map(|(cell, score)| (corners(cell), *score)).collect();
        near(&found(retrieve), &suppressed(&expected(&regions, 0.5), 0.6), "retrieve");
        near(&found(bins), &expected(&case.bins.boxes, 0.5), "bins");
        near(&found(coords), &expected(&case.coords.boxes, 0.5), "coords");
        near(&found(detector), &suppressed(&expected(&case.detector, 0.7), 0.6), "detector");
        told += bins.matches.len() + coords.matches.len() + detector.matches.len();
    }
    assert!(told > 40, "only {told} boxes were told");
}

#[test]
fn more_detail_is_a_larger_canvas_and_the_same_places() {
    let ledger = Arc::new(Ledger::default());
    let config = ModelConfig { detail: 4.0, ..config(&folder()) };
    let mut model = ground::load(&config, &[]).unwrap_or_else(|e| panic!("{e}"));
    let canvases = model.limits().canvases;
    assert_eq!(canvases.iter().collect::<Vec<_>>(), [Size::new(32, 16), Size::new(24, 20)]);
    let view = canvases.view(Size::new(32, 16), 1.0);
    let cases = cases();
    let mut told = 0;
    for case in cases.iter().step_by(3) {
        let methods = [Method::Bins, Method::Coords, Method::Detector];
        let queries = methods.map(|method| asking(&case.text, method, None)).to_vec();
        let frame = frame_of("cam0", &ledger, (view, painted_on(view.canvas, &case.cells)), None);
        let answers = model.ground(&batch(vec![Job { frame, queries }])).unwrap().remove(0);
        near(&found(&answers[0]), &expected(&case.bins.boxes, 0.5), "bins");
        near(&found(&answers[1]), &expected(&case.coords.boxes, 0.5), "coords");
        near(&found(&answers[2]), &suppressed(&expected(&case.detector, 0.7), 0.6), "detector");
        told += answers.iter().map(|answer| answer.matches.len()).sum::<usize>();
    }
    assert!(told > 30, "only {told} boxes were told");
    // A picture for the canvas that is usual without it is one for another model.
    let frame = frame(&ledger, painted(&cases[0].cells));
    let queries = vec![asking(&cases[0].text, Method::Retrieve, None)];
    let refused = model.ground(&batch(vec![Job { frame, queries }])).unwrap().remove(0).remove(0);
    assert!(matches!(&refused.status, Status::Error(why) if why.contains("32x16, 24x20")), "{:?}", refused.status);
}

#[test]
fn detail_that_cannot_be_had_is_refused_with_what_can() {
    for (folder, detail, remedy) in [
        (folder(), 0.2, "[model] `detail` is 0.2; use 0.25 to 4"),
        (folder(), 4.5, "use 0.25 to 4"),
        (folder(), f32::NAN, "is NaN; use"),
        (tiny(), 2.0, "model.toml: detail (model.detail, --detail): 2 is for models that list `shapes`"),
    ] {
        let config = ModelConfig { detail, ..config(&folder) };
        let error = ground::load(&config, &[]).map(|model| model.describe()).unwrap_err().to_string();
        assert!(error.contains(remedy), "{error}");
    }
    let usual = ModelConfig { detail: 1.0, ..config(&tiny()) };
    assert_eq!(ground::load(&usual, &[]).unwrap().limits(), load(&tiny()).limits());
}

#[test]
fn a_querys_own_threshold_goes_before_the_models() {
    let ledger = Arc::new(Ledger::default());
    let mut model = load(&folder());
    let case = cases().into_iter().find(|case| case.coords.boxes.len() >= 3 && case.none < 0.5).unwrap();
    let sure: Vec<_> = case.coords.boxes.iter().map(|(_, score)| *score).collect();
    let bar = sure.iter().sum::<f32>() / sure.len() as f32;
    let queries = vec![asking(&case.text, Method::Coords, Some(bar)), asking(&case.text, Method::Detector, Some(0.0))];
    let job = Job { frame: frame(&ledger, painted(&case.cells)), queries };
    let answers = model.ground(&batch(vec![job])).unwrap().remove(0);
    near(&found(&answers[0]), &expected(&case.coords.boxes, bar), "coords");
    assert!(answers[0].matches.len() < case.coords.boxes.len());
    near(&found(&answers[1]), &suppressed(&expected(&case.detector, 0.0), 0.6), "detector");
}

// --- what is run, and how often ---

/// A real graph that writes down how many rows each run had.
struct Counted {
    engine: Local,
    name: String,
    runs: Runs,
}

type Runs = Arc<Mutex<Vec<(String, usize)>>>;

impl Counted {
    fn count(&self, rows: usize) {
        self.runs.lock().unwrap().push((self.name.clone(), rows));
    }
}

impl Engine for Counted {
    fn inputs(&self) -> &[Port] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.engine.outputs()
    }

    fn file(&self) -> &std::path::Path {
        self.engine.file()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        self.count(inputs[0].1.shape[0]);
        self.engine.run(inputs)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        let Input::Tensor(first) = inputs[0].1 else { panic!("the first input is on the host") };
        self.count(first.shape[0]);
        self.engine.run_keeping(inputs, keep)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.engine.blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.engine.arrange(parts)
    }
}

fn counted() -> (Nano, Runs) {
    let runs = Runs::default();
    let runtime = Runtime::load(&library_path(&config(&folder())).unwrap()).unwrap();
    let compute = Compute { provider: groundd::ground::Provider::Cpu, device: 0, threads: 1 };
    let mut open = |file: &std::path::Path| -> Result<Box<dyn Engine>, EngineError> {
        let engine = Local::open(&runtime, file, compute)?;
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        Ok(Box::new(Counted { engine, name, runs: Arc::clone(&runs) }))
    };
    (Nano::open(&Manifest::load(&folder()).unwrap(), &mut open).unwrap(), runs)
}

const BARS: Bars = Bars {
    retrieve: Bar { objectness: 0.3, score: 0.5, nms_iou: 0.6, soft: f32::INFINITY },
    detector: 0.7,
    write: 0.5,
    exist: 0.5,
};

#[test]
fn a_frame_is_looked_at_once_whatever_is_asked_and_rows_that_are_over_are_left_out() {
    let ledger = Arc::new(Ledger::default());
    let (mut model, runs) = counted();
    let cases = cases();
    let frames: Vec<_> = cases.chunks(3).take(2).map(|same| frame(&ledger, painted(&same[0].cells))).collect();
    let methods = [Method::Retrieve, Method::Coords, Method::Bins, Method::Detector, Method::Zoom];
    let queries: Vec<_> = methods.map(|method| asking("dark", method, None)).into();
    let asks: Vec<_> = frames
        .iter()
        .flat_map(|frame| {
            queries.iter().chain(&queries).map(|query| Asked { method: query.method, ask: Ask { frame, query } })
        })
        .collect();
    let mut zoom = Zoom::new(ZoomConfig::default(), 8);
    let told = together::answer(&mut model, &asks, BARS, &mut zoom).unwrap();
    assert!(told.len() == 20 && told.iter().all(Result::is_ok));
    let runs = runs.lock().unwrap().clone();
    let of = |name: &str| runs.iter().filter(|(n, _)| n == name).map(|(_, rows)| *rows).collect::<Vec<_>>();
    // Two frames in one run, the words once, one pair a frame however many methods and however often.
    assert_eq!((of("vision"), of("text"), of("select"), of("detect")), (vec![2], vec![1], vec![2], vec![2]));
    // Two frames times two forms are written together; a step a token, fewer rows once half of them are over.
    let mut tokens: Vec<_> =
        [&cases[1], &cases[4]].iter().flat_map(|case| [case.coords.tokens, case.bins.tokens]).collect();
    tokens.sort_unstable();
    let write = of("write");
    assert_eq!(write.len(), tokens[3] - 1, "a step for each token after the first of the longest answer");
    assert_eq!(write[0], 4);
    assert!(write.is_sorted_by(|a, b| a >= b) && *write.last().unwrap() < 4, "{write:?}");
    let fed: usize = write.iter().sum();
    let needed: usize = tokens.iter().map(|n| n - 1).sum();
    assert!(fed >= needed && fed <= 2 * needed + 4, "{fed} rows for {needed} tokens");
}

// --- what can be wrong with the folder ---

#[test]
fn files_are_needed_by_the_methods_that_are_named() {
    let all = "methods = [\"retrieve\", \"detector\", \"coords\", \"bins\", \"zoom\"]";
    for (from, to, expected) in [
        ("role = \"detect\"", "role = \"detector\"", "exactly one file with role = \"detect\""),
        ("role = \"write\"", "role = \"writer\"", "exactly one file with role = \"write\""),
        ("role = \"answers\"", "role = \"tokens\"", "not a vocabulary: the answer token `<coords>` is missing"),
        (all, "methods = [\"retrieve\", \"caption\"]", "caption"),
        ("detector = 0.70", "detector = 1.70", "scores.detector: is 1.7"),
    ] {
        let dir = copy();
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected), "{to}: {text}");
    }
    // Without the methods their files are not missed.
    let dir = copy();
    edit_manifest(dir.path(), all, "methods = [\"zoom\", \"retrieve\"]");
    edit_manifest(dir.path(), "role = \"detect\"", "role = \"other\"");
    edit_manifest(dir.path(), "role = \"write\"", "role = \"another\"");
    assert_eq!(load(dir.path()).describe().methods, [Method::Zoom, Method::Retrieve]);
    let swapped = copy();
    replace_file(swapped.path(), "write.onnx", &std::fs::read(folder().join("detect.onnx")).unwrap());
    let text = load_error(swapped.path()).to_string();
    assert!(text.contains("write.onnx: its inputs should be past f32[?,layers,heads,?,width]"), "{text}");
}

fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}
