//! The nano family's five methods with the real ONNX Runtime, on a tiny model that has all of them: against what ONNX
//! Runtime answered where the model was made, and on scenes whose right answer is known.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use groundd::{
    ground::{
        Grounder,
        engine::{
            Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor,
            local::{Compute, Local, Runtime},
        },
        library_path,
        manifest::Manifest,
        methods::{
            regions::Bar,
            retrieve::Ask,
            together::{self, Bars},
            zoom::{Zoom, ZoomConfig},
        },
        models::nano::Nano,
    },
    types::{
        Answer, BBox, Batch, Followed, Frame, FullFrame, Job, Ledger, Letterbox, Method, Query, QueryId, Rgb,
        ScoreKind, Size, Status,
    },
};
use serde::Deserialize;

use crate::support::ground::*;

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

/// The canvas that holds those cells.
fn painted(cells: &[Cell]) -> Rgb {
    let mut pixels = vec![0; CANVAS.area() * 3];
    for (row, cell) in cells.iter().enumerate() {
        let at = row * CANVAS.width as usize * 3;
        pixels[at..at + 6].copy_from_slice(cell);
    }
    Rgb::new(CANVAS, pixels).unwrap()
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

const BARS: Bars =
    Bars { retrieve: Bar { objectness: 0.3, score: 0.5, nms_iou: 0.6 }, detector: 0.7, write: 0.5, exist: 0.5 };

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
        .flat_map(|frame| queries.iter().chain(&queries).map(|query| (query.method, Ask { frame, query })))
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

// --- zoom ---

/// A thing in a large picture: where, at which scale (canvas pixels a source pixel) it can be seen, and how bright it is
/// below.
#[derive(Debug, Clone, Copy)]
struct Thing {
    at: [f32; 4],
    scale: f32,
    dim: u8,
}

/// A picture of which the model sees what is large enough.
struct Scene {
    size: Size,
    things: Mutex<Vec<Thing>>,
    cuts: AtomicUsize,
    fails: bool,
}

impl Scene {
    fn new(things: &[Thing]) -> Arc<Self> {
        let things = Mutex::new(things.to_vec());
        Arc::new(Self { size: Size::new(320, 160), things, cuts: 0.into(), fails: false })
    }

    /// What the canvas shows of `area`, scaled to `inner`.
    fn shown(&self, area: &BBox, scale: f32) -> Vec<Cell> {
        let [left, top, ..] = area.corners();
        let byte = |v: f32| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let byte = (v * 255.0).round().clamp(0.0, 255.0) as u8;
            byte
        };
        let mut cells = Vec::new();
        for Thing { at: [x1, y1, x2, y2], scale: least, dim } in self.things.lock().unwrap().iter() {
            let x = |v: f32| byte((v - left) / area.width());
            let y = |v: f32| byte((v - top) / area.height());
            let corners = [x(*x1), y(*y1), x(*x2), y(*y2)];
            let bright = if scale >= *least { 230 } else { *dim };
            if corners[0] < corners[2] && corners[1] < corners[3] {
                cells.push([corners[0], corners[1], corners[2], corners[3], 255, bright]);
            }
        }
        cells.truncate(4);
        cells
    }

    fn frame(self: &Arc<Self>, ledger: &Arc<Ledger>) -> Arc<Frame> {
        let whole = BBox::new(0.0, 0.0, self.size.width as f32, self.size.height as f32).unwrap();
        let canvas = painted(&self.shown(&whole, CANVAS.width as f32 / whole.width()));
        let view = Letterbox::fit(self.size, 1.0, CANVAS);
        let bare = Arc::into_inner(frame(ledger, canvas)).unwrap();
        Arc::new(Frame { view, full: Some(Arc::clone(self) as Arc<dyn FullFrame>), ..bare })
    }
}

impl FullFrame for Scene {
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        self.cuts.fetch_add(1, Relaxed);
        let [x1, y1, x2, y2] = area.corners();
        assert!(x1 >= 0.0 && y1 >= 0.0 && x2 <= self.size.width as f32 && y2 <= self.size.height as f32, "{area:?}");
        assert_eq!(size, CANVAS);
        if self.fails {
            return Err("the decoder took its picture back".to_owned());
        }
        // Crops of the canvas' shape come back whole.
        let shape = area.width() / area.height();
        assert!((shape - 2.0).abs() < 1e-3, "a crop of shape {shape}");
        Ok(painted(&self.shown(area, size.width as f32 / area.width())))
    }
}

fn zooming(passes: usize) -> Box<dyn Grounder> {
    let mut config = config(&folder());
    config.zoom = ZoomConfig { passes, milliseconds: 60_000 };
    groundd::ground::load(&config, &[]).unwrap()
}

