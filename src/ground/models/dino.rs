//! Grounding DINO: boxes with a score for every token of a text.
//!
//! One graph, as published: `pixel_values` `[1,3,H,W]`, `pixel_mask` `[1,H,W]`, `input_ids`, `token_type_ids`,
//! `attention_mask` `[1,T]` -> `logits` `[1,Q,T or more]`, `pred_boxes` `[1,Q,4]` (centre and size, in fractions of the
//! part that the mask covers, of the whole canvas where a graph takes no mask). All queries of a frame share a text, and so a pass, as far as they fit; what a text says
//! reaches the picture's features inside the model, so that the score of one phrase may change in the last digits, or a
//! little more, with its neighbours. `text.alone` in the manifest asks each by itself.

use std::sync::Arc;

use super::{
    Open, need, numbers, open_role,
    phrases::{self, Marks, Phrases},
    picture,
    reader::{Ids, Reader},
    sigmoid,
};
use crate::{
    ground::{
        GroundError,
        engine::{Element, Engine, EngineError, Port, Tensor},
        manifest::Manifest,
        methods::{
            find::{Finder, Want},
            propose::{self, Candidate, corners},
            regions::Pick,
            retrieve::TextCheck,
        },
        vision::{Resampler, dino},
    },
    types::{Rgb, ScoreKind, Size},
};

/// The family's name in manifests.
pub const FAMILY: &str = "grounding-dino";

/// The graph's inputs; a graph may lack some.
const INPUTS: [&str; 5] = ["pixel_values", "pixel_mask", "input_ids", "token_type_ids", "attention_mask"];

/// An opened model.
pub struct Dino {
    graph: Box<dyn Engine>,
    reader: Arc<Reader>,
    marks: Marks,
    /// Most phrases in one text.
    each: usize,
    canvas: Size,
    limits: (u32, u32),
    resampler: Resampler,
    nms_iou: f32,
}

impl Dino {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let input = &manifest.input;
        let limits = picture::shortest(manifest)?;
        let reader = Reader::load(manifest)?;
        let tokens = &manifest.tokens;
        let part = reader.words(".").ok().and_then(|ids| if let [id] = ids[..] { Some(id) } else { None });
        let marks = Marks {
            begin: need(manifest, "tokens.begin", tokens.begin)?.into(),
            part: part
                .ok_or_else(|| GroundError::unfit(manifest, "tokens.vocabulary: has no token for a full stop"))?,
            end: need(manifest, "tokens.end", tokens.end.first().copied())?.into(),
        };
        let graph = open_role(manifest, "model", open)?;
        inputs(graph.as_ref(), Size::new(input.width, input.height))?;
        let scores = need(manifest, "scores", manifest.scores.as_ref())?;
        let each = if manifest.text.as_ref().is_some_and(|text| text.alone) { 1 } else { usize::MAX };
        Ok(Self {
            graph,
            reader: Arc::new(reader),
            marks,
            each,
            canvas: Size::new(input.width, input.height),
            limits,
            resampler: Resampler::default(),
            nms_iou: scores.nms_iou,
        })
    }

    /// The text that asks for some queries at once; several if one does not hold them.
    fn texts(&self, wants: &[Want<'_>]) -> Result<Vec<(Phrases, std::ops::Range<usize>)>, GroundError> {
        let phrase = |want: &Want<'_>| phrase(&self.reader, want.text).map_err(|reason| GroundError::Text { reason });
        let phrases = wants.iter().map(phrase).collect::<Result<Vec<_>, _>>()?;
        Ok(phrases::texts(&phrases, self.marks, self.reader.length(), self.each))
    }

    fn run(&mut self, shown: &dino::Prepared, text: &Phrases) -> Result<Told, EngineError> {
        let (height, width) = (self.canvas.height as usize, self.canvas.width as usize);
        let pixels = Tensor::f32s(&[1, 3, height, width], shown.pixels.clone());
        let mask = Tensor::i64s(&[1, height, width], shown.mask.clone());
        let count = text.ids.len();
        let [ids, all] = Ids { ids: text.ids.clone(), count }.tensors();
        let types = Tensor::i64s(&[1, count], vec![0; count]);
        let feeds = INPUTS.into_iter().zip([&pixels, &mask, &ids, &types, &all]);
        let feeds: Vec<_> = feeds.filter(|(name, _)| self.graph.input(name).is_some()).collect();
        let mut outputs = self.graph.run(&feeds)?;
        let (logits, boxes) = (outputs.take("logits"), outputs.take("pred_boxes"));
        Told::of(logits, boxes, count).map_err(|reason| self.graph.failed(reason))
    }
}

