//! The nano family: small graphs that share one look at the picture.
//!
//! `B` frames, `P` pairs of a frame and a query, both free:
//!
//! - `vision`: `pixels` u8 `[B,H,W,3]` -> `boxes` f32 `[B,K,4]`, `objectness` f32 `[B,K]`, `regions` f32 `[B,K,D]`; for
//!   `detector` also `cells` f32 `[B,C,N]` and `places` f32 `[B,4,N]`, what is known of each cell of the maps and the box it
//!   would have
//! - `text`: `ids` i64 `[Q,L]` -> `text` f32 `[Q,L,D]`
//! - `select`: `regions`, `boxes`, `objectness`, `text`, `ids` -> `match` f32 `[P,K]`, a probability a region; for `zoom`
//!   also `none` f32 `[P]`, the probability that nothing is meant; for `coords` and `bins` also `states` f32 `[P,K,D]`, the
//!   regions after they met the words
//! - `detect`: `cells`, `places`, `text`, `ids` -> `boxes` f32 `[P,M,4]`, `scores` f32 `[P,M]`, the best cells
//! - `write`: see [`write`]
//!
//! Boxes and places are in fractions of the model's frame ([`look::OnFrame`]), which the usual canvas fills. Where the model takes
//! canvases of several shapes, `H`, `W` and `N` are free.
//!
//! The manifest's methods say which files and outputs there have to be.

use std::{collections::HashMap, fs, sync::Arc};

use super::{Open, open_role, recent::Recent, words::Words};
use crate::{
    ground::{
        GroundError, Keep as _,
        codec::{
            RawBox,
            nano::{Answers, Form},
        },
        engine::{self, Data, Element, Engine, Outputs, Port, Tensor},
        manifest::Manifest,
        methods::{
            retrieve::{Pair, Proposals, Proposer, Selection, Selector, TextCheck},
            together::{self, AllRound},
        },
    },
    types::{Canvases, Method, Rgb, Size},
};

mod detect;
mod look;
mod ports;
mod write;

use detect::Detect;
pub use look::Seen;
use look::{Grid, Looked, OnFrame};
use ports::{check, found, needs, sound, take, width};
use write::Write;

/// The family's name in manifests.
pub const FAMILY: &str = "nano";

/// The methods it can do, if its files can.
const METHODS: [Method; 5] = [Method::Retrieve, Method::Detector, Method::Coords, Method::Bins, Method::Zoom];

/// Pairs in one run. Attention over all regions makes a pair cost about a megabyte; larger runs are not faster.
const MAX_PAIRS: usize = 16;

/// Encoded texts that are kept: queries are few and long-lived, and changing ones through MQTT must not grow memory.
const MAX_TEXTS: usize = 256;

/// An opened nano model.
pub struct Nano {
    vision: Box<dyn Engine>,
    text: Box<dyn Engine>,
    select: Box<dyn Engine>,
    detect: Option<Detect>,
    write: Option<Write>,
    words: Arc<Words>,
    texts: Recent<String, Arc<Text>>,
    methods: Vec<Method>,
    sizes: Sizes,
    /// A batch of canvases; kept, so that frames are copied into memory that is already there.
    pixels: Vec<u8>,
}

/// The numbers all graphs share.
#[derive(Debug)]
struct Sizes {
    canvases: Canvases,
    /// What boxes are told to the words in fractions of; see [`OnFrame`].
    frame: Size,
    regions: usize,
    tokens: usize,
    width: usize,
}

/// A query text as the graphs take it.
#[derive(Debug)]
struct Text {
    ids: Vec<i64>,
    features: Vec<f32>,
}

/// What is known of some regions once the words were read.
#[derive(Debug)]
pub struct Met {
    regions: Vec<f32>,
    /// Where the canvas of each pair lies.
    places: Vec<OnFrame>,
}

