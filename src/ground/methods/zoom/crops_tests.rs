//! A model that sees a thing only in crops narrow enough, on one camera's pictures.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    ground::methods::{
        retrieve::{Proposer, Selection, TextCheck},
        zoom::ZoomConfig,
    },
    types::{CameraId, Followed, FullFrame, Ledger, Method, Query, QueryId, Rgb, Worth},
};

const SOURCE: Size = Size { width: 640, height: 320 };
const CANVAS: Size = Size { width: 32, height: 16 };
const BAR: Bar = Bar { objectness: 0.5, score: 0.5, nms_iou: 0.5, soft: f32::INFINITY };

/// A thing, and the widest crop in which it can be seen.
#[derive(Debug, Clone, Copy)]
struct Thing {
    bbox: BBox,
    within: f32,
}

/// A picture that remembers what was cut out of it. The first byte of a crop counts them; in the whole picture it is 0.
#[derive(Default)]
struct Cuts(Mutex<Vec<BBox>>);

impl FullFrame for Cuts {
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        let mut cuts = self.0.lock().unwrap();
        cuts.push(*area);
        let mut data = vec![0; size.area() * 3];
        data[0] = u8::try_from(cuts.len()).unwrap();
        Ok(Rgb { size, data: data.into() })
    }
}

/// Knows where things are, and goes by what a crop shows of the picture.
struct Seer {
    cuts: Arc<Cuts>,
    things: Vec<Thing>,
}

impl Proposer for Seer {
    type Features = ();

    fn propose(&mut self, canvases: &[&Rgb]) -> Result<Proposals<()>, GroundError> {
        let cuts = self.cuts.0.lock().unwrap();
        let (mut boxes, mut objectness) = (Vec::new(), Vec::new());
        for canvas in canvases {
            let area = match canvas.data[0] {
                0 => bbox([0.0, 0.0, 640.0, 320.0]),
                count => cuts[usize::from(count) - 1],
            };
            let placed = crop::placed(&area, CANVAS, CANVAS).unwrap();
            for Thing { bbox, within } in &self.things {
                boxes.push(placed.to_canvas(bbox));
                objectness.push(f32::from(area.width() <= *within && holds(&area, bbox, 0.0, SOURCE)));
            }
        }
        Ok(Proposals { each: self.things.len(), boxes, objectness, features: () })
    }
}

impl Selector for Seer {
    type States = ();

    fn checker(&self) -> TextCheck {
        Arc::new(|_| Ok(()))
    }

    fn select(&mut self, proposals: &Proposals<()>, pairs: &[Pair<'_>]) -> Result<Selection<()>, GroundError> {
        let of = |pair: &Pair<'_>| proposals.objectness[pair.canvas * proposals.each..][..proposals.each].to_vec();
        let rows: Vec<Vec<f32>> = pairs.iter().map(of).collect();
        let none = rows.iter().map(|row| 1.0 - row.iter().copied().fold(0.0, f32::max)).collect();
        Ok(Selection { scores: rows.concat(), none, states: () })
    }
}

fn bbox([x1, y1, x2, y2]: [f32; 4]) -> BBox {
    BBox::new(x1, y1, x2, y2).unwrap()
}

/// A camera, and one query on it.
struct Street {
    zoom: Zoom,
    model: Seer,
    ledger: Arc<Ledger>,
    camera: CameraId,
    query: Query,
    followed: Arc<Followed>,
}

impl Street {
    fn new(things: &[Thing]) -> Self {
        let limits = ZoomConfig { passes: 6, milliseconds: ZoomConfig::TIMELESS, exhaustive: false };
        let (mut zoom, followed) = (Zoom::new(limits, 4), Arc::new(Followed::default()));
        zoom.follow(Arc::clone(&followed));
        let query = Query {
            id: QueryId::new("q").unwrap(),
            rev: 1,
            text: "car".into(),
            cameras: None,
            method: Method::Zoom,
            threshold: None,
            worth: Worth::default(),
        };
        let model = Seer { cuts: Arc::default(), things: things.to_vec() };
        Self { zoom, model, ledger: Arc::default(), camera: CameraId::new("gate").unwrap(), query, followed }
    }