fn zoomed(model: &mut Box<dyn Grounder>, frame: &Arc<Frame>, queries: &[Arc<Query>]) -> Vec<Answer> {
    let batch: Batch = batch(vec![Job { frame: Arc::clone(frame), queries: queries.to_vec() }]);
    model.ground(&batch).unwrap().remove(0)
}

fn is_at(answer: &Answer, things: &[[f32; 4]], within: f32) {
    assert_eq!(answer.status, Status::Ok);
    assert_eq!(answer.matches.len(), things.len(), "{:?}", answer.matches);
    for thing in things {
        let close =
            |m: &groundd::types::Match| m.bbox.corners().iter().zip(thing).all(|(a, b)| (a - b).abs() <= within);
        assert!(answer.matches.iter().any(close), "{thing:?} is not among {:?}", answer.matches);
    }
}

/// Whether it is there is left open: the budget was spent before all was looked at.
fn is_not_said(answer: &Answer) {
    assert!(matches!(&answer.status, Status::Shed(reason) if reason.starts_with("budget")), "{:?}", answer.status);
    assert_eq!(answer.matches, []);
}

/// Seen from half the distance, in the lower right.
const HIDDEN: Thing = Thing { at: [260.0, 110.0, 272.0, 118.0], scale: 0.09, dim: 90 };

#[test]
fn what_the_whole_does_not_show_is_found_from_near() {
    let ledger = Arc::new(Ledger::default());
    let scene = Scene::new(&[HIDDEN]);
    let frame = scene.frame(&ledger);
    let mut model = zooming(8);
    let queries = [asking("bright", Method::Retrieve, None), asking("bright", Method::Zoom, None)];
    let answers = zoomed(&mut model, &frame, &queries);
    is_at(&answers[0], &[], 0.0);
    is_at(&answers[1], &[HIDDEN.at], 1.5);
    let via = &answers[1].matches[0].via;
    assert_eq!(via.method, Method::Zoom);
    let crop = via.crop.unwrap();
    assert!(crop.iou(&answers[1].matches[0].bbox) > 0.0 && crop.width() < 200.0, "{crop:?}");
    assert_eq!(answers[1].matches[0].score_kind, ScoreKind::TokenProb);
    // The message has the crop in source pixels.
    let json = serde_json::to_value(&answers[1].matches[0]).unwrap();
    assert_eq!(json["via"]["crop"].as_array().unwrap().len(), 4);
}

#[test]
fn what_the_whole_shows_well_is_not_looked_at_again() {
    let ledger = Arc::new(Ledger::default());
    let large = Thing { at: [40.0, 20.0, 140.0, 120.0], scale: 0.0, dim: 90 };
    let scene = Scene::new(&[large]);
    let answers = zoomed(&mut zooming(8), &scene.frame(&ledger), &[asking("bright", Method::Zoom, None)]);
    is_at(&answers[0], &[large.at], 1.5);
    assert_eq!((scene.cuts.load(Relaxed), answers[0].matches[0].via.crop), (0, None));
}

#[test]
fn a_box_that_is_small_on_the_canvas_is_replaced_by_the_one_seen_from_near() {
    let ledger = Arc::new(Ledger::default());
    let (large, small) = (
        Thing { at: [10.0, 10.0, 110.0, 80.0], scale: 0.0, dim: 90 },
        Thing { at: [250.0, 100.0, 262.0, 108.0], scale: 0.0, dim: 90 },
    );
    let scene = Scene::new(&[large, small]);
    let answers = zoomed(&mut zooming(8), &scene.frame(&ledger), &[asking("bright", Method::Zoom, None)]);
    is_at(&answers[0], &[large.at, small.at], 1.5);
    let crop_of = |x: f32| answers[0].matches.iter().find(|m| (m.bbox.corners()[0] - x).abs() < 2.0).unwrap().via.crop;
    assert!(crop_of(10.0).is_none() && crop_of(250.0).is_some());
}

#[test]
fn a_small_budget_finds_it_some_frames_later_and_then_knows_where_to_look() {
    let ledger = Arc::new(Ledger::default());
    let scene = Scene::new(&[Thing { scale: 0.15, dim: 0, ..HIDDEN }]);
    let mut model = zooming(2);
    let query = [asking("bright", Method::Zoom, None)];
    let mut first = None;
    for round in 0..40 {
        let before = scene.cuts.load(Relaxed);
        let answers = zoomed(&mut model, &scene.frame(&ledger), &query);
        assert!(scene.cuts.load(Relaxed) - before <= 2, "the budget is kept");
        if answers[0].matches.is_empty() {
            assert!(first.is_none(), "once found it is not lost again, in round {round}");
            is_not_said(&answers[0]);
        } else {
            first = first.or(Some(round));
            is_at(&answers[0], &[HIDDEN.at], 1.5);
        }
    }
    let first = first.expect("it is found in the end");
    assert!(first > 0 && first <= 11, "found in round {first}");
    // It moves a little, and is followed.
    scene.things.lock().unwrap()[0].at = HIDDEN.at.map(|v| v + 6.0);
    is_at(&zoomed(&mut model, &scene.frame(&ledger), &query)[0], &[HIDDEN.at.map(|v| v + 6.0)], 1.5);
    // It is gone, and is not made up; that it is not there is said once all was looked at.
    scene.things.lock().unwrap().clear();
    is_not_said(&zoomed(&mut model, &scene.frame(&ledger), &query)[0]);
    is_at(&zoomed(&mut zooming(100), &scene.frame(&ledger), &query)[0], &[], 0.0);
}

