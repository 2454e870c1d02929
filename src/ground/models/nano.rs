//! The nano family: small graphs that share one look at the picture.
//!
//! `B` frames, `P` pairs of a frame and a query, every first axis free:
//!
//! - `vision`: `pixels` u8 `[B,H,W,3]` -> `boxes` f32 `[B,K,4]` (fractions of the canvas), `objectness` f32 `[B,K]`,
//!   `regions` f32 `[B,K,D]`; for `detector` also `cells` f32 `[B,C,N]` and `places` f32 `[B,4,N]`, what is known of
//!   each cell of the maps and the box it would have
//! - `text`: `ids` i64 `[Q,L]` -> `text` f32 `[Q,L,D]`
//! - `select`: `regions`, `boxes`, `objectness`, `text`, `ids` -> `match` f32 `[P,K]`, a probability a region; for `zoom`
//!   also `none` f32 `[P]`, the probability that nothing is meant; for `coords` and `bins` also `states` f32 `[P,K,D]`, the
//!   regions after they met the words
//! - `detect`: `cells`, `places`, `text`, `ids` -> `boxes` f32 `[P,M,4]`, `scores` f32 `[P,M]`, the best cells
//! - `write`: see [`write`]
//!
//! The manifest's methods say which files and outputs there have to be.

use std::{collections::HashMap, fs, sync::Arc};

use super::{Open, numbers, open_role, unfit, words::Words};
use crate::{
    ground::{
        GroundError, Keep,
        codec::{
            RawBox,
            nano::{Answers, Form},
        },
        engine::{self, Data, Element, Engine, EngineError, Outputs, Port, Tensor},
        manifest::Manifest,
        methods::{
            retrieve::{Pair, Proposals, Proposer, Selection, Selector, TextCheck},
            together::{AllRound, Cells},
        },
    },
    types::{Method, Rgb, Size},
};

mod keep;
mod texts;
mod write;

use texts::{Text, Texts};
use write::Write;

/// The family's name in manifests.
pub const FAMILY: &str = "nano";

/// The methods it can do, if its files can.
const METHODS: [Method; 5] = [Method::Retrieve, Method::Detector, Method::Coords, Method::Bins, Method::Zoom];

/// Pairs in one run. Attention over all regions makes a pair cost about a megabyte; larger runs are not faster.
const MAX_PAIRS: usize = 16;

/// An opened nano model.
pub struct Nano {
    vision: Box<dyn Engine>,
    text: Box<dyn Engine>,
    select: Box<dyn Engine>,
    detect: Option<Detect>,
    write: Option<Write>,
    words: Arc<Words>,
    texts: Texts,
    methods: Vec<Method>,
    sizes: Sizes,
    /// The batch of canvases; kept, so that frames are copied into memory that is already there.
    pixels: Tensor,
}

/// The numbers all graphs share.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    canvas: Size,
    regions: usize,
    tokens: usize,
    width: usize,
}

/// The graph of `detector`.
struct Detect {
    graph: Box<dyn Engine>,
    /// Numbers a cell has.
    channels: usize,
    /// Cells on a canvas.
    cells: usize,
    /// Cells that come back.
    each: usize,
}

/// What is carried from the pixels to the words.
#[derive(Debug)]
pub struct Seen {
    regions: Vec<f32>,
    /// Empty unless the model can do `detector`; so are the places.
    cells: Vec<f32>,
    places: Vec<f32>,
}

impl Nano {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        if let Some(method) = manifest.methods.iter().find(|m| !METHODS.contains(m)) {
            let can: Vec<_> = METHODS.iter().map(|m| m.name()).collect();
            let reason = format!("methods: the family {FAMILY} cannot do `{method}`; it can do: {}", can.join(", "));
            return Err(unfit(manifest, reason));
        }
        let does = |some: &[Method]| some.iter().any(|method| manifest.methods.contains(method));
        let [vision, text, select] = ["vision", "text", "select"].map(|role| open_role(manifest, role, open));
        let (vision, text, select) = (vision?, text?, select?);
        let (regions, tokens) = (manifest.limits.regions, manifest.limits.query_tokens);
        let sizes = Sizes { canvas: manifest.canvas(), regions, tokens, width: width(vision.as_ref()) };
        check(vision.as_ref(), text.as_ref(), select.as_ref(), sizes)?;
        let detect = if does(&[Method::Detector]) {
            Some(Detect::open(vision.as_ref(), open_role(manifest, "detect", open)?, sizes)?)
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
        let (height, across) = (sizes.canvas.height as usize, sizes.canvas.width as usize);
        Ok(Self {
            vision,
            text,
            select,
            detect,
            write,
            words: Arc::new(Words::load(&vocabulary, &manifest.name, tokens, &manifest.tokens.one)?),
            texts: Texts::default(),
            methods: manifest.methods.clone(),
            sizes,
            pixels: Tensor { shape: vec![0, height, across, 3], data: Data::U8(vec![]) },
        })
    }

