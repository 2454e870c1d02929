//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL: boxes as text.
//!
//! They share their graphs' ports and the layout of a prompt, and differ in the picture's grid, in what they are asked, in
//! how they write a box and what its numbers count. Windows, rotary angles and learned positions of the vision tower
//! follow from the grid inside the graph; M-RoPE positions are made here.

use std::sync::Arc;

use super::{
    Open,
    decoder::Decoder,
    need, open_role, picture, positions,
    speech::{Manner, Rules, Talk},
    tokens::Vocabulary,
    unfit,
};
use crate::{
    ground::{
        GroundError,
        codec::{
            Codec, RawBox,
            qwen_box::{Dialect, QwenBox},
            qwen_json::{QwenJson, Reasoning, Unit},
        },
        engine::{Data, Engine, EngineError, Tensor},
        manifest::{Coordinates, Manifest, Positions},
        methods::{retrieve::TextCheck, written::Writer},
        vision::{
            Normalise, Resampler, SmartResize, mrope,
            qwen::{MERGE, TEMPORAL, patches},
        },
        zoom::wording::Part,
    },
    types::{Rgb, Size},
};

mod judge;

/// Qwen2-VL's name in manifests.
pub const QWEN2: &str = "qwen2-vl";
/// Qwen2.5-VL's name in manifests.
pub const QWEN2_5: &str = "qwen2.5-vl";
/// Qwen3-VL's name in manifests.
pub const QWEN3: &str = "qwen3-vl";

/// How a family is asked and how it writes a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`.
    Markers,
    /// JSON; `true` counts pixels of the resized picture, `false` thousandths.
    Json(bool),
}

/// The tokens that give a prompt its structure.
#[derive(Debug, Clone, Copy)]
struct Marks {
    image: i64,
    vision: [i64; 2],
    turn: [i64; 2],
}

/// An opened model.
pub struct Qwen {
    vision: Box<dyn Engine>,
    decoder: Decoder,
    vocabulary: Arc<Vocabulary>,
    resize: SmartResize,
    normalise: Normalise,
    resampler: Resampler,
    marks: Marks,
    form: Form,
    /// What stands before the user's turn.
    system: &'static str,
    grid_name: &'static str,
    deepstack: usize,
    rules: Rules,
}

/// A picture as the vision tower sees it: what several queries on one frame share.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `[tokens, hidden]`.
    pub features: Vec<f32>,
    /// `[layers, tokens, hidden]`, where the language model sees the picture again.
    pub deepstack: Vec<f32>,
    /// Height and width in patches.
    pub grid: (u32, u32),
    /// Size of the resized picture.
    pub image: Size,
}

impl Seen {
    fn tokens(&self) -> usize {
        (self.grid.0 / MERGE) as usize * (self.grid.1 / MERGE) as usize
    }
}

/// A prompt's tokens, and where each stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The tokens, with one image token for each token of a picture.
    pub ids: Vec<i64>,
    /// Where they stand.
    pub positions: mrope::Positions,
}

