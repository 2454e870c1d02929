//! Detectors with a fixed number of queries, each a box with a logit a class: RT-DETR, D-FINE, RF-DETR,
//! Deformable DETR and proposers of its shape, as UPN.
//!
//! | export | inputs | outputs |
//! |---|---|---|
//! | transformers | `pixel_values`, Deformable DETR also `pixel_mask` | `logits` `[1,Q,C]`, `pred_boxes` `[1,Q,4]` |
//! | RF-DETR's own | `input` | `labels` `[1,Q,C]`, `dets` `[1,Q,4]` |
//! | Deformable DETR's own, UPN | a picture | `pred_logits` `[1,Q,C]`, `pred_boxes` `[1,Q,4]` |
//! | RT-DETR's and D-FINE's own | `images`, `orig_target_sizes` i64 `[1,2]` | `labels` i64 `[1,K]`, `boxes` `[1,K,4]`, `scores` `[1,K]` |
//!
//! Boxes of all but the last are centre and size in fractions of the image, or of what a mask leaves of it; of all pairs of query and class the best `Q`
//! count, with the sigmoid of the logit as score (`post_process_object_detection` of `image_processing_rt_detr.py`;
//! `PostProcess` in `rfdetr/models/lwdetr.py`). The last has done this itself, and tells corners in pixels of a size it
//! is given. No detector of these suppresses anything: leave `scores.nms_iou` at 1.
//! UPN's regions, which have one class, are thinned at 0.8 (`inference_wrapper.py` of VLM-FO1).

use super::{Layout, Wanted};
use crate::{
    ground::{
        engine::{Data, Engine, Outputs, Tensor, listed},
        methods::propose::{Candidate, corners},
        models::{numbers, sigmoid},
    },
    types::Size,
};

/// Names of logits and boxes.
const NAMES: [(&str, &str); 3] = [("logits", "pred_boxes"), ("pred_logits", "pred_boxes"), ("labels", "dets")];

pub(super) struct Queries {
    image: Size,
    classes: usize,
    /// Names of logits and boxes; `None` is boxes that are chosen already.
    names: Option<(&'static str, &'static str)>,
    feeds: Vec<(&'static str, Tensor)>,
}

impl Queries {
    pub(super) fn of(image: Size, classes: usize, engine: &dyn Engine) -> Result<Self, String> {
        let has = |name: &str| engine.output(name).is_some();
        let names = NAMES.into_iter().find(|(logits, boxes)| has(logits) && has(boxes));
        if names.is_none() && !["labels", "boxes", "scores"].iter().all(|name| has(name)) {
            return Err(format!(
                "its outputs should be logits (or pred_logits) and pred_boxes, or labels and dets, or labels, boxes and scores; they are {}",
                listed(engine.outputs())
            ));
        }
        let size = vec![image.width.into(), image.height.into()];
        let feeds = match names {
            None => vec![("orig_target_sizes", Tensor::i64s(&[1, 2], size))],
            Some(_) => vec![],
        };
        Ok(Self { image, classes, names, feeds })
    }

    /// The best pairs of query and class, as many as there are queries, and each query's box.
    fn ranked(&self, outputs: &mut Outputs, logits: &str, boxes: &str) -> Result<Vec<Candidate>, String> {
        let classes = self.classes;
        let told = outputs.take(logits).filter(|t| matches!(t.shape.as_slice(), [1, _, width] if *width == classes));
        let told = told.and_then(Tensor::into_f32);
        let told =
            told.ok_or_else(|| format!("its output `{logits}` should be f32[1, queries, {classes}], one a class"))?;
        numbers(logits, &told)?;
        let count = told.len() / classes;
        let places = outputs.take(boxes).filter(|t| t.shape == [1, count, 4]).and_then(Tensor::into_f32);
        let places = places.ok_or_else(|| format!("its output `{boxes}` should be f32[1, {count}, 4]"))?;
        let (w, h) = (self.image.width as f32, self.image.height as f32);
        let mut order: Vec<usize> = (0..told.len()).filter(|at| told[*at].is_finite()).collect();
        order.sort_by(|a, b| told[*b].total_cmp(&told[*a]));
        order.truncate(count);
        let candidate = |at: usize| {
            let (query, class) = (at / classes * 4, at % classes);
            let place = [places[query] * w, places[query + 1] * h, places[query + 2] * w, places[query + 3] * h];
            Candidate { corners: corners(place), class, score: sigmoid(told[at]) }
        };
        Ok(order.into_iter().map(candidate).collect())
    }

