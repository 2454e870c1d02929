//! The head of a model that grounds what it writes: a picture and an embedding a phrase -> boxes with a score a phrase.
//!
//! | file | inputs | outputs |
//! |---|---|---|
//! | `head_vision`, if there is one | the picture `[1,3,H,W]` | whatever `head` takes of it |
//! | `head` | the picture or that; `phrase_embeds` `[1,G,D]` | `pred_logits` `[1,Q,G]`, and `pred_boxes` `[1,Q,4]` (centre and size in fractions of the image) or `pred_masks` `[1,Q,h,w]` |
//!
//! In two files the picture is looked at once a frame, however many queries are asked. The score of a box is its share of
//! a softmax over all boxes, phrase by phrase; the best of each phrase answers, or all above a threshold, as in
//! `forward_inner_eval` of LLaVA-Grounding's `openseed_model.py`. Where that has only masks, a box is the bounds of what
//! is above 0.

use super::{Open, need, not_numbers, open_role, picture};
use crate::{
    ground::{
        GroundError,
        codec::{Placement, softmax::softmax},
        engine::{Element, Engine, EngineError, Outputs, Port, Tensor},
        manifest::Manifest,
        methods::{
            propose::{self, Candidate, corners},
            regions::Pick,
        },
        vision::{Lay, Resampler},
    },
    types::Rgb,
};

/// The input that is the phrases.
const PHRASES: &str = "phrase_embeds";

/// An opened head.
pub(super) struct Head {
    /// What looks at the picture, where that is a file of its own.
    eye: Option<Box<dyn Engine>>,
    graph: Box<dyn Engine>,
    /// The name of the input that is the picture, of `eye` or of `graph`.
    pixels: String,
    lay: Lay,
    resampler: Resampler,
    /// Most boxes of a phrase.
    most: usize,
    masks: bool,
    nms_iou: f32,
}

/// A picture as the head takes it.
pub(super) struct Shown {
    feeds: Vec<(String, Tensor)>,
    placement: Placement,
}

impl Head {
    /// Opens the files of `manifest`; phrases are told by `width` numbers each.
    pub(super) fn open(manifest: &Manifest, width: usize, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let rules = need(manifest, "grounding", manifest.grounding.as_ref())?;
        let lay = picture::rounded(manifest)?;
        let graph = open_role(manifest, "head", open)?;
        let eye = manifest.files.iter().any(|file| file.role == "head_vision");
        let eye = if eye { Some(open_role(manifest, "head_vision", open)?) } else { None };
        let pixels = match &eye {
            Some(eye) => picture::port(eye.as_ref(), lay.image(), &[])?,
            None => picture::port(graph.as_ref(), lay.image(), &[PHRASES])?,
        };
        check(graph.as_ref(), eye.as_deref(), width, rules.masks)?;
        let nms_iou = need(manifest, "scores", manifest.scores.as_ref())?.nms_iou;
        if manifest.input.width != manifest.input.height {
            return Err(GroundError::unfit(manifest, "input.width: should equal the height: pictures are made square"));
        }
        Ok(Self {
            eye,
            graph,
            pixels,
            lay,
            resampler: Resampler::default(),
            most: rules.boxes,
            masks: rules.masks,
            nms_iou,
        })
    }

    /// Looks at a picture.
    pub(super) fn look(&mut self, picture: &Rgb) -> Result<Shown, GroundError> {
        let mut values = Vec::new();
        let placement = self.lay.prepare(&picture.data, picture.size, &mut self.resampler, &mut values)?;
        let image = self.lay.image();
        let shape = vec![1, 3, image.height as usize, image.width as usize];
        let pixels = Tensor::f32s(&shape, values);
        let feeds = match &mut self.eye {
            None => vec![(self.pixels.clone(), pixels)],
            Some(eye) => {
                let mut seen = eye.run(&[(&self.pixels, &pixels)])?;
                let names = self.graph.inputs().iter().map(|port| port.name.clone()).filter(|name| name != PHRASES);
                // Every one is among what the file gives: that was checked when it was opened.
                names.filter_map(|name| seen.take(&name).map(|tensor| (name, tensor))).collect()
            }
        };
        Ok(Shown { feeds, placement })
    }

    /// The boxes of some phrases, no box twice: those with at least `least` of a phrase's share, in pixels of the picture.
    pub(super) fn find(&mut self, shown: &Shown, phrases: &[Vec<f32>], least: f32) -> Result<Vec<Pick>, GroundError> {
        let Some(width) = phrases.first().map(Vec::len) else { return Ok(Vec::new()) };
        let embeds = Tensor::f32s(&[1, phrases.len(), width], phrases.concat());
        let mut feeds: Vec<_> = shown.feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        feeds.push((PHRASES, &embeds));
        let outputs = self.graph.run(&feeds)?;
        let chosen = Told::of(outputs, phrases.len(), self.masks).and_then(|told| told.chosen(least, self.most));
        let chosen = chosen.map_err(|reason| self.graph.failed(reason))?;
        Ok(propose::picks(chosen, least, self.nms_iou, &shown.placement))
    }
}