impl Qwen {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let (resize, normalise) = picture::patches(manifest)?;
        let tokens = &manifest.tokens;
        let mark = |key: &str, value: Option<u32>| need(manifest, &format!("tokens.{key}"), value).map(i64::from);
        let marks = Marks {
            image: mark("image", tokens.image)?,
            vision: [mark("vision_start", tokens.vision_start)?, mark("vision_end", tokens.vision_end)?],
            turn: [mark("turn_start", tokens.turn_start)?, mark("turn_end", tokens.turn_end)?],
        };
        positions(manifest, Positions::Mrope)?;
        let decoder = Decoder::open(manifest, open)?;
        let deepstack = decoder.deepstack();
        if let Some(said) = manifest.decoder.as_ref().map(|facts| facts.deepstack).filter(|said| *said != deepstack) {
            let reason = format!("decoder.deepstack: is {said}; the decoder's inputs say {deepstack}");
            return Err(unfit(manifest, reason));
        }
        let vision = open_role(manifest, "vision_encoder", open)?;
        let grid_name = grid_name(vision.as_ref())?;
        Ok(Self {
            vision,
            decoder,
            vocabulary: Arc::new(Vocabulary::load(manifest)?),
            resize,
            normalise,
            resampler: Resampler::default(),
            marks,
            form: form(manifest)?,
            system: if manifest.family == QWEN3 { "" } else { "system\nYou are a helpful assistant." },
            grid_name,
            deepstack,
            rules: Rules::of(manifest),
        })
    }

    /// The tensor `pixel_values` of a picture, its grid in patches, and the size it was resized to.
    pub fn pixels(&mut self, picture: &Rgb) -> Result<(Tensor, [u32; 3], Size), GroundError> {
        let cut = patches(&picture.data, picture.size, &self.resize, &self.normalise, &mut self.resampler)?;
        let width = 3 * TEMPORAL * (self.resize.patch as usize).pow(2);
        let shape = vec![cut.values.len() / width, width];
        Ok((Tensor { shape, data: Data::F32(cut.values) }, cut.grid, cut.placement.image))
    }

    /// What the model is asked for `text`.
    pub fn asked(&self, text: &str) -> String {
        let text = text.trim();
        match self.form {
            Form::Markers => format!("Detect the bounding box of {text}."),
            Form::Json(_) => format!("Locate the {text}, output its bbox coordinates using JSON format."),
        }
    }

    /// The prompt that shows some pictures and says `asked`.
    pub fn prompt(&self, pictures: &[&Seen], asked: &str) -> Result<Prompt, GroundError> {
        self.prompt_of(pictures, &shown_first(pictures.len(), asked))
    }

    /// The prompt that shows pictures and says words, in the order of the parts.
    fn prompt_of(&self, pictures: &[&Seen], parts: &[Part]) -> Result<Prompt, GroundError> {
        let Marks { image, vision: [vision_start, vision_end], .. } = self.marks;
        let mut said = Vec::new();
        let mut rest = pictures.iter();
        for part in parts {
            match part {
                Part::Words(words) => said.extend(self.vocabulary.encode(words)?),
                Part::Picture => {
                    let tokens = rest.next().map_or(0, |seen| seen.tokens());
                    said.push(vision_start);
                    said.resize(said.len() + tokens, image);
                    said.push(vision_end);
                }
            }
        }
        let mut ids = self.opening()?;
        ids.extend(self.turn("user", &said)?);
        ids.extend(self.answering()?);
        let grids: Vec<_> = pictures.iter().map(|seen| seen.grid).collect();
        let positions = mrope::Positions::of(&ids, image, &grids)?;
        Ok(Prompt { ids, positions })
    }

    /// What every conversation begins with.
    fn opening(&self) -> Result<Vec<i64>, GroundError> {
        let [turn_start, turn_end] = self.marks.turn;
        if self.system.is_empty() {
            return Ok(Vec::new());
        }
        let (system, line) = (self.vocabulary.encode(self.system)?, self.vocabulary.encode("\n")?);
        Ok([&[turn_start][..], &system, &[turn_end], &line].concat())
    }

    /// One turn of a conversation.
    fn turn(&self, who: &str, said: &[i64]) -> Result<Vec<i64>, GroundError> {
        let [turn_start, turn_end] = self.marks.turn;
        let (who, line) = (self.vocabulary.encode(&format!("{who}\n"))?, self.vocabulary.encode("\n")?);
        Ok([&[turn_start][..], &who, said, &[turn_end], &line].concat())
    }

    /// What stands before the model's answer.
    fn answering(&self) -> Result<Vec<i64>, GroundError> {
        Ok([&[self.marks.turn[0]][..], &self.vocabulary.encode("assistant\n")?].concat())
    }

    /// Shows the pictures, says `asked`, and keeps the logits of the last `last` tokens of that.
    pub fn begin(&mut self, pictures: &[&Seen], asked: &str, last: usize) -> Result<Talk, GroundError> {
        self.begin_with(pictures, &shown_first(pictures.len(), asked), last)
    }

    fn begin_with(&mut self, pictures: &[&Seen], parts: &[Part], last: usize) -> Result<Talk, GroundError> {
        let prompt = self.prompt_of(pictures, parts)?;
        self.begin_prompt(pictures, prompt, last)
    }

    fn begin_prompt(&mut self, pictures: &[&Seen], prompt: Prompt, last: usize) -> Result<Talk, GroundError> {
        let Prompt { ids, positions } = prompt;
        let (length, hidden) = (ids.len(), self.decoder.hidden());
        let mut embeds = self.decoder.embed(&ids)?;
        let mut again = vec![0.0; self.deepstack * length * hidden];
        let mut at = ids.iter().enumerate().filter(|(_, id)| **id == self.marks.image).map(|(at, _)| at);
        for seen in pictures {
            for (token, place) in at.by_ref().take(seen.tokens()).enumerate() {
                let (from, to) = (token * hidden, place * hidden);
                if let Data::F32(rows) = &mut embeds.data {
                    rows[to..to + hidden].copy_from_slice(&seen.features[from..from + hidden]);
                }
                for layer in 0..self.deepstack {
                    let (from, to) = (layer * seen.tokens() * hidden + from, layer * length * hidden + to);
                    again[to..to + hidden].copy_from_slice(&seen.deepstack[from..from + hidden]);
                }
            }
        }
        let again = Tensor { shape: vec![self.deepstack, 1, length, hidden], data: Data::F32(again) };
        let mask = Tensor { shape: vec![1, length], data: Data::I64(vec![1; length]) };
        let places = Tensor { shape: vec![3, 1, length], data: Data::I64(positions.ids) };
        let mut feeds = vec![("inputs_embeds", &embeds), ("attention_mask", &mask), ("position_ids", &places)];
        if self.deepstack > 0 {
            feeds.push(("deepstack_embeds", &again));
        }
        let manner = Manner::Mrope { delta: positions.delta, deepstack: self.deepstack };
        Talk::begin(&mut self.decoder, manner, &feeds, length, last)
    }

    /// Says `token` in a talk of this model.
    pub fn say(&mut self, talk: &mut Talk, token: u32) -> Result<(), GroundError> {
        talk.say(&mut self.decoder, token)
    }

    fn codec(&self, seen: &Seen) -> Box<dyn Codec> {
        match self.form {
            Form::Markers => Box::new(QwenBox::new(Dialect::Qwen2Vl)),
            Form::Json(true) => Box::new(QwenJson::new(Unit::Pixels(seen.image), Reasoning::None)),
            Form::Json(false) => Box::new(QwenJson::new(Unit::Thousandths, Reasoning::None)),
        }
    }
}

