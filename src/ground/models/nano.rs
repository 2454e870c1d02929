//! The nano family: three small graphs.
//!
//! - `vision`: `pixels` u8 `[B,H,W,3]` -> `boxes` f32 `[B,K,4]` (fractions of the canvas), `objectness` f32 `[B,K]`,
//!   `regions` f32 `[B,K,D]`
//! - `text`: `ids` i64 `[Q,L]` -> `text` f32 `[Q,L,D]`
//! - `select`: `regions`, `boxes`, `objectness`, `text`, `ids`, one row a pair of frame and query -> `match` f32
//!   `[P,K]`, a probability a region, and `none` f32 `[P]`, which is not read here: a phrase that no region matches
//!   is a declared miss by itself

use std::{collections::HashMap, sync::Arc};

use super::words::Words;
use crate::{
    ground::{
        GroundError,
        engine::{self, Data, Element, Engine, EngineError, Port, Tensor},
        manifest::Manifest,
        methods::retrieve::{Pair, Proposals, Proposer, Selector, TextCheck},
    },
    types::{Method, Rgb, Size},
};

/// The family's name in manifests.
pub const FAMILY: &str = "nano";

/// Pairs in one run of `select`. Attention over all regions makes a pair cost about a megabyte; larger runs are not
/// faster.
const MAX_PAIRS: usize = 16;

/// Encoded texts that are kept. Queries are few and long-lived; changing ones through MQTT must not grow memory.
const MAX_TEXTS: usize = 256;

/// A query text as the graphs take it.
#[derive(Debug)]
struct Text {
    ids: Vec<i64>,
    features: Vec<f32>,
}

/// An opened nano model.
pub struct Nano {
    vision: Box<dyn Engine>,
    text: Box<dyn Engine>,
    select: Box<dyn Engine>,
    words: Arc<Words>,
    texts: Texts,
    canvas: Size,
    regions: usize,
    tokens: usize,
    width: usize,
    /// The batch of canvases; kept, so that frames are copied into memory that is already there.
    pixels: Tensor,
}

impl Nano {
    /// Opens the files of a manifest whose family this is.
    pub fn open(
        manifest: &Manifest,
        mut open: impl FnMut(&std::path::Path) -> Result<Box<dyn Engine>, EngineError>,
    ) -> Result<Self, GroundError> {
        let mut role = |role: &str| match manifest.file(role) {
            Some(file) => Ok(open(&file)?),
            None => Err(GroundError::Unfit {
                manifest: manifest.path(),
                reason: format!("the family {FAMILY} needs exactly one file with role = \"{role}\""),
            }),
        };
        if let Some(method) = manifest.methods.iter().find(|m| **m != Method::Retrieve) {
            let reason = format!("methods: the family {FAMILY} cannot do `{method}`; it can do: retrieve");
            return Err(GroundError::Unfit { manifest: manifest.path(), reason });
        }
        let (vision, text, select) = (role("vision")?, role("text")?, role("select")?);
        let (regions, tokens, canvas) = (manifest.limits.regions, manifest.limits.query_tokens, manifest.canvas());
        let width = check(vision.as_ref(), text.as_ref(), select.as_ref(), canvas, regions, tokens)?;
        let vocabulary = manifest.dir.join(&manifest.tokens.vocabulary);
        Ok(Self {
            vision,
            text,
            select,
            words: Arc::new(Words::load(&vocabulary, &manifest.name, tokens)?),
            texts: Texts::default(),
            canvas,
            regions,
            tokens,
            width,
            pixels: Tensor { shape: vec![0, canvas.height as usize, canvas.width as usize, 3], data: Data::U8(vec![]) },
        })
    }

    /// Asks one word of a black picture: what would fail on the first frame fails now, and the first frame is not the
    /// slow one.
    pub fn warm_up(&mut self) -> Result<(), GroundError> {
        let word = self.words.example().to_owned();
        let black = Rgb { size: self.canvas, data: vec![0; self.canvas.area() * 3].into() };
        let proposals = self.propose(&[&black])?;
        self.select(&proposals, &[Pair { canvas: 0, text: &word }]).map(drop)
    }

    /// The encoded text; computed once as long as it is in use.
    fn encoded(&mut self, text: &str) -> Result<Arc<Text>, GroundError> {
        if let Some(known) = self.texts.get(text) {
            return Ok(known);
        }
        let failed = |reason| GroundError::from(EngineError::Run { file: self.text.file().to_owned(), reason });
        let ids = self.words.encode(text).map_err(failed)?;
        // Alone in its run, so that its numbers do not depend on which queries came with it.
        let input = Tensor { shape: vec![1, self.tokens], data: Data::I64(ids.clone()) };
        let shape = [1, self.tokens, self.width];
        let [features] = engine::run_f32(self.text.as_mut(), &[("ids", &input)], [("text", &shape)])?;
        let encoded = Arc::new(Text { ids, features });
        self.texts.put(text, &encoded);
        Ok(encoded)
    }

