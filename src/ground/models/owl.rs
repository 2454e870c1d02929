//! `OWLv2`: every patch of the picture is a box, with a score for every query.
//!
//! One graph, as published: `pixel_values` `[1,3,S,S]`, `input_ids`, `attention_mask` `[queries,16]` -> `logits`
//! `[1,P,queries]`, `pred_boxes` `[1,P,4]` (centre and size, in fractions of the padded square). Queries do not see one
//! another; all of a frame share a pass. The reference gives each box to its best query only
//! (`post_process_object_detection` in `image_processing_owlv2.py`); here a box answers every query it fits.

use std::sync::Arc;

use super::{Open, need, numbers, open_role, picture, reader::Reader, sigmoid};
use crate::{
    ground::{
        GroundError,
        engine::{Element, Engine, EngineError, Port, Tensor},
        manifest::{Fit, Manifest},
        methods::{
            find::{Finder, Want},
            propose::{self, Candidate, corners},
            regions::Pick,
            retrieve::TextCheck,
        },
        vision::{Normalise, owl},
    },
    types::{Rgb, ScoreKind},
};

/// The family's name in manifests.
pub const FAMILY: &str = "owlv2";

/// Most queries in one pass.
const MAX_QUERIES: usize = 64;

/// An opened model.
pub struct Owl {
    graph: Box<dyn Engine>,
    reader: Arc<Reader>,
    side: u32,
    nms_iou: f32,
}

impl Owl {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let input = &manifest.input;
        if input.fit != Fit::Square || input.width != input.height {
            let reason = format!("input: {FAMILY} needs fit = \"square\", and a width that equals the height");
            return Err(GroundError::unfit(manifest, reason));
        }
        picture::published(manifest, Normalise::CLIP)?;
        if manifest.text.as_ref().is_some_and(|text| text.pad.is_none()) {
            return Err(GroundError::unfit(
                manifest,
                format!("text.pad: {FAMILY} needs it, for its queries are of one length"),
            ));
        }
        let reader = Reader::load(manifest)?;
        let graph = open_role(manifest, "model", open)?;
        let (side, length) = (Some(input.width as usize), Some(reader.length()));
        check(graph.as_ref(), side, length)?;
        let scores = need(manifest, "scores", manifest.scores.as_ref())?;
        Ok(Self { graph, reader: Arc::new(reader), side: input.width, nms_iou: scores.nms_iou })
    }

    /// Corners in fractions of the padded square and a score for every pair of a query and a box, query by query.
    fn run(&mut self, pixels: &Tensor, wants: &[Want<'_>]) -> Result<Vec<Vec<Candidate>>, GroundError> {
        let read = |want: &Want<'_>| self.reader.query(want.text).map_err(|reason| GroundError::Text { reason });
        let read = wants.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let (count, length) = (wants.len(), self.reader.length());
        let ids = read.iter().flat_map(|text| text.ids.iter().copied()).collect();
        let mask = read.iter().flat_map(|text| (0..length).map(|at| i64::from(at < text.count))).collect();
        let ids = Tensor::i64s(&[count, length], ids);
        let mask = Tensor::i64s(&[count, length], mask);
        let feeds = [("pixel_values", pixels), ("input_ids", &ids), ("attention_mask", &mask)];
        let feeds: Vec<_> = feeds.into_iter().filter(|(name, _)| self.graph.input(name).is_some()).collect();
        let mut outputs = self.graph.run(&feeds)?;
        let told = outputs.take("logits").zip(outputs.take("pred_boxes"));
        let patches = told.as_ref().map_or(0, |(logits, _)| logits.shape.get(1).copied().unwrap_or_default());
        let told = told.filter(|(logits, boxes)| logits.shape == [1, patches, count] && boxes.shape == [1, patches, 4]);
        let told = told.and_then(|(logits, boxes)| logits.into_f32().zip(boxes.into_f32()));
        let failed = |reason| self.graph.failed(reason);
        let shape = || failed(format!("its outputs should be logits f32[1, P, {count}] and pred_boxes f32[1, P, 4]"));
        let (logits, boxes) = told.ok_or_else(shape)?;
        numbers("logits", &logits).map_err(failed)?;
        let candidate = |query: usize, row: &[f32], place: &[f32; 4]| Candidate {
            corners: corners(*place),
            class: 0,
            score: sigmoid(row[query]),
        };
        let rows = || logits.chunks_exact(count).zip(boxes.as_chunks().0);
        Ok((0..count).map(|query| rows().map(|(row, place)| candidate(query, row, place)).collect()).collect())
    }
}

fn check(graph: &dyn Engine, side: Option<usize>, length: Option<usize>) -> Result<(), EngineError> {
    let fits = |port: &Port| match port.name.as_str() {
        "pixel_values" => port.element.is_float() && port.shape.len() == 4 && port.ends_in(&[side, side]),
        "input_ids" | "attention_mask" => port.element == Element::I64 && port.has_shape(&[None, length]),
        _ => false,
    };
    let has = |name: &str| graph.input(name).is_some();
    if graph.inputs().iter().all(fits) && has("pixel_values") && has("input_ids") {
        return Ok(());
    }
    let (side, length) = (side.unwrap_or_default(), length.unwrap_or_default());
    let expected = format!("pixel_values f32[1,3,{side},{side}], input_ids and attention_mask i64[?,{length}]");
    Err(graph.wrong_inputs(expected))
}

impl Finder for Owl {
    fn checker(&self) -> TextCheck {
        self.reader.checker()
    }

    fn score_kind(&self) -> ScoreKind {
        ScoreKind::Logit
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        self.find(picture, &[Want { text: "person", least: 0.0 }]).map(drop)
    }

    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let (pixels, placement) = owl::prepare(&picture.data, picture.size, self.side)?;
        let side = self.side as usize;
        let pixels = Tensor::f32s(&[1, 3, side, side], pixels);
        let mut picks = Vec::with_capacity(wants.len());
        for wants in wants.chunks(MAX_QUERIES) {
            for (candidates, want) in self.run(&pixels, wants)?.into_iter().zip(wants) {
                picks.push(propose::picks(candidates, want.least, self.nms_iou, &placement));
            }
        }
        Ok(picks)
    }
}