impl Writer for Qwen {
    type Seen = Seen;

    fn checker(&self) -> TextCheck {
        self.vocabulary.checker()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.decoder.written())
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        let seen = self.look(picture)?;
        let mut talk = self.begin(&[&seen], "person", 1)?;
        self.say(&mut talk, 0)
    }

    fn look(&mut self, picture: &Rgb) -> Result<Seen, GroundError> {
        let (pixels, grid, image) = self.pixels(picture)?;
        let hidden = self.decoder.hidden();
        let places = Tensor { shape: vec![1, 3], data: Data::I64(grid.map(i64::from).to_vec()) };
        let mut outputs = self.vision.run(&[("pixel_values", &pixels), (self.grid_name, &places)])?;
        let tokens = pixels.shape[0] / (MERGE * MERGE) as usize;
        // Some exports put a batch of one around it.
        let same =
            |found: &[usize], shape: &[usize]| found == shape || (found.first() == Some(&1) && found[1..] == *shape);
        let mut take = |name: &str, shape: &[usize]| {
            let found = outputs.take(name).filter(|t| same(&t.shape, shape)).and_then(Tensor::into_f32);
            found.ok_or_else(|| EngineError::Run {
                file: self.vision.file().to_owned(),
                reason: format!("it gave no `{name}` of f32{shape:?}"),
            })
        };
        let features = take("image_features", &[tokens, hidden])?;
        let deepstack = match self.deepstack {
            0 => Vec::new(),
            layers => take("deepstack_features", &[layers, tokens, hidden])?,
        };
        Ok(Seen { features, deepstack, grid: (grid[1], grid[2]), image })
    }

    fn locate(&mut self, seen: &Seen, text: &str) -> Result<Vec<RawBox>, GroundError> {
        let talk = self.begin(&[seen], &self.asked(text), 1)?;
        let mut codec = self.codec(seen);
        talk.answer(&mut self.decoder, &self.vocabulary, &self.rules, codec.as_mut())
    }
}

/// All pictures, then the words.
fn shown_first(pictures: usize, asked: &str) -> Vec<Part> {
    let mut parts = vec![Part::Picture; pictures];
    parts.push(Part::Words(asked.to_owned()));
    parts
}

fn form(manifest: &Manifest) -> Result<Form, GroundError> {
    let coordinates = need(manifest, "input.coordinates", manifest.input.coordinates)?;
    match (manifest.family.as_str(), coordinates) {
        (QWEN2, Coordinates::Thousandths) => Ok(Form::Markers),
        (_, Coordinates::ResizedPixels) => Ok(Form::Json(true)),
        (_, Coordinates::Thousandths) => Ok(Form::Json(false)),
        (family, _) => {
            Err(unfit(manifest, format!("input.coordinates: the family {family} writes no location tokens")))
        }
    }
}

/// Qwen2-VL's published graph calls the grid otherwise than the later ones.
fn grid_name(vision: &dyn Engine) -> Result<&'static str, EngineError> {
    let has = |name: &str| vision.inputs().iter().any(|port| port.name == name);
    let name = ["image_grid_thw", "grid_thw"].into_iter().find(|name| has(name));
    name.filter(|_| has("pixel_values") && vision.inputs().len() == 2).ok_or_else(|| EngineError::Ports {
        file: vision.file().to_owned(),
        what: "inputs",
        expected: "pixel_values, and image_grid_thw or grid_thw".to_owned(),
        found: vision.inputs().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })
}
