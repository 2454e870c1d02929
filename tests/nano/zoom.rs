//! Zoom with the tiny model, on pictures that show things only from near.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use groundd::{
    ground::{Grounder, methods::zoom::ZoomConfig},
    types::{
        Answer, BBox, Batch, Followed, Frame, FullFrame, Job, Ledger, Letterbox, Method, Query, QueryId, Rgb,
        ScoreKind, Size, Status,
    },
};

use super::{Cell, asking, folder, painted};
use crate::support::ground::*;

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
    searching(ZoomConfig { passes, milliseconds: 60_000, ..ZoomConfig::default() })
}

fn searching(zoom: ZoomConfig) -> Box<dyn Grounder> {
    let mut config = config(&folder());
    config.zoom = zoom;
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
fn an_exhaustive_search_looks_at_every_area_whatever_it_may_take() {
    let ledger = Arc::new(Ledger::default());
    let large = Thing { at: [40.0, 20.0, 140.0, 120.0], scale: 0.0, dim: 90 };
    let scene = Scene::new(&[large]);
    let mut model = searching(ZoomConfig { passes: 1, milliseconds: 0, exhaustive: true });
    for _ in 0..2 {
        let answers = zoomed(&mut model, &scene.frame(&ledger), &[asking("bright", Method::Zoom, None)]);
        is_at(&answers[0], &[large.at], 1.5);
        // Four columns, of which a crop in the canvas' shape shows the whole picture, and four areas in each.
        assert_eq!(scene.cuts.swap(0, Relaxed), 16);
    }
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
