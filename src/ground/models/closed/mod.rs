//! Detectors with classes of their own, as people have them: YOLOX, `NanoDet`, `PicoDet` and `FastestDet`, RT-DETR,
//! D-FINE, RF-DETR, Deformable DETR.
//!
//! Such a model answers the queries that name its classes, and offers regions to models that rank them by words; one
//! whose only class is every thing, as UPN's, is made for the latter. What
//! its numbers mean is in the manifest (`[input]`, `[head]`); how a family lays them out is a [`Layout`].

use std::sync::Arc;

use super::{Open, need, open_role, picture};
use crate::{
    ground::{
        GroundError,
        codec::Placement,
        engine::{Engine, Outputs, Port, Tensor},
        manifest::Manifest,
        methods::{
            find::{Finder, Look, Want},
            propose::{BoxProposer, Candidate, Region, suppress},
            regions::Pick,
            retrieve::TextCheck,
        },
        vision::Resampler,
    },
    types::{BBox, Rgb, ScoreKind, Size, chain},
};

mod cells;
mod classes;
mod queries;
mod sight;

use classes::Classes;
use sight::Sight;

/// The families' names in manifests.
pub const FAMILIES: [&str; 8] = [YOLOX, "nanodet", "picodet", "fastestdet", "rt-detr", "d-fine", "rf-detr", SHORTEST];

/// The family whose graphs may take pictures of any size.
pub const YOLOX: &str = "yolox";

/// The family whose pictures keep their shape beside a mask.
const SHORTEST: &str = "deformable-detr";

/// What is wanted of a pass.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    /// Boxes of these classes: the least score of each, infinite for those nobody asked for.
    Classes(&'a [f32]),
    /// Whatever holds a thing, with at least this objectness.
    Things(f32),
}

/// A picture as the model takes it.
struct Prepared {
    pixels: Tensor,
    /// Which pixels are the picture's, where the graph wants to know.
    mask: Option<Tensor>,
    placement: Placement,
}

/// How a family's tensors are laid out.
trait Layout: Send {
    /// Inputs beside the picture.
    fn feeds(&self) -> &[(&'static str, Tensor)] {
        &[]
    }

    /// Adds what is wanted to `found`, in pixels of the model's image, which was of this size; things are all of class 0. Fails
    /// if the tensors are not of this layout.
    fn read(
        &self,
        outputs: &mut Outputs,
        image: Size,
        wanted: Wanted<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), String>;

    /// What the sides of an image have to be multiples of, where it need not be of one size.
    fn step(&self) -> Option<u32> {
        None
    }
}

/// An opened detector.
pub struct Closed {
    engine: Box<dyn Engine>,
    /// The input that is the picture.
    input: String,
    layout: Box<dyn Layout>,
    sight: Sight,
    classes: Arc<Classes>,
    resampler: Resampler,
    /// Pictures' tensors, and a picture from a canvas; kept, so that a pass allocates nothing large.
    values: Vec<Vec<f32>>,
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
        let classes = Classes::of(head, &manifest.name).map_err(|reason| GroundError::unfit(manifest, reason))?;
        let engine = open_role(manifest, "detector", open)?;
        let sight = Sight::of(manifest, engine.as_ref())?;
        let (image, count) = (sight.image(), classes.len());
        let layout: Result<Box<dyn Layout>, _> = match manifest.family.as_str() {
            YOLOX => cells::Yolox::of(head, image, count, engine.as_ref()).map(|l| Box::new(l) as _),
            "nanodet" | "picodet" => {
                cells::Distances::of(head, image, count, engine.as_ref()).map(|l| Box::new(l) as _)
            }
            "fastestdet" => cells::Fastest::of(head, image, count, engine.as_ref()).map(|l| Box::new(l) as _),
            _ => queries::Queries::of(image, count, engine.as_ref()).map(|l| Box::new(l) as _),
        };
        let layout = layout.map_err(|reason| GroundError::unfit(manifest, reason))?;
        let mut others: Vec<_> = layout.feeds().iter().map(|(name, _)| *name).collect();
        others.extend(sight.masked().then_some(sight::MASK));
        let input = picture::port(engine.as_ref(), image, &others)?;
        let mut closed = Self {
            engine,
            input,
            layout,
            sight,
            classes: Arc::new(classes),
            resampler: Resampler::default(),
            values: Vec::new(),
            pixels: Vec::new(),
            objectness: scores.objectness,
            nms_iou: scores.nms_iou,
            boxes: manifest.limits.boxes,
        };
        if let (true, Some(step)) = (manifest.input.rect, closed.layout.step()) {
            closed.leave_border_out(step)?;
        }
        Ok(closed)
    }

    /// Lets images end soon after their pictures, at a multiple of `step`, if the graph takes such.
    fn leave_border_out(&mut self, step: u32) -> Result<(), GroundError> {
        let whole = self.sight.image();
        // First of all, for by the first picture the engine decides how many threads one gets: as if it had the border.
        self.look_at_black(whole)?;
        let takes_any = |port: &Port| port.name == self.input && port.shape[2..].iter().all(Option::is_none);
        if !self.engine.inputs().iter().any(takes_any) {
            tracing::info!(
                "input.rect: {} takes pictures of one size: they keep their border",
                self.engine.file().display()
            );
            return Ok(());
        }
        self.sight.end_after(Some(step));
        let slim = [Size::new(whole.width, 1), Size::new(1, whole.height)];
        if let Err(error) = slim.into_iter().try_for_each(|size| self.look_at_black(size)) {
            tracing::warn!("input.rect: pictures keep their border, for the graph needs it: {}", chain(&error));
            self.sight.end_after(None);
        }
        Ok(())
    }