    fn chosen(&self, outputs: &mut Outputs) -> Result<Vec<Candidate>, String> {
        let wrong = "its outputs should be labels i64[1, K], boxes f32[1, K, 4] and scores f32[1, K]";
        let Some(Data::I64(labels)) = outputs.take("labels").map(|t| t.data) else { return Err(wrong.to_owned()) };
        let mut floats = |name: &str| outputs.take(name).and_then(Tensor::into_f32).ok_or_else(|| wrong.to_owned());
        let (boxes, scores) = (floats("boxes")?, floats("scores")?);
        if boxes.len() != labels.len() * 4 || scores.len() != labels.len() {
            return Err(wrong.to_owned());
        }
        numbers("scores", &scores)?;
        let known = labels.iter().map(|label| usize::try_from(*label).ok().filter(|class| *class < self.classes));
        let all = known.zip(boxes.as_chunks().0).zip(scores);
        Ok(all
            .filter_map(|((class, corners), score)| Some(Candidate { corners: *corners, class: class?, score }))
            .collect())
    }
}

impl Layout for Queries {
    fn feeds(&self) -> &[(&'static str, Tensor)] {
        &self.feeds
    }

    fn read(
        &self,
        outputs: &mut Outputs,
        _: Size,
        wanted: Wanted<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), String> {
        let all = match self.names {
            Some((logits, boxes)) => self.ranked(outputs, logits, boxes)?,
            None => self.chosen(outputs)?,
        };
        match wanted {
            Wanted::Classes(least) => found.extend(all.into_iter().filter(|c| c.score >= least[c.class])),
            Wanted::Things(least) => {
                // A query that fits several classes is one thing.
                let mut seen: Vec<[f32; 4]> = Vec::new();
                for candidate in all.into_iter().filter(|c| c.score >= least) {
                    if !seen.contains(&candidate.corners) {
                        seen.push(candidate.corners);
                        found.push(Candidate { class: 0, ..candidate });
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(layout: &Queries, outputs: Vec<(&str, Vec<usize>, Data)>) -> Result<Vec<f32>, String> {
        let outputs = outputs.into_iter().map(|(name, shape, data)| (name.into(), Tensor { shape, data }));
        let mut found = Vec::new();
        layout.read(&mut Outputs::new(outputs.collect()), layout.image, Wanted::Classes(&[0.1, 0.1]), &mut found)?;
        Ok(found.iter().map(|candidate| candidate.score).collect())
    }

    #[test]
    fn scores_that_are_no_numbers_are_no_miss() {
        let image = Size::new(8, 8);
        let raw = Queries { image, classes: 2, names: Some(NAMES[0]), feeds: vec![] };
        let logits = |last: f32| {
            let boxes = ("pred_boxes", vec![1, 2, 4], Data::F32(vec![0.5; 8]));
            read(&raw, vec![("logits", vec![1, 2, 2], Data::F32(vec![0.0, -9.0, f32::NEG_INFINITY, last])), boxes])
        };
        assert_eq!(logits(-9.0), Ok(vec![0.5]));
        let chosen = Queries { image, classes: 2, names: None, feeds: vec![] };
        let scores = |last: f32| {
            let labels = ("labels", vec![1, 2], Data::I64(vec![0, 1]));
            let boxes = ("boxes", vec![1, 2, 4], Data::F32(vec![0.5; 8]));
            read(&chosen, vec![labels, boxes, ("scores", vec![1, 2], Data::F32(vec![0.5, last]))])
        };
        assert_eq!(scores(0.0), Ok(vec![0.5]));
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(logits(bad), Err(crate::ground::models::not_numbers("logits")));
            assert_eq!(scores(bad), Err(crate::ground::models::not_numbers("scores")));
        }
    }
}