    /// Asks one word of a black picture, by every method: what would fail on the first frame fails now, and the first
    /// frame is not the slow one.
    pub fn warm_up(&mut self) -> Result<(), GroundError> {
        let word = self.words.example().to_owned();
        let canvas = self.sizes.canvas;
        let black = Rgb { size: canvas, data: vec![0; canvas.area() * 3].into() };
        let proposals = self.propose(&[&black])?;
        let pairs = [Pair { canvas: 0, text: &word }];
        let selection = self.select(&proposals, &pairs)?;
        if self.detect.is_some() {
            self.detect(&proposals, &pairs)?;
        }
        if self.write.is_some() {
            self.write(&selection, &[(0, Form::Coords), (0, Form::Bins)])?;
        }
        Ok(())
    }

    /// The encoded text; computed once as long as it is in use.
    fn encoded(&mut self, text: &str) -> Result<Arc<Text>, GroundError> {
        if let Some(known) = self.texts.get(text) {
            return Ok(known);
        }
        let failed = |reason| GroundError::from(EngineError::Run { file: self.text.file().to_owned(), reason });
        let ids = self.words.encode(text).map_err(failed)?;
        let Sizes { tokens, width, .. } = self.sizes;
        // Alone in its run, so that its numbers do not depend on which queries came with it.
        let input = Tensor { shape: vec![1, tokens], data: Data::I64(ids.clone()) };
        let shape = [1, tokens, width];
        let [features] = engine::run_f32(self.text.as_mut(), &[("ids", &input)], [("text", &shape)])?;
        let encoded = Arc::new(Text { ids, features });
        self.texts.put(text, &encoded);
        Ok(encoded)
    }

