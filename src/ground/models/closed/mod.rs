//! Detectors with classes of their own, as people have them: YOLOX, `NanoDet` and `PicoDet`, RT-DETR, D-FINE, RF-DETR.
//!
//! Such a model answers the queries that name its classes, and offers regions to models that rank them by words. What
//! its numbers mean is in the manifest (`[input]`, `[head]`); how a family lays them out is a [`Layout`].

use std::sync::Arc;

use super::{Open, need, open_role, picture, unfit};
use crate::{
    ground::{
        GroundError,
        codec::Placement,
        engine::{Data, Engine, EngineError, Outputs, Tensor},
        manifest::Manifest,
        methods::{
            find::{Finder, Want},
            propose::{BoxProposer, Candidate, Region, suppress},
            regions::Pick,
            retrieve::TextCheck,
            written::cut,
        },
        vision::{Lay, Resampler},
    },
    types::{BBox, Letterbox, Rgb, ScoreKind, Size},
};

mod cells;
mod classes;
mod queries;

use classes::Classes;

/// The families' names in manifests.
pub const FAMILIES: [&str; 6] = ["yolox", "nanodet", "picodet", "rt-detr", "d-fine", "rf-detr"];

/// What is wanted of a pass.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    /// Boxes of these classes: the least score of each, infinite for those nobody asked for.
    Classes(&'a [f32]),
    /// Whatever holds a thing, with at least this objectness.
    Things(f32),
}