#[test]
fn a_track_is_where_it_is_looked_for_first() {
    let ledger = Arc::new(Ledger::default());
    let scene = Scene::new(&[Thing { scale: 0.15, dim: 0, ..HIDDEN }]);
    let query = [asking("bright", Method::Zoom, None)];
    for id in ["q", "other"] {
        let mut model = zooming(1);
        let followed = Arc::new(Followed::default());
        let [x1, y1, x2, y2] = HIDDEN.at.map(|v| v + 3.0);
        let object = (QueryId::new(id).unwrap(), BBox::new(x1, y1, x2, y2).unwrap());
        let camera = groundd::types::CameraId::new("cam0").unwrap();
        followed.set(&camera, vec![object]);
        model.follow(Arc::clone(&followed));
        let answers = zoomed(&mut model, &scene.frame(&ledger), &query);
        if id == "q" {
            is_at(&answers[0], &[HIDDEN.at], 1.5);
        } else {
            is_not_said(&answers[0]);
        }
        followed.set(&camera, Vec::new());
        assert_eq!(followed.of(&camera, &query[0].id), []);
    }
}

#[test]
fn a_crop_counts_only_if_the_model_says_yes_to_it() {
    let ledger = Arc::new(Ledger::default());
    // Never bright enough for the model to say yes; the query itself would be content with less.
    let scene = Scene::new(&[Thing { scale: 9.0, ..HIDDEN }]);
    let answers = zoomed(&mut zooming(30), &scene.frame(&ledger), &[asking("bright", Method::Zoom, Some(0.3))]);
    assert!(scene.cuts.load(Relaxed) > 4);
    // What the whole picture shows is the query's own business.
    assert_eq!(answers[0].matches.len(), 1);
    assert_eq!(answers[0].matches[0].via.crop, None);
}

#[test]
fn crops_serve_every_query_on_their_frame() {
    let ledger = Arc::new(Ledger::default());
    let scene = Scene::new(&[HIDDEN]);
    let query = |id: &str, text: &str| {
        Arc::new(Query { id: QueryId::new(id).unwrap(), ..(*asking(text, Method::Zoom, None)).clone() })
    };
    let one = zoomed(&mut zooming(40), &scene.frame(&ledger), &[query("a", "bright")]);
    let cuts = scene.cuts.swap(0, Relaxed);
    is_at(&one[0], &[HIDDEN.at], 1.5);
    let two = zoomed(&mut zooming(40), &scene.frame(&ledger), &[query("a", "bright"), query("b", "the light")]);
    is_at(&two[1], &[HIDDEN.at], 1.5);
    assert!(cuts > 4 && scene.cuts.load(Relaxed) == cuts);
}

#[test]
fn a_hint_in_the_whole_picture_is_followed_first() {
    let ledger = Arc::new(Ledger::default());
    let scene = Scene::new(&[Thing { scale: 0.15, ..HIDDEN }]);
    let answers = zoomed(&mut zooming(2), &scene.frame(&ledger), &[asking("bright", Method::Zoom, None)]);
    is_at(&answers[0], &[HIDDEN.at], 1.5);
}

#[test]
fn a_picture_that_cannot_be_cut_is_one_querys_trouble() {
    let ledger = Arc::new(Ledger::default());
    let scene = Arc::new(Scene { fails: true, ..Arc::into_inner(Scene::new(&[HIDDEN])).unwrap() });
    let queries = [asking("bright", Method::Zoom, None), asking("bright", Method::Detector, Some(0.1))];
    let answers = zoomed(&mut zooming(8), &scene.frame(&ledger), &queries);
    assert!(matches!(&answers[0].status, Status::Error(reason) if reason.contains("took its picture back")));
    assert!(answers[1].status == Status::Ok && !answers[1].matches.is_empty());
    // Where there is no full picture the whole one has to do.
    let canvas = frame(&ledger, painted(&[[0, 0, 51, 51, 255, 255]]));
    is_at(&zoomed(&mut zooming(8), &canvas, &queries[..1])[0], &[[0.0, 0.0, 6.4, 3.2]], 1e-3);
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