/// Whether the ports go together.
fn check(graph: &dyn Engine, eye: Option<&dyn Engine>, width: usize, masks: bool) -> Result<(), EngineError> {
    let phrases = Port::new(PHRASES, Element::F32, &[Some(1), None, Some(width)]);
    if !graph.inputs().iter().any(|port| port.serves(&phrases)) {
        return Err(graph.wrong_inputs(format!("with {phrases}, as wide as the language model's states")));
    }
    if let Some(eye) = eye {
        let fits = |out: &Port, port: &Port| {
            out.element == port.element || (out.element.is_float() && port.element.is_float())
        };
        let given = |port: &&Port| eye.output(&port.name).is_some_and(|out| fits(out, port));
        if let Some(port) = graph.inputs().iter().filter(|port| port.name != PHRASES).find(|port| !given(port)) {
            let found = format!("{port}, which {} does not give", eye.file().display());
            let expected = format!("{PHRASES} and outputs of the file with role = \"head_vision\"");
            return Err(graph.wrong_ports("inputs", expected, found));
        }
    }
    let place = if masks { "pred_masks" } else { "pred_boxes" };
    let has = |name: &str| graph.output(name).is_some_and(|port| port.element.is_float());
    if !has("pred_logits") || !has(place) {
        return Err(graph.wrong_outputs(format!("with f32 pred_logits and {place}")));
    }
    Ok(())
}

/// What the graph told.
#[derive(Debug)]
struct Told {
    /// A row a box, a logit a phrase.
    logits: Vec<f32>,
    phrases: usize,
    /// Four numbers a box, or a mask each.
    places: Vec<f32>,
    /// Height and width of a mask, where there are masks.
    mask: Option<(usize, usize)>,
}

impl Told {
    fn of(mut outputs: Outputs, phrases: usize, masks: bool) -> Result<Self, String> {
        let wrong = |name: &str, want: &str, tensor: Option<&Tensor>| {
            format!("its output `{name}` should be f32{want} and is of shape {:?}", tensor.map(|t| &t.shape))
        };
        let logits = outputs.take("pred_logits");
        let count = match logits.as_ref().map(|t| t.shape.as_slice()) {
            Some(&[1, count, width]) if width == phrases => count,
            _ => return Err(wrong("pred_logits", &format!("[1, boxes, {phrases}]"), logits.as_ref())),
        };
        let name = if masks { "pred_masks" } else { "pred_boxes" };
        let places = outputs.take(name);
        let mask = match places.as_ref().map(|t| t.shape.as_slice()) {
            Some(&[1, have, 4]) if have == count && !masks => None,
            Some(&[1, have, height, width]) if have == count && masks && height * width > 0 => Some((height, width)),
            _ => {
                let want = if masks { format!("[1, {count}, height, width]") } else { format!("[1, {count}, 4]") };
                return Err(wrong(name, &want, places.as_ref()));
            }
        };
        let floats = |tensor: Option<Tensor>| tensor.and_then(Tensor::into_f32).ok_or("its outputs should be f32");
        Ok(Self { logits: floats(logits)?, phrases, places: floats(places)?, mask })
    }

    /// Each phrase's boxes, the best `most` of those with at least `least` of its share. A box that several phrases choose
    /// is one, with the largest of their shares.
    fn chosen(&self, least: f32, most: usize) -> Result<Vec<Candidate>, String> {
        let mut best: Vec<(usize, f32)> = Vec::new();
        for phrase in 0..self.phrases {
            let logits: Vec<f32> = self.logits.iter().skip(phrase).step_by(self.phrases).copied().collect();
            let shares = softmax(&logits).ok_or_else(|| not_numbers("pred_logits"))?;
            let mut shares: Vec<(usize, f32)> =
                shares.into_iter().enumerate().filter(|(_, share)| *share >= least).collect();
            shares.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (at, share) in shares.into_iter().take(most) {
                match best.iter_mut().find(|(known, _)| *known == at) {
                    Some((_, known)) => *known = known.max(share),
                    None => best.push((at, share)),
                }
            }
        }
        Ok(best
            .into_iter()
            .filter_map(|(at, score)| Some(Candidate { corners: self.corners(at)?, class: 0, score }))
            .collect())
    }