/// How a family's tensors are laid out.
trait Layout: Send {
    /// Inputs beside the picture.
    fn feeds(&self) -> &[(&'static str, Tensor)] {
        &[]
    }

    /// Adds what is wanted to `found`, in pixels of the model's image; things are all of class 0. Fails if the tensors
    /// are not of this layout.
    fn read(&self, outputs: &mut Outputs, wanted: Wanted<'_>, found: &mut Vec<Candidate>) -> Result<(), String>;
}

/// An opened detector.
pub struct Closed {
    engine: Box<dyn Engine>,
    /// The input that is the picture.
    input: String,
    layout: Box<dyn Layout>,
    lay: Lay,
    classes: Arc<Classes>,
    resampler: Resampler,
    /// The picture's tensor, and the picture from a canvas; kept, so that a pass allocates nothing large.
    values: Vec<f32>,
    pixels: Vec<u8>,
    objectness: f32,
    nms_iou: f32,
    boxes: usize,
}

impl Closed {
    /// Opens the files of a manifest whose family is one of these.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let head = need(manifest, "head", manifest.head.as_ref())?;
        let scores = need(manifest, "scores", manifest.scores.as_ref())?;
        let classes = Classes::of(head, &manifest.name).map_err(|reason| unfit(manifest, reason))?;
        let lay = picture::lay(manifest)?;
        let engine = open_role(manifest, "detector", open)?;
        let (image, count) = (lay.image(), classes.len());
        let layout: Result<Box<dyn Layout>, _> = match manifest.family.as_str() {
            "yolox" => cells::Yolox::of(head, image, count, engine.as_ref()).map(|l| Box::new(l) as _),
            "nanodet" | "picodet" => {
                cells::Distances::of(head, image, count, engine.as_ref()).map(|l| Box::new(l) as _)
            }
            _ => queries::Queries::of(image, count, engine.as_ref()).map(|l| Box::new(l) as _),
        };
        let layout = layout.map_err(|reason| unfit(manifest, reason))?;
        let others: Vec<_> = layout.feeds().iter().map(|(name, _)| *name).collect();
        let input = picture::port(engine.as_ref(), image, &others)?;
        Ok(Self {
            engine,
            input,
            layout,
            lay,
            classes: Arc::new(classes),
            resampler: Resampler::default(),
            values: Vec::new(),
            pixels: Vec::new(),
            objectness: scores.objectness,
            nms_iou: scores.nms_iou,
            boxes: manifest.limits.boxes,
        })
    }

    /// What is wanted of a picture, and how the picture lies in the model's image.
    fn look(
        &mut self,
        (rgb, size): (&[u8], Size),
        wanted: Wanted<'_>,
    ) -> Result<(Vec<Candidate>, Placement), GroundError> {
        let mut values = std::mem::take(&mut self.values);
        let placement = self.lay.prepare(rgb, size, &mut self.resampler, &mut values)?;
        let image = self.lay.image();
        let shape = vec![1, 3, image.height as usize, image.width as usize];
        let pixels = Tensor { shape, data: Data::F32(values) };
        let mut feeds = vec![(self.input.as_str(), &pixels)];
        feeds.extend(self.layout.feeds().iter().map(|(name, tensor)| (*name, tensor)));
        let mut outputs = self.engine.run(&feeds)?;
        self.values = pixels.into_f32().unwrap_or_default();
        let mut found = Vec::new();
        let read = self.layout.read(&mut outputs, wanted, &mut found);
        read.map_err(|reason| EngineError::Run { file: self.engine.file().to_owned(), reason })?;
        Ok((found, placement))
    }

    fn look_for(&mut self, picture: (&[u8], Size), wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let asked = |want: &Want<'_>| self.classes.asked(want.text).map_err(|reason| GroundError::Text { reason });
        let asked = wants.iter().map(asked).collect::<Result<Vec<_>, _>>()?;
        let mut least = vec![f32::INFINITY; self.classes.len()];
        for (classes, want) in asked.iter().zip(wants) {
            for class in classes {
                least[*class] = least[*class].min(want.least);
            }
        }
        let (found, placement) = self.look(picture, Wanted::Classes(&least))?;
        let mut picks = Vec::with_capacity(wants.len());
        for (classes, want) in asked.iter().zip(wants) {
            // Each query on its own, so that what another one asks for takes no place of the most.
            let own = |c: &&Candidate| classes.contains(&c.class) && c.score >= want.least;
            let best = suppress(found.iter().filter(own).copied().collect(), self.nms_iou, self.boxes);
            let placed = |c: &Candidate| Some(Pick { bbox: self.placed(&placement, c)?, score: c.score });
            picks.push(best.iter().filter_map(placed).collect());
        }
        Ok(picks)
    }

    /// A candidate in pixels of the picture; `None` if it lies in the padding.
    fn placed(&self, placement: &Placement, candidate: &Candidate) -> Option<BBox> {
        let (w, h) = (self.lay.image().width as f32, self.lay.image().height as f32);
        let [x1, y1, x2, y2] = candidate.corners;
        placement.to_picture([x1 / w, y1 / h, x2 / w, y2 / h])
    }
}

impl Finder for Closed {
    fn checker(&self) -> TextCheck {
        let classes = Arc::clone(&self.classes);
        Arc::new(move |text| classes.asked(text).map(drop))
    }

    fn score_kind(&self) -> ScoreKind {
        ScoreKind::Logit
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        let text = self.classes.example().to_owned();
        self.find(picture, &[Want { text: &text, least: 0.0 }]).map(drop)
    }

    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        self.look_for((&picture.data, picture.size), wants)
    }

    fn find_on_canvas(
        &mut self,
        canvas: &Rgb,
        view: &Letterbox,
        wants: &[Want<'_>],
    ) -> Option<Result<Vec<Vec<Pick>>, GroundError>> {
        if !self.lay.keeps(canvas.size) {
            return None;
        }
        let mut pixels = std::mem::take(&mut self.pixels);
        cut(canvas, view, &mut pixels);
        let found = self.look_for((&pixels, view.inner), wants);
        self.pixels = pixels;
        Some(found)
    }
}

impl BoxProposer for Closed {
    fn regions(&mut self, picture: &Rgb) -> Result<Vec<Region>, GroundError> {
        let (found, placement) = self.look((&picture.data, picture.size), Wanted::Things(self.objectness))?;
        let best = suppress(found, self.nms_iou, self.boxes);
        let placed = |c: &Candidate| Some(Region { bbox: self.placed(&placement, c)?, objectness: c.score.min(1.0) });
        Ok(best.iter().filter_map(placed).collect())
    }
}

/// `1 / (1 + e^-x)`.
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