    /// Looks at a picture of nothing, to see whether the graph can.
    fn look_at_black(&mut self, size: Size) -> Result<(), GroundError> {
        let prepared = self.prepare(&vec![0; size.area() * 3], size)?;
        self.run(vec![prepared])?.into_iter().try_for_each(|seen| self.read(seen, Wanted::Things(1.0)).map(drop))
    }

    /// Size of the image in which a picture of this size is seen.
    pub fn image_of(&self, picture: Size) -> Size {
        self.sight.image_of(picture)
    }

    /// The tensor of a picture, and how the picture lies in it.
    fn prepare(&mut self, rgb: &[u8], size: Size) -> Result<Prepared, GroundError> {
        let mut values = self.values.pop().unwrap_or_default();
        let (mask, placement) = self.sight.prepare(rgb, size, &mut self.resampler, &mut values)?;
        let Size { width, height } = self.sight.image_around(&placement);
        let shape = vec![1, 3, height as usize, width as usize];
        Ok(Prepared { pixels: Tensor::f32s(&shape, values), mask, placement })
    }

    /// What the model makes of each picture, side by side where the engine can.
    fn run(&mut self, pictures: Vec<Prepared>) -> Result<Vec<(Outputs, Placement)>, GroundError> {
        let mut runs = Vec::with_capacity(pictures.len());
        for picture in &pictures {
            let mut feeds = vec![(self.input.as_str(), &picture.pixels)];
            feeds.extend(picture.mask.iter().map(|mask| (sight::MASK, mask)));
            feeds.extend(self.layout.feeds().iter().map(|(name, tensor)| (*name, tensor)));
            runs.push(feeds);
        }
        let outputs = self.engine.run_each(&runs)?;
        let placements: Vec<_> = pictures.iter().map(|picture| picture.placement).collect();
        self.values.extend(pictures.into_iter().filter_map(|picture| picture.pixels.into_f32()));
        Ok(outputs.into_iter().zip(placements).collect())
    }

    fn read(
        &self,
        (mut outputs, placement): (Outputs, Placement),
        wanted: Wanted<'_>,
    ) -> Result<Vec<Candidate>, GroundError> {
        let mut found = Vec::new();
        let read = self.layout.read(&mut outputs, self.sight.image_around(&placement), wanted, &mut found);
        read.map_err(|reason| self.engine.failed(reason))?;
        Ok(found)
    }

    fn picks(&self, seen: (Outputs, Placement), wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let placement = seen.1;
        let asked = |want: &Want<'_>| self.classes.asked(want.text).map_err(|reason| GroundError::Text { reason });
        let asked = wants.iter().map(asked).collect::<Result<Vec<_>, _>>()?;
        let mut least = vec![f32::INFINITY; self.classes.len()];
        for (classes, want) in asked.iter().zip(wants) {
            for class in classes {
                least[*class] = least[*class].min(want.least);
            }
        }
        let found = self.read(seen, Wanted::Classes(&least))?;
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
        let Size { width, height } = self.sight.image_around(placement);
        let (w, h) = (width as f32, height as f32);
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
        let prepared = self.prepare(&picture.data, picture.size)?;
        let mut seen = self.run(vec![prepared])?;
        seen.pop().map_or(Ok(vec![]), |seen| self.picks(seen, wants))
    }

    fn find_on_canvases(&mut self, looks: &[Look<'_>]) -> Result<Vec<Option<Vec<Vec<Pick>>>>, GroundError> {
        let mut pixels = std::mem::take(&mut self.pixels);
        let mut prepared = Vec::with_capacity(looks.len());
        for look in looks {
            if self.sight.keeps(look.canvas.size) {
                look.canvas.cut_into(look.view, &mut pixels);
                prepared.push(self.prepare(&pixels, look.view.inner)?);
            }
        }
        self.pixels = pixels;
        let mut seen = self.run(prepared)?.into_iter();
        let mut found = Vec::with_capacity(looks.len());
        for look in looks {
            let own = if self.sight.keeps(look.canvas.size) { seen.next() } else { None };
            found.push(own.map(|seen| self.picks(seen, look.wants)).transpose()?);
        }
        Ok(found)
    }

    fn at_once(&self) -> usize {
        self.engine.lanes()
    }
}

impl BoxProposer for Closed {
    fn regions(&mut self, picture: &Rgb) -> Result<Vec<Region>, GroundError> {
        let prepared = self.prepare(&picture.data, picture.size)?;
        let Some(seen) = self.run(vec![prepared])?.pop() else { return Ok(vec![]) };
        let placement = seen.1;
        let found = self.read(seen, Wanted::Things(self.objectness))?;
        let best = suppress(found, self.nms_iou, self.boxes);
        let placed = |c: &Candidate| Some(Region { bbox: self.placed(&placement, c)?, objectness: c.score.min(1.0) });
        Ok(best.iter().filter_map(placed).collect())
    }
}