    /// Corners of a box, in fractions of the image; `None` if its mask is empty.
    fn corners(&self, at: usize) -> Option<[f32; 4]> {
        let Some((height, width)) = self.mask else {
            return self.places.as_chunks().0.get(at).copied().map(corners);
        };
        bounds(self.places.chunks_exact(height * width).nth(at)?, width)
    }
}

/// What is above 0 in a mask of rows of `width`, in fractions of it: the outer edges of its outermost pixels.
fn bounds(mask: &[f32], width: usize) -> Option<[f32; 4]> {
    let height = mask.len() / width;
    let set = mask.iter().enumerate().filter(|(_, v)| **v > 0.0).map(|(at, _)| (at % width, at / width));
    let (x1, y1, x2, y2) = set.fold(None, |found: Option<(usize, usize, usize, usize)>, (x, y)| {
        Some(found.map_or((x, y, x, y), |(x1, y1, x2, y2)| (x1.min(x), y1.min(y), x2.max(x), y2.max(y))))
    })?;
    let (w, h) = (width as f32, height as f32);
    Some([x1 as f32 / w, y1 as f32 / h, (x2 + 1) as f32 / w, (y2 + 1) as f32 / h])
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exact by construction")]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn outputs(logits: (&[usize], &[f32]), name: &str, places: (&[usize], &[f32])) -> Outputs {
        let tensor = |(shape, data): (&[usize], &[f32])| Tensor::f32s(shape, data.to_vec());
        Outputs::new(vec![(Arc::from("pred_logits"), tensor(logits)), (Arc::from(name), tensor(places))])
    }

    const BOXES: [f32; 12] = [0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.5, 0.5, 0.75, 0.25, 0.25, 0.5];

    #[test]
    fn each_phrase_chooses_its_own_and_a_box_is_there_once() {
        // Three boxes, two phrases: both like the first best, the second phrase the last almost as much.
        let logits = [9.0, 5.0, 0.0, 0.0, 1.0, 4.9];
        let told = Told::of(outputs((&[1, 3, 2], &logits), "pred_boxes", (&[1, 3, 4], &BOXES)), 2, false).unwrap();
        let best = told.chosen(0.0, 1).unwrap();
        assert_eq!(best.iter().map(|c| c.corners).collect::<Vec<_>>(), [[0.25, 0.25, 0.75, 0.75]]);
        assert!(best[0].score > 0.99);
        let all = told.chosen(0.2, 9).unwrap();
        assert_eq!(all.iter().map(|c| c.corners[0]).collect::<Vec<_>>(), [0.25, 0.625]);
        assert!((all[1].score - 1.0 / (1.0 + 0.1f32.exp() + (-4.9f32).exp())).abs() < 1e-6);
        assert_eq!(told.chosen(1.1, 9).unwrap(), []);
    }

    #[test]
    fn masks_become_the_bounds_of_what_is_above_zero() {
        let mut mask = vec![-1.0; 12];
        assert_eq!(bounds(&mask, 4), None);
        (mask[1], mask[6], mask[11]) = (0.5, 0.1, 0.0);
        assert_eq!(bounds(&mask, 4), Some([0.25, 0.0, 0.75, 2.0 / 3.0]));
        let masks: Vec<f32> = [mask, vec![1.0; 12]].concat();
        let told = outputs((&[1, 2, 1], &[0.0, 3.0]), "pred_masks", (&[1, 2, 3, 4], &masks));
        let got = Told::of(told, 1, true).unwrap().chosen(0.0, 9).unwrap();
        assert_eq!(got[0].corners, [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(got[1].corners, [0.25, 0.0, 0.75, 2.0 / 3.0]);
    }

    #[test]
    fn what_is_of_another_shape_or_no_number_is_said() {
        let bad = |logits: (&[usize], &[f32]), name, places: (&[usize], &[f32])| {
            Told::of(outputs(logits, name, places), 2, false).unwrap_err()
        };
        assert!(bad((&[1, 3, 1], &[0.0; 3]), "pred_boxes", (&[1, 3, 4], &BOXES)).contains("[1, boxes, 2]"));
        assert!(bad((&[1, 3, 2], &[0.0; 6]), "pred_boxes", (&[1, 2, 4], &BOXES[..8])).contains("[1, 3, 4]"));
        assert!(bad((&[1, 3, 2], &[0.0; 6]), "boxes", (&[1, 3, 4], &BOXES)).contains("None"));
        for logit in [f32::NAN, f32::INFINITY] {
            let told = outputs((&[1, 3, 2], &[0.0, logit, 0.0, 0.0, 0.0, 0.0]), "pred_boxes", (&[1, 3, 4], &BOXES));
            assert!(Told::of(told, 2, false).unwrap().chosen(0.0, 1).unwrap_err().contains("not numbers"));
        }
    }
}