/// A query's tokens: what stands between two separators.
fn phrase(reader: &Reader, text: &str) -> Result<Vec<i64>, String> {
    // These two part phrases inside the graph.
    let text = text.replace(['.', '?'], " ");
    let words = reader.words(&text)?;
    let (count, most) = (words.len(), reader.length().saturating_sub(3));
    if count > most {
        return Err(format!("the text has {count} tokens; {} takes at most {most}: shorten it", reader.model()));
    }
    Ok(words)
}

/// What the graph told.
struct Told {
    /// A row a box, a logit a token.
    logits: Vec<f32>,
    width: usize,
    /// Centre and size of each box.
    boxes: Vec<f32>,
}

impl Told {
    fn of(logits: Option<Tensor>, boxes: Option<Tensor>, tokens: usize) -> Result<Self, String> {
        let wrong = || format!("its outputs should be logits f32[1, Q, {tokens} or more] and pred_boxes f32[1, Q, 4]");
        let (logits, boxes) = logits.zip(boxes).ok_or_else(wrong)?;
        let &[1, count, width] = logits.shape.as_slice() else { return Err(wrong()) };
        if width < tokens || boxes.shape != [1, count, 4] {
            return Err(wrong());
        }
        let (logits, boxes) = logits.into_f32().zip(boxes.into_f32()).ok_or_else(wrong)?;
        Ok(Self { logits, width, boxes })
    }

    /// Every box with its score for a phrase, corners in fractions.
    fn scored(&self, span: &std::ops::Range<usize>) -> Result<Vec<Candidate>, String> {
        let rows: Vec<&[f32]> = self.logits.chunks_exact(self.width).map(|row| &row[span.clone()]).collect();
        numbers("logits", rows.iter().copied().flatten())?;
        let candidate = |(row, place): (&[f32], &[f32; 4])| {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            Candidate { corners: corners(*place), class: 0, score: sigmoid(best) }
        };
        Ok(rows.into_iter().zip(self.boxes.as_chunks().0).map(candidate).collect())
    }
}

fn inputs(graph: &dyn Engine, canvas: Size) -> Result<(), EngineError> {
    let (height, width) = (canvas.height as usize, canvas.width as usize);
    let fits = |port: &Port| {
        let ends = |axes: usize, sides: &[usize]| {
            port.shape.len() == axes && port.ends_in(&sides.iter().copied().map(Some).collect::<Vec<_>>())
        };
        match port.name.as_str() {
            "pixel_values" => port.element.is_float() && ends(4, &[3, height, width]),
            "pixel_mask" => port.element == Element::I64 && ends(3, &[height, width]),
            name => INPUTS.contains(&name) && port.element == Element::I64 && ends(2, &[]),
        }
    };
    let has = |name: &str| graph.input(name).is_some();
    if graph.inputs().iter().all(fits) && has("pixel_values") && has("input_ids") {
        return Ok(());
    }
    Err(graph.wrong_inputs(format!("pixel_values f32[1,3,{height},{width}] and, in i64, pixel_mask and the text's")))
}

impl Finder for Dino {
    fn checker(&self) -> TextCheck {
        let reader = Arc::clone(&self.reader);
        Arc::new(move |text| phrase(&reader, text).map(drop))
    }

    fn score_kind(&self) -> ScoreKind {
        ScoreKind::Logit
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        self.find(picture, &[Want { text: "person", least: 0.0 }]).map(drop)
    }

    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let shown = dino::prepare(&picture.data, picture.size, self.limits, Some(self.canvas), &mut self.resampler)?;
        // Without a mask the graph takes the border for a part of the picture.
        let masked = self.graph.input("pixel_mask").is_some();
        let placement = if masked { shown.placement } else { shown.unmasked(picture.size) };
        let mut picks = Vec::with_capacity(wants.len());
        for (text, covered) in self.texts(wants)? {
            let told = self.run(&shown, &text)?;
            for (span, want) in text.spans.iter().zip(&wants[covered]) {
                let scored = told.scored(span).map_err(|reason| self.graph.failed(reason))?;
                picks.push(propose::picks(scored, want.least, self.nms_iou, &placement));
            }
        }
        Ok(picks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_without_numbers_is_no_miss() {
        let scored = |logits: [f32; 4]| {
            let told = Told { logits: logits.to_vec(), width: 2, boxes: vec![0.5; 8] };
            told.scored(&(0..1)).map(|all| all.iter().map(|c| c.score).collect::<Vec<_>>())
        };
        // Minus infinity is what stands beyond the end of a text, and what lies outside the phrase is not looked at.
        assert_eq!(scored([0.0, f32::NAN, f32::NEG_INFINITY, f32::NAN]), Ok(vec![0.5, 0.0]));
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(scored([0.0, 0.0, bad, 0.0]), Err(crate::ground::models::not_numbers("logits")));
        }
    }
}