    fn select_some(
        &mut self,
        proposals: &Proposals<Vec<f32>>,
        pairs: &[Pair<'_>],
        texts: &[Arc<Text>],
    ) -> Result<Vec<f32>, EngineError> {
        let (p, k, l, d) = (pairs.len(), self.regions, self.tokens, self.width);
        let canvases = || pairs.iter().map(|pair| pair.canvas);
        let f32s = |shape: &[usize], data| Tensor { shape: shape.to_vec(), data: Data::F32(data) };
        let regions = canvases().flat_map(|c| &proposals.features[c * k * d..(c + 1) * k * d]).copied().collect();
        let boxes = canvases().flat_map(|c| proposals.boxes[c * k..(c + 1) * k].as_flattened()).copied().collect();
        let objectness = canvases().flat_map(|c| &proposals.objectness[c * k..(c + 1) * k]).copied().collect();
        let text = texts.iter().flat_map(|t| &t.features).copied().collect();
        let ids = texts.iter().flat_map(|t| &t.ids).copied().collect();
        let inputs = [
            ("regions", &f32s(&[p, k, d], regions)),
            ("boxes", &f32s(&[p, k, 4], boxes)),
            ("objectness", &f32s(&[p, k], objectness)),
            ("text", &f32s(&[p, l, d], text)),
            ("ids", &Tensor { shape: vec![p, l], data: Data::I64(ids) }),
        ];
        let [scores] = engine::run_f32(self.select.as_mut(), &inputs, [("match", &[p, k])])?;
        Ok(scores)
    }
}

/// Checks the graphs against the manifest's numbers and one another; the width of a feature comes from `vision`.
fn check(
    vision: &dyn Engine,
    text: &dyn Engine,
    select: &dyn Engine,
    canvas: Size,
    regions: usize,
    tokens: usize,
) -> Result<usize, EngineError> {
    let declared = vision.outputs().iter().find(|p| p.name == "regions").and_then(|p| p.shape.last().copied());
    let (height, across) = (Some(canvas.height as usize), Some(canvas.width as usize));
    let (k, l, d) = (Some(regions), Some(tokens), declared.flatten());
    let f32s = |name, shape: &[Option<usize>]| Port::new(name, Element::F32, shape);
    let ids = Port::new("ids", Element::I64, &[None, l]);
    let (boxes, objectness) = (f32s("boxes", &[None, k, Some(4)]), f32s("objectness", &[None, k]));
    let (region, words) = (f32s("regions", &[None, k, d]), f32s("text", &[None, l, d]));
    let pixels = Port::new("pixels", Element::U8, &[None, height, across, Some(3)]);
    let proposed = [boxes.clone(), objectness.clone(), region.clone()];
    engine::check_ports(vision, &[pixels], &proposed)?;
    engine::check_ports(text, std::slice::from_ref(&ids), std::slice::from_ref(&words))?;
    let matched = [f32s("match", &[None, k]), f32s("none", &[None])];
    engine::check_ports(select, &[region, boxes, objectness, words, ids], &matched)?;
    d.ok_or_else(|| EngineError::Ports {
        file: vision.file().to_owned(),
        what: "outputs",
        expected: "regions of a fixed width".to_owned(),
        found: "of a free one".to_owned(),
    })
}

impl Proposer for Nano {
    type Features = Vec<f32>;

    fn propose(&mut self, canvases: &[&Rgb]) -> Result<Proposals<Vec<f32>>, GroundError> {
        let (b, k, d) = (canvases.len(), self.regions, self.width);
        self.pixels.shape[0] = b;
        if let Data::U8(bytes) = &mut self.pixels.data {
            bytes.clear();
            for canvas in canvases {
                bytes.extend_from_slice(&canvas.data);
            }
        }
        let wanted: [(&str, &[usize]); 3] = [("boxes", &[b, k, 4]), ("objectness", &[b, k]), ("regions", &[b, k, d])];
        let [boxes, objectness, features] = engine::run_f32(self.vision.as_mut(), &[("pixels", &self.pixels)], wanted)?;
        let (boxes, _) = boxes.as_chunks();
        Ok(Proposals { each: k, boxes: boxes.to_vec(), objectness, features })
    }
}

impl Selector for Nano {
    fn checker(&self) -> TextCheck {
        let words = Arc::clone(&self.words);
        Arc::new(move |text| words.encode(text).map(drop))
    }

    fn select(&mut self, proposals: &Proposals<Vec<f32>>, pairs: &[Pair<'_>]) -> Result<Vec<f32>, GroundError> {
        let mut scores = Vec::with_capacity(pairs.len() * self.regions);
        for some in pairs.chunks(MAX_PAIRS) {
            let texts = some.iter().map(|pair| self.encoded(pair.text)).collect::<Result<Vec<_>, _>>()?;
            scores.extend(self.select_some(proposals, some, &texts)?);
        }
        Ok(scores)
    }
}

/// Encoded texts, at most [`MAX_TEXTS`]: the one that was not asked for longest makes room.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<Arc<str>, (u64, Arc<Text>)>,
    /// Counts look-ups: how long ago is a difference of two of them.
    now: u64,
}

impl Texts {
    fn get(&mut self, text: &str) -> Option<Arc<Text>> {
        self.now += 1;
        let (used, encoded) = self.known.get_mut(text)?;
        *used = self.now;
        Some(Arc::clone(encoded))
    }

    fn put(&mut self, text: &str, encoded: &Arc<Text>) {
        if self.known.len() >= MAX_TEXTS
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (used, _))| *used).map(|(t, _)| Arc::clone(t))
        {
            self.known.remove(&oldest);
        }
        self.known.insert(text.into(), (self.now, Arc::clone(encoded)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_not_asked_for_longest_makes_room() {
        let mut texts = Texts::default();
        let encoded = Arc::new(Text { ids: vec![], features: vec![] });
        for i in 0..=MAX_TEXTS {
            assert!(texts.get(&i.to_string()).is_none());
            texts.put(&i.to_string(), &encoded);
            assert!(texts.get("0").is_some());
        }
        assert_eq!(texts.known.len(), MAX_TEXTS);
        assert!(texts.get("1").is_none() && texts.get("2").is_some());
    }
}