    /// The words of some pairs, as graphs take them: `text` and `ids`.
    fn said(&mut self, pairs: &[Pair<'_>]) -> Result<(Tensor, Tensor), GroundError> {
        let texts = pairs.iter().map(|pair| self.encoded(pair.text)).collect::<Result<Vec<_>, _>>()?;
        let Sizes { tokens, width, .. } = self.sizes;
        let features = texts.iter().flat_map(|text| &text.features).copied().collect();
        let ids = texts.iter().flat_map(|text| &text.ids).copied().collect();
        let ids = Tensor { shape: vec![pairs.len(), tokens], data: Data::I64(ids) };
        Ok((f32s(&[pairs.len(), tokens, width], features), ids))
    }

    fn select_some(
        &mut self,
        proposals: &Proposals<Seen>,
        pairs: &[Pair<'_>],
        selection: &mut Selection<Vec<f32>>,
    ) -> Result<(), GroundError> {
        let Sizes { regions: k, width: d, .. } = self.sizes;
        let p = pairs.len();
        let (text, ids) = self.said(pairs)?;
        let inputs = [
            ("regions", &f32s(&[p, k, d], rows(&proposals.features.regions, k * d, pairs))),
            ("boxes", &f32s(&[p, k, 4], rows(proposals.boxes.as_flattened(), k * 4, pairs))),
            ("objectness", &f32s(&[p, k], rows(&proposals.objectness, k, pairs))),
            ("text", &text),
            ("ids", &ids),
        ];
        let mut outputs = self.select.run(&inputs)?;
        let mut take = |name: &str, shape: &[usize]| take(self.select.as_ref(), &mut outputs, name, shape);
        selection.scores.extend(sound(self.select.as_ref(), "match", take("match", &[p, k])?)?);
        selection.none.extend(sound(self.select.as_ref(), "none", take("none", &[p])?)?);
        if self.write.is_some() {
            selection.states.extend(take("states", &[p, k, d])?);
        }
        Ok(())
    }
}

impl Detect {
    fn open(vision: &dyn Engine, graph: Box<dyn Engine>, sizes: Sizes) -> Result<Self, GroundError> {
        let axis = |ports: &[Port], name: &str, at: usize| {
            let port = ports.iter().find(|port| port.name == name);
            port.and_then(|port| port.shape.get(at).copied().flatten()).ok_or_else(|| EngineError::Ports {
                file: graph.file().to_owned(),
                what: "ports",
                expected: format!("{name} with an axis {at} of fixed length"),
                found: port.map_or("nothing of that name".to_owned(), ToString::to_string),
            })
        };
        let (channels, cells) = (axis(graph.inputs(), "cells", 1)?, axis(graph.inputs(), "cells", 2)?);
        let each = axis(graph.outputs(), "scores", 1)?;
        let port = |name, shape: [Option<usize>; 3]| Port::new(name, Element::F32, &shape);
        let looked = [port("cells", [None, Some(channels), Some(cells)]), port("places", [None, Some(4), Some(cells)])];
        needs(vision, &looked)?;
        let [words, ids] = said(sizes);
        let [cell, place] = looked;
        let given =
            [port("boxes", [None, Some(each), Some(4)]), Port::new("scores", Element::F32, &[None, Some(each)])];
        engine::check_ports(graph.as_ref(), &[cell, place, words, ids], &given)?;
        Ok(Self { graph, channels, cells, each })
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

/// The width of a feature comes from `vision`; 0 where it does not say.
fn width(vision: &dyn Engine) -> usize {
    let declared = vision.outputs().iter().find(|p| p.name == "regions").and_then(|p| p.shape.last().copied());
    declared.flatten().unwrap_or_default()
}

/// Words as graphs take them.
fn said(Sizes { tokens, width, .. }: Sizes) -> [Port; 2] {
    let words = Port::new("text", Element::F32, &[None, Some(tokens), Some(width)]);
    [words, Port::new("ids", Element::I64, &[None, Some(tokens)])]
}

/// Checks the graphs that every method needs against the manifest's numbers and one another.
fn check(vision: &dyn Engine, text: &dyn Engine, select: &dyn Engine, sizes: Sizes) -> Result<(), EngineError> {
    let Sizes { canvas, regions, width, .. } = sizes;
    let (height, across) = (Some(canvas.height as usize), Some(canvas.width as usize));
    let (k, d) = (Some(regions), Some(width));
    let f32s = |name, shape: &[Option<usize>]| Port::new(name, Element::F32, shape);
    let (boxes, objectness) = (f32s("boxes", &[None, k, Some(4)]), f32s("objectness", &[None, k]));
    let region = f32s("regions", &[None, k, d]);
    let pixels = Port::new("pixels", Element::U8, &[None, height, across, Some(3)]);
    engine::check_ports(vision, &[pixels], &[boxes.clone(), objectness.clone(), region.clone()])?;
    if width == 0 {
        let (expected, found) = ("regions of a fixed width".to_owned(), "of a free one".to_owned());
        return Err(EngineError::Ports { file: vision.file().to_owned(), what: "outputs", expected, found });
    }
    let [words, ids] = said(sizes);
    engine::check_ports(text, std::slice::from_ref(&ids), std::slice::from_ref(&words))?;
    let matched = [f32s("match", &[None, k]), f32s("none", &[None])];
    engine::check_ports(select, &[region, boxes, objectness, words, ids], &matched)
}

/// Checks that a graph gives something that only some methods need.
fn needs(graph: &dyn Engine, wanted: &[Port]) -> Result<(), EngineError> {
    engine::check_ports(graph, graph.inputs(), wanted)
}

fn f32s(shape: &[usize], data: Vec<f32>) -> Tensor {
    Tensor { shape: shape.to_vec(), data: Data::F32(data) }
}

/// The rows of each pair's canvas, one after the other.
fn rows(all: &[f32], each: usize, pairs: &[Pair<'_>]) -> Vec<f32> {
    pairs.iter().flat_map(|pair| &all[pair.canvas * each..(pair.canvas + 1) * each]).copied().collect()
}

/// Takes one output of a known shape.
fn take(graph: &dyn Engine, outputs: &mut Outputs, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
    let found = outputs.take(name).filter(|tensor| tensor.shape == shape).and_then(Tensor::into_f32);
    found.ok_or_else(|| {
        let reason = format!("it gave no `{name}` of f32{shape:?}");
        EngineError::Run { file: graph.file().to_owned(), reason }
    })
}

/// Scores that are numbers. By others nothing would be found, and it would be said that nothing is there.
fn sound(graph: &dyn Engine, name: &str, scores: Vec<f32>) -> Result<Vec<f32>, EngineError> {
    let checked = numbers(name, &scores);
    checked.map(|()| scores).map_err(|reason| EngineError::Run { file: graph.file().to_owned(), reason })
}

impl Proposer for Nano {
    type Features = Seen;

    fn propose(&mut self, canvases: &[&Rgb]) -> Result<Proposals<Seen>, GroundError> {
        // Single pictures are looked at where they are, side by side where the engine can.
        if canvases.len() == 1 || self.vision.lanes() > 1 {
            let shape = [vec![1], self.pixels.shape[1..].to_vec()].concat();
            let shown = |canvas: &&Rgb| Tensor { shape: shape.clone(), data: Data::Shared(Arc::clone(&canvas.data)) };
            let shown: Vec<_> = canvases.iter().map(shown).collect();
            let runs: Vec<_> = shown.iter().map(|pixels| vec![("pixels", pixels)]).collect();
            let seen = self.vision.run_each(&runs)?.into_iter().map(|outputs| self.proposals(outputs, 1));
            return Ok(joined(seen.collect::<Result<Vec<_>, _>>()?));
        }
        self.pixels.shape[0] = canvases.len();
        if let Data::U8(bytes) = &mut self.pixels.data {
            bytes.clear();
            for canvas in canvases {
                bytes.extend_from_slice(&canvas.data);
            }
        }
        let outputs = self.vision.run(&[("pixels", &self.pixels)])?;
        self.proposals(outputs, canvases.len())
    }
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
    /// What `vision` says of `b` canvases.
    fn proposals(&self, mut outputs: Outputs, b: usize) -> Result<Proposals<Seen>, GroundError> {
        let Sizes { regions: k, width: d, .. } = self.sizes;
        let mut take = |name: &str, shape: &[usize]| take(self.vision.as_ref(), &mut outputs, name, shape);
        let boxes = take("boxes", &[b, k, 4])?;
        let objectness = sound(self.vision.as_ref(), "objectness", take("objectness", &[b, k])?)?;
        let regions = take("regions", &[b, k, d])?;
        let (cells, places) = match &self.detect {
            Some(Detect { channels, cells, .. }) => {
                (take("cells", &[b, *channels, *cells])?, take("places", &[b, 4, *cells])?)
            }
            None => (Vec::new(), Vec::new()),
        };
        let (boxes, _) = boxes.as_chunks();
        Ok(Proposals { each: k, boxes: boxes.to_vec(), objectness, features: Seen { regions, cells, places } })
    }
}

impl Selector for Nano {
    type States = Vec<f32>;

    fn checker(&self) -> TextCheck {
        let words = Arc::clone(&self.words);
        Arc::new(move |text| words.encode(text).map(drop))
    }

    fn means_one(&self, text: &str) -> bool {
        self.words.means_one(text)
    }

    fn select(&mut self, proposals: &Proposals<Seen>, pairs: &[Pair<'_>]) -> Result<Selection<Vec<f32>>, GroundError> {
        let mut selection = Selection { scores: Vec::new(), none: Vec::new(), states: Vec::new() };
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

    fn detect(&mut self, proposals: &Proposals<Seen>, pairs: &[Pair<'_>]) -> Result<Cells, GroundError> {
        let each = self.detect.as_ref().map_or(0, |detect| detect.each);
        let mut found = Cells { each, boxes: Vec::new(), scores: Vec::new() };
        for some in pairs.chunks(MAX_PAIRS) {
            let (text, ids) = self.said(some)?;
            let Some(Detect { graph, channels, cells, .. }) = &mut self.detect else {
                return Err(self.cannot(Method::Detector));
            };
            let p = some.len();
            let inputs = [
                ("cells", &f32s(&[p, *channels, *cells], rows(&proposals.features.cells, *channels * *cells, some))),
                ("places", &f32s(&[p, 4, *cells], rows(&proposals.features.places, 4 * *cells, some))),
                ("text", &text),
                ("ids", &ids),
            ];
            let wanted: [(&str, &[usize]); 2] = [("boxes", &[p, each, 4]), ("scores", &[p, each])];
            let [boxes, scores] = engine::run_f32(graph.as_mut(), &inputs, wanted)?;
            found.boxes.extend(boxes.as_chunks().0);
            found.scores.extend(sound(graph.as_ref(), "scores", scores)?);
        }
        Ok(found)
    }

    fn write(
        &mut self,
        selection: &Selection<Vec<f32>>,
        pairs: &[(usize, Form)],
    ) -> Result<Vec<Vec<RawBox>>, GroundError> {
        let Sizes { regions: k, width: d, .. } = self.sizes;
        let mut found = Vec::with_capacity(pairs.len());
        for some in pairs.chunks(MAX_PAIRS) {
            let Some(write) = &mut self.write else { return Err(self.cannot(Method::Coords)) };
            let of = |all: &[f32], each: usize| -> Vec<f32> {
                some.iter().flat_map(|(at, _)| &all[at * each..(at + 1) * each]).copied().collect()
            };
            let forms: Vec<_> = some.iter().map(|(_, form)| *form).collect();
            found.extend(write.run(of(&selection.states, k * d), of(&selection.scores, k), &forms)?);
        }
        Ok(found)
    }
}

impl Nano {
    /// The router asks only for what the manifest names.
    fn cannot(&self, method: Method) -> GroundError {
        let can: Vec<_> = self.methods.iter().map(|m| m.name()).collect();
        let reason = format!("`{method}` was asked of a model that can do: {}", can.join(", "));
        EngineError::Run { file: self.vision.file().to_owned(), reason }.into()
    }
}