impl Nano {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        if let Some(method) = manifest.methods.iter().find(|m| !METHODS.contains(m)) {
            let can: Vec<_> = METHODS.iter().map(|m| m.name()).collect();
            let reason = format!("methods: the family {FAMILY} cannot do `{method}`; it can do: {}", can.join(", "));
            return Err(GroundError::unfit(manifest, reason));
        }
        let does = |some: &[Method]| some.iter().any(|method| manifest.methods.contains(method));
        let [vision, text, select] = ["vision", "text", "select"].map(|role| open_role(manifest, role, open));
        let (vision, text, select) = (vision?, text?, select?);
        let (regions, tokens) = (manifest.limits.regions, manifest.limits.query_tokens);
        let (canvases, frame) = (manifest.canvases(), manifest.canvas());
        let sizes = Sizes { canvases, frame, regions, tokens, width: width(vision.as_ref()) };
        check(vision.as_ref(), text.as_ref(), select.as_ref(), &sizes)?;
        let detect = if does(&[Method::Detector]) {
            Some(Detect::open(vision.as_ref(), open_role(manifest, "detect", open)?, &sizes)?)
        } else {
            None
        };
        let write = if does(&[Method::Coords, Method::Bins]) {
            let states = Port::new("states", Element::F32, &[None, Some(regions), Some(sizes.width)]);
            needs(select.as_ref(), &[states])?;
            let boxes = manifest.limits.boxes;
            Some(Write::open(open_role(manifest, "write", open)?, answers(manifest)?, regions, sizes.width, boxes)?)
        } else {
            None
        };
        let vocabulary = manifest.dir.join(&manifest.tokens.vocabulary);
        Ok(Self {
            vision,
            text,
            select,
            detect,
            write,
            words: Arc::new(Words::load(&vocabulary, &manifest.name, tokens, &manifest.tokens.one)?),
            texts: Recent::new(MAX_TEXTS),
            methods: manifest.methods.clone(),
            sizes,
            pixels: Vec::new(),
        })
    }

    /// Asks one word of a black picture, by every method: what would fail on the first frame fails now, and the first frame is
    /// not the slow one. Unless others have done so before, it looks at one on `each` canvas.
    pub fn warm_up(&mut self, each: bool) -> Result<(), GroundError> {
        let word = self.words.example().to_owned();
        let canvases = self.sizes.canvases.clone();
        for size in canvases.iter().take(if each { usize::MAX } else { 1 }) {
            let black = Rgb { size, data: vec![0; size.area() * 3].into() };
            let proposals = self.propose(&[&black])?;
            let pairs = [Pair { canvas: 0, text: &word }];
            if self.detect.is_some() {
                self.detect(&proposals, &pairs)?;
            }
            if size != canvases.usual() {
                continue;
            }
            let selection = self.select(&proposals, &pairs)?;
            if self.write.is_some() {
                self.write(&selection, &[(0, Form::Coords), (0, Form::Bins)])?;
            }
        }
        Ok(())
    }

    /// The encoded text; computed once as long as it is in use.
    fn encoded(&mut self, text: &str) -> Result<Arc<Text>, GroundError> {
        if let Some(known) = self.texts.get(text) {
            return Ok(known);
        }
        let failed = |reason| self.text.failed(reason);
        let ids = self.words.encode(text).map_err(failed)?;
        let Sizes { tokens, width, .. } = self.sizes;
        // Alone in its run, so that its numbers do not depend on which queries came with it.
        let input = Tensor::i64s(&[1, tokens], ids.clone());
        let shape = [1, tokens, width];
        let [features] = engine::run_f32(self.text.as_mut(), &[("ids", &input)], [("text", &shape)])?;
        let encoded = Arc::new(Text { ids, features });
        self.texts.put(text.to_owned(), Arc::clone(&encoded));
        Ok(encoded)
    }

    /// The words of some pairs, as graphs take them: `text` and `ids`.
    fn said(&mut self, pairs: &[Pair<'_>]) -> Result<(Tensor, Tensor), GroundError> {
        let texts = pairs.iter().map(|pair| self.encoded(pair.text)).collect::<Result<Vec<_>, _>>()?;
        let Sizes { tokens, width, .. } = self.sizes;
        let features = texts.iter().flat_map(|text| &text.features).copied().collect();
        let ids = texts.iter().flat_map(|text| &text.ids).copied().collect();
        let ids = Tensor::i64s(&[pairs.len(), tokens], ids);
        Ok((Tensor::f32s(&[pairs.len(), tokens, width], features), ids))
    }

    fn select_some(
        &mut self,
        proposals: &Proposals<Seen>,
        pairs: &[Pair<'_>],
        selection: &mut Selection<Met>,
    ) -> Result<(), GroundError> {
        let Sizes { regions: k, width: d, .. } = self.sizes;
        let p = pairs.len();
        let (text, ids) = self.said(pairs)?;
        let places: Vec<_> = pairs.iter().map(|pair| proposals.features.canvases[pair.canvas].place).collect();
        let on_frame = |(pair, place): (&Pair<'_>, &OnFrame)| {
            let boxes = &proposals.boxes[pair.canvas * k..(pair.canvas + 1) * k];
            boxes.iter().flat_map(|corners| place.to_frame(*corners)).collect::<Vec<_>>()
        };
        let boxes = pairs.iter().zip(&places).flat_map(on_frame).collect();
        let inputs = [
            ("regions", &Tensor::f32s(&[p, k, d], rows(&proposals.features.regions, k * d, pairs))),
            ("boxes", &Tensor::f32s(&[p, k, 4], boxes)),
            ("objectness", &Tensor::f32s(&[p, k], rows(&proposals.objectness, k, pairs))),
            ("text", &text),
            ("ids", &ids),
        ];
        let mut outputs = self.select.run(&inputs)?;
        let mut take = |name: &str, shape: &[usize]| take(self.select.as_ref(), &mut outputs, name, shape);
        selection.scores.extend(sound(self.select.as_ref(), "match", take("match", &[p, k])?)?);
        selection.none.extend(sound(self.select.as_ref(), "none", take("none", &[p])?)?);
        if self.write.is_some() {
            selection.states.regions.extend(take("states", &[p, k, d])?);
        }
        selection.states.places.extend(places);
        Ok(())
    }
}

/// The answer tokens: in a file of their own, or beside the words.
fn answers(manifest: &Manifest) -> Result<Answers, GroundError> {
    let file = manifest.file("answers").unwrap_or_else(|| manifest.dir.join(&manifest.tokens.vocabulary));
    let bad = |reason: String| GroundError::Vocabulary { file: file.clone(), reason };
    let text = fs::read_to_string(&file).map_err(|e| bad(e.to_string()))?;
    let ids: HashMap<String, i64> = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    Answers::new(&ids).map_err(bad)
}

/// The rows of each pair's canvas, one after the other.
fn rows(all: &[f32], each: usize, pairs: &[Pair<'_>]) -> Vec<f32> {
    pairs.iter().flat_map(|pair| &all[pair.canvas * each..(pair.canvas + 1) * each]).copied().collect()
}

impl Proposer for Nano {
    type Features = Seen;

    fn propose(&mut self, canvases: &[&Rgb]) -> Result<Proposals<Seen>, GroundError> {
        // Single pictures are looked at where they are, side by side where the engine can.
        if canvases.len() == 1 || self.vision.lanes() > 1 {
            let shown =
                |canvas: &&Rgb| Tensor { shape: shape(1, canvas.size), data: Data::Shared(Arc::clone(&canvas.data)) };
            let shown: Vec<_> = canvases.iter().map(shown).collect();
            let runs: Vec<_> = shown.iter().map(|pixels| vec![("pixels", pixels)]).collect();
            let seen = self.vision.run_each(&runs)?.into_iter().zip(canvases);
            let seen = seen.map(|(outputs, canvas)| self.proposals(outputs, 1, canvas.size));
            return Ok(joined(seen.collect::<Result<Vec<_>, _>>()?));
        }
        if canvases.iter().all(|canvas| canvas.size == canvases[0].size) {
            return self.look(canvases);
        }
        // Only a CPU is given several sizes; batches are for GPUs.
        let seen = canvases.iter().map(|canvas| self.look(&[canvas]));
        Ok(joined(seen.collect::<Result<Vec<_>, _>>()?))
    }
}

/// The shape of some canvases as `vision` takes them.
fn shape(count: usize, size: Size) -> Vec<usize> {
    vec![count, size.height as usize, size.width as usize, 3]
}

/// What is known of some canvases, one after the other.
fn joined(mut seen: Vec<Proposals<Seen>>) -> Proposals<Seen> {
    if seen.len() == 1 {
        return seen.remove(0);
    }
    let features: Vec<_> = seen.iter().map(|proposals| &proposals.features).collect();
    Proposals {
        each: seen.first().map_or(0, |proposals| proposals.each),
        boxes: seen.iter().flat_map(|proposals| &proposals.boxes).copied().collect(),
        objectness: seen.iter().flat_map(|proposals| &proposals.objectness).copied().collect(),
        features: Seen::join(&features),
    }
}

impl Nano {
    /// Looks at canvases of one size in one run.
    fn look(&mut self, canvases: &[&Rgb]) -> Result<Proposals<Seen>, GroundError> {
        let size = canvases.first().map_or(self.sizes.canvases.usual(), |canvas| canvas.size);
        let mut bytes = std::mem::take(&mut self.pixels);
        bytes.clear();
        for canvas in canvases {
            bytes.extend_from_slice(&canvas.data);
        }
        let pixels = Tensor { shape: shape(canvases.len(), size), data: Data::U8(bytes) };
        let outputs = self.vision.run(&[("pixels", &pixels)]);
        if let Data::U8(bytes) = pixels.data {
            self.pixels = bytes;
        }
        self.proposals(outputs?, canvases.len(), size)
    }

    /// What `vision` says of `b` canvases of one size.
    fn proposals(&self, mut outputs: Outputs, b: usize, size: Size) -> Result<Proposals<Seen>, GroundError> {
        let Sizes { regions: k, width: d, .. } = self.sizes;
        let graph = self.vision.as_ref();
        let boxes = take(graph, &mut outputs, "boxes", &[b, k, 4])?;
        let objectness = sound(graph, "objectness", take(graph, &mut outputs, "objectness", &[b, k])?)?;
        let regions = take(graph, &mut outputs, "regions", &[b, k, d])?;
        let place = OnFrame::new(size, self.sizes.frame);
        let cells = self.cells(&mut outputs, b)?;
        let canvases = cells.into_iter().map(|cells| Looked { place, cells: Arc::new(cells) }).collect();
        let boxes = boxes.as_chunks().0.iter().map(|corners| place.to_canvas(*corners)).collect();
        Ok(Proposals { each: k, boxes, objectness, features: Seen { regions, canvases } })
    }

    /// The cells of `b` canvases.
    fn cells(&self, outputs: &mut Outputs, b: usize) -> Result<Vec<Grid>, GroundError> {
        let Some(detect) = &self.detect else { return Ok((0..b).map(|_| Grid::default()).collect()) };
        let graph = self.vision.as_ref();
        let features = outputs.take("cells").filter(|t| t.shape.len() == 3 && t.shape[..2] == [b, detect.channels]);
        let features = features.filter(|t| detect.cells.is_none_or(|cells| t.shape[2] == cells));
        let n = features.as_ref().map_or(0, |t| t.shape[2]);
        let called = format!("`cells` as {} takes them", detect.graph.file().display());
        let features = found(graph, &called, features.and_then(Tensor::into_f32))?;
        let places = take(graph, outputs, "places", &[b, 4, n])?;
        if b == 1 {
            return Ok(vec![Grid { features, places }]);
        }
        let rows = features.chunks(features.len().div_ceil(b).max(1)).zip(places.chunks((4 * n).max(1)));
        Ok(rows.map(|(f, p)| Grid { features: f.to_vec(), places: p.to_vec() }).collect())
    }
}

impl Selector for Nano {
    type States = Met;

    fn checker(&self) -> TextCheck {
        let words = Arc::clone(&self.words);
        Arc::new(move |text| words.encode(text).map(drop))
    }

    fn means_one(&self, text: &str) -> bool {
        self.words.means_one(text)
    }

    fn select(&mut self, proposals: &Proposals<Seen>, pairs: &[Pair<'_>]) -> Result<Selection<Met>, GroundError> {
        let states = Met { regions: Vec::new(), places: Vec::new() };
        let mut selection = Selection { scores: Vec::new(), none: Vec::new(), states };
        for some in pairs.chunks(MAX_PAIRS) {
            self.select_some(proposals, some, &mut selection)?;
        }
        Ok(selection)
    }
}

impl AllRound for Nano {
    fn tokens(&self) -> u64 {
        self.write.as_ref().map_or(0, Write::written)
    }

    fn detect(&mut self, proposals: &Proposals<Seen>, pairs: &[Pair<'_>]) -> Result<together::Cells, GroundError> {
        let each = self.detect.as_ref().map_or(0, |detect| detect.each);
        let looked = |at: &usize| &proposals.features.canvases[pairs[*at].canvas];
        // Canvases of one size have equally many cells.
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|at| (looked(at).place.size.width, looked(at).place.size.height));
        let mut found =
            together::Cells { each, boxes: vec![[0.0; 4]; pairs.len() * each], scores: vec![0.0; pairs.len() * each] };
        let alike = order.chunk_by(|a, b| looked(a).place.size == looked(b).place.size);
        for some in alike.flat_map(|alike| alike.chunks(MAX_PAIRS)) {
            let (text, ids) = self.said(&some.iter().map(|at| pairs[*at]).collect::<Vec<_>>())?;
            let Some(detect) = &mut self.detect else { return Err(self.cannot(Method::Detector)) };
            let (boxes, scores) = detect.run(&some.iter().map(looked).collect::<Vec<_>>(), (&text, &ids))?;
            let rows = boxes.as_chunks().0.chunks(each.max(1)).zip(scores.chunks(each.max(1)));
            for (at, (boxes, scores)) in some.iter().zip(rows) {
                let (place, own) = (looked(at).place, at * each..(at + 1) * each);
                for (to, corners) in found.boxes[own.clone()].iter_mut().zip(boxes) {
                    *to = place.to_canvas(*corners);
                }
                found.scores[own].copy_from_slice(scores);
            }
        }
        Ok(found)
    }

    fn write(&mut self, selection: &Selection<Met>, pairs: &[(usize, Form)]) -> Result<Vec<Vec<RawBox>>, GroundError> {
        let Sizes { regions: k, width: d, .. } = self.sizes;
        let mut found = Vec::with_capacity(pairs.len());
        for some in pairs.chunks(MAX_PAIRS) {
            let Some(write) = &mut self.write else { return Err(self.cannot(Method::Coords)) };
            let of = |all: &[f32], each: usize| -> Vec<f32> {
                some.iter().flat_map(|(at, _)| &all[at * each..(at + 1) * each]).copied().collect()
            };
            let forms: Vec<_> = some.iter().map(|(_, form)| *form).collect();
            let mut written = write.run(of(&selection.states.regions, k * d), of(&selection.scores, k), &forms)?;
            for ((at, _), boxes) in some.iter().zip(&mut written) {
                let place = selection.states.places[*at];
                for one in boxes {
                    one.fractions = place.to_canvas(one.fractions);
                }
            }
            found.extend(written);
        }
        Ok(found)
    }
}

impl Nano {
    /// The router asks only for what the manifest names.
    fn cannot(&self, method: Method) -> GroundError {
        let can: Vec<_> = self.methods.iter().map(|m| m.name()).collect();
        self.vision.failed(format!("`{method}` was asked of a model that can do: {}", can.join(", "))).into()
    }
}