    /// Asks about the next picture: how many crops were looked at, and whether just `things` were found.
    fn finds(&mut self, things: &[Thing]) -> (usize, bool) {
        self.model.cuts.0.lock().unwrap().clear();
        let full: Arc<dyn FullFrame> = self.model.cuts.clone();
        let frame = Frame { full: Some(full), ..Frame::black("gate", &self.ledger, SOURCE, CANVAS) };
        let ask = Ask { frame: &frame, query: &self.query };
        let whole: &Rgb = &frame.canvas;
        let proposals = self.model.propose(&[whole]).unwrap();
        let selection = self.model.select(&proposals, &[Pair { canvas: 0, text: &self.query.text }]).unwrap();
        let root = Root { proposals: &proposals, canvas: 0, scores: selection.scores, none: selection.none[0] };
        let bars = Bars { retrieve: BAR, detector: 0.5, write: 0.5, exist: 0.5 };
        let told = answer(&mut self.zoom, &mut self.model, &ask, &root, bars, &mut Crops::default());
        let hits = told.unwrap().unwrap().hits;
        let is_found = |thing: &Thing| hits.iter().any(|hit| hit.pick.bbox.iou(&thing.bbox) > 0.99);
        let cuts = self.model.cuts.0.lock().unwrap().len();
        (cuts, hits.len() == things.len() && things.iter().all(is_found))
    }
}

#[test]
fn a_large_thing_does_not_settle_it_where_small_ones_are_known() {
    let large = Thing { bbox: bbox([40.0, 40.0, 240.0, 240.0]), within: 640.0 };
    let small = Thing { bbox: bbox([500.0, 200.0, 520.0, 220.0]), within: 320.0 };
    let mut street = Street::new(&[large, small]);
    assert_eq!(street.finds(&[large]), (0, true), "nothing is known of the small one");
    // It is tracked.
    street.followed.set(&street.camera, vec![(street.query.id.clone(), small.bbox)]);
    assert!(matches!(street.finds(&[large, small]), (1.., true)));
    // It was found on the last picture.
    street.followed.set(&street.camera, Vec::new());
    assert!(matches!(street.finds(&[large, small]), (1.., true)));
    // It is gone: one look for it, and the large one settles it again.
    street.model.things.pop();
    assert!(matches!(street.finds(&[large]), (1.., true)));
    assert_eq!(street.finds(&[large]), (0, true));
    // What is known, but large enough to be seen, is no reason to look.
    street.followed.set(&street.camera, vec![(street.query.id.clone(), large.bbox)]);
    assert_eq!(street.finds(&[large]), (0, true));
}

#[test]
fn where_nothing_was_a_moment_ago_no_look_is_spent_nor_where_the_whole_picture_shows_it() {
    let large = Thing { bbox: bbox([40.0, 40.0, 240.0, 240.0]), within: 640.0 };
    let gone = bbox([500.0, 200.0, 520.0, 220.0]);
    let mut street = Street::new(&[large]);
    street.followed.set(&street.camera, vec![(street.query.id.clone(), gone)]);
    assert!(matches!(street.finds(&[large]), (1.., true)));
    assert_eq!(street.finds(&[large]), (0, true), "it is followed still, and was looked for in vain");
    let mut street = Street::new(&[]);
    street.followed.set(&street.camera, vec![(street.query.id.clone(), gone)]);
    let frame = Frame::black("gate", &street.ledger, SOURCE, CANVAS);
    let ask = Ask { frame: &frame, query: &street.query };
    let shown = Pick { bbox: bbox([502.0, 201.0, 522.0, 221.0]), score: 0.9 };
    assert_eq!((street.zoom.seeds(&ask, &[]).len(), street.zoom.seeds(&ask, &[shown]).len()), (1, 0));
}

#[test]
fn no_crop_of_a_tall_picture_is_taken_for_clearer_than_its_height_allows() {
    // Together they would need a crop as wide as the picture, which is no more than is seen well, and higher.
    let at = |y: f32| Seed::at(bbox([500.0, y, 540.0, y + 40.0]));
    let (seeds, ledger) = ([at(300.0), at(1200.0)], Arc::default());
    let frame = Frame::black("gate", &ledger, Size::new(1080, 1920), Size::new(512, 288));
    let (mut model, mut crops) = (Seer { cuts: Arc::default(), things: Vec::new() }, Crops::default());
    let eye = Eye {
        model: &mut model,
        frame: &frame,
        sight: Sight { canvas: Size::new(512, 288), detail: 1.0 },
        text: "car",
        bar: BAR,
        exist: 0.5,
        batch: 1,
        exhaustive: false,
        seeds: &seeds,
        looks: Vec::new(),
        crops: &mut crops,
    };
    let crops = eye.promising(eye.plan().tree());
    assert!(crops.len() > seeds.len(), "each alone, and wide ones");
    for crop in crops {
        let worst = (crop.width() / 512.0).max(crop.height() / 288.0);
        assert!(worst <= NEAR, "{worst} source pixels make one in {crop:?}");
    }
}
