//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL: boxes as text.
//!
//! They share their graphs' ports and the layout of a prompt, and differ in the picture's grid, in what they are asked, in
//! how they write a box and what its numbers count. Windows, rotary angles and learned positions of the vision tower
//! follow from the grid inside the graph; M-RoPE positions are made here.

use std::ops::Range;

use super::{
    Open,
    answer::{self, Pen},
    decoder::{Cache, Decoder},
    need, positions,
    recent::Recent,
    speech::{self, Manner, Talk},
    tokens::Vocabulary,
    trial,
};
use crate::{
    ground::{
        GroundError,
        codec::{
            Codec,
            qwen_box::{Dialect, QwenBox},
            qwen_json::{self, QwenJson, Unit},
        },
        engine::{Data, Input, Tensor},
        manifest::{Coordinates, Manifest, Positions},
        methods::{
            retrieve::TextCheck,
            written::{Located, Writer},
        },
        vision::{VisionError, mrope},
        zoom::wording::Part,
    },
    types::{Rgb, Size},
};

mod judge;
mod tower;

pub use tower::Seen;
use tower::Tower;

/// Beginnings of prompts whose cache is kept: what every prompt begins with, and the pictures seen last.
const BEGINNINGS: usize = 3;

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
    /// JSON whose numbers count this.
    Json(Coordinates),
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
    tower: Tower,
    pen: Pen,
    marks: Marks,
    form: Form,
    /// What stands before the user's turn.
    system: &'static str,
    deepstack: usize,
    /// Whether a prompt may be read in pieces.
    continues: bool,
    beginnings: Recent<Beginning, Cache>,
}

/// How a prompt begins: its tokens, and the looks at the pictures among them.
type Beginning = (Vec<i64>, Vec<u64>);

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
        let tokens = &manifest.tokens;
        let mark = |key: &str, value: Option<u32>| need(manifest, &format!("tokens.{key}"), value).map(i64::from);
        let marks = Marks {
            image: mark("image", tokens.image)?,
            vision: [mark("vision_start", tokens.vision_start)?, mark("vision_end", tokens.vision_end)?],
            turn: [mark("turn_start", tokens.turn_start)?, mark("turn_end", tokens.turn_end)?],
        };
        positions(manifest, Positions::Mrope)?;
        let pen = Pen::open(manifest, Vocabulary::load(manifest)?, open)?;
        let deepstack = deepstack(manifest, &pen.decoder)?;
        Ok(Self {
            tower: Tower::open(manifest, open, pen.decoder.hidden(), deepstack)?,
            pen,
            marks,
            form: form(manifest)?,
            system: if manifest.family == QWEN3 { "" } else { "system\nYou are a helpful assistant." },
            deepstack,
            continues: false,
            beginnings: Recent::new(BEGINNINGS),
        })
    }

    /// The tensor `pixel_values` of a picture, its grid in patches, and the size it was resized to.
    pub fn pixels(&mut self, picture: &Rgb) -> Result<(Tensor, [u32; 3], Size), GroundError> {
        self.tower.pixels(picture)
    }

    /// What the model is asked for `text`.
    pub fn asked(&self, text: &str) -> String {
        let text = text.trim();
        match self.form {
            Form::Markers => format!("Detect the bounding box of {text}."),
            Form::Json(_) => qwen_json::asked(text),
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
                Part::Words(words) => said.extend(self.pen.vocabulary.encode(words)?),
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
        let (system, line) = (self.pen.vocabulary.encode(self.system)?, self.pen.vocabulary.encode("\n")?);
        Ok([&[turn_start][..], &system, &[turn_end], &line].concat())
    }

    /// One turn of a conversation.
    fn turn(&self, who: &str, said: &[i64]) -> Result<Vec<i64>, GroundError> {
        let [turn_start, turn_end] = self.marks.turn;
        let (who, line) = (self.pen.vocabulary.encode(&format!("{who}\n"))?, self.pen.vocabulary.encode("\n")?);
        Ok([&[turn_start][..], &who, said, &[turn_end], &line].concat())
    }

    /// What stands before the model's answer.
    fn answering(&self) -> Result<Vec<i64>, GroundError> {
        Ok([&[self.marks.turn[0]][..], &self.pen.vocabulary.encode("assistant\n")?].concat())
    }

    /// Shows the pictures, says `asked`, and keeps the logits of the last `last` tokens of that.
    pub fn begin(&mut self, pictures: &[&Seen], asked: &str, last: usize) -> Result<Talk, GroundError> {
        self.begin_with(pictures, &shown_first(pictures.len(), asked), last)
    }

    fn begin_with(&mut self, pictures: &[&Seen], parts: &[Part], last: usize) -> Result<Talk, GroundError> {
        let prompt = self.prompt_of(pictures, parts)?;
        self.begin_prompt(pictures, &prompt, last)
    }

    /// Reads a prompt. What it begins with is read once for all prompts that share it: the picture stands before the words,
    /// so that several questions about one picture differ only in their ends.
    fn begin_prompt(&mut self, pictures: &[&Seen], prompt: &Prompt, last: usize) -> Result<Talk, GroundError> {
        let length = prompt.ids.len();
        let mut joints = if self.continues { joints(&prompt.ids, self.marks.vision) } else { Vec::new() };
        joints.retain(|end| end + last <= length);
        let looks = |end: usize| -> Vec<u64> {
            let shown = prompt.ids[..end].iter().filter(|id| **id == self.marks.vision[1]).count();
            pictures.iter().take(shown).map(|seen| seen.look).collect()
        };
        let beginnings: Vec<Beginning> = joints.iter().map(|end| (prompt.ids[..*end].to_vec(), looks(*end))).collect();
        let mut known = None;
        for (end, beginning) in joints.iter().zip(&beginnings).rev() {
            known = self.beginnings.get(beginning).map(|cache| (*end, cache));
            if known.is_some() {
                break;
            }
        }
        let (mut at, mut cache) = match known {
            Some(known) => known,
            None => (0, self.pen.decoder.begin()?),
        };
        for (end, beginning) in joints.into_iter().zip(beginnings) {
            if end > at {
                let feeds = self.feeds(pictures, prompt, at..end)?;
                let feeds: Vec<_> = feeds.iter().map(|(name, tensor)| (*name, Input::Tensor(tensor))).collect();
                self.pen.decoder.run(&mut cache, &feeds, 1)?;
                self.beginnings.put(beginning, cache.clone());
                at = end;
            }
        }
        let feeds = self.feeds(pictures, prompt, at..length)?;
        let feeds: Vec<_> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let rest = speech::Prompt { feeds: &feeds, length, delta: prompt.positions.delta, last };
        Talk::begin(&mut self.pen.decoder, cache, Manner::Mrope { deepstack: self.deepstack }, &rest)
    }

    /// What the decoder is fed for a piece of a prompt.
    fn feeds(
        &mut self,
        pictures: &[&Seen],
        prompt: &Prompt,
        piece: Range<usize>,
    ) -> Result<Vec<(&'static str, Tensor)>, GroundError> {
        let (length, hidden) = (piece.len(), self.pen.decoder.hidden());
        let mut embeds = self.pen.decoder.embed(&prompt.ids[piece.clone()])?;
        let mut again = vec![0.0; self.deepstack * length * hidden];
        let image = self.marks.image;
        let mut at = prompt.ids.iter().enumerate().filter(|(_, id)| **id == image).map(|(at, _)| at);
        for seen in pictures {
            for (token, place) in at.by_ref().take(seen.tokens()).enumerate().filter(|(_, at)| piece.contains(at)) {
                let (from, to) = (token * hidden, (place - piece.start) * hidden);
                if let Data::F32(rows) = &mut embeds.data {
                    rows[to..to + hidden].copy_from_slice(&seen.features[from..from + hidden]);
                }
                for layer in 0..self.deepstack {
                    let (from, to) = (layer * seen.tokens() * hidden + from, layer * length * hidden + to);
                    again[to..to + hidden].copy_from_slice(&seen.deepstack[from..from + hidden]);
                }
            }
        }
        let axes = prompt.positions.ids.chunks(prompt.ids.len().max(1));
        let places = axes.flat_map(|axis| &axis[piece.clone()]).copied().collect();
        let mut feeds = vec![
            ("inputs_embeds", embeds),
            ("attention_mask", Tensor::i64s(&[1, piece.end], vec![1; piece.end])),
            ("position_ids", Tensor::i64s(&[3, 1, length], places)),
        ];
        if self.deepstack > 0 {
            let shape = vec![self.deepstack, 1, length, hidden];
            feeds.push(("deepstack_embeds", Tensor::f32s(&shape, again)));
        }
        Ok(feeds)
    }

    /// The language model, in which talks of this model go on.
    pub fn decoder(&mut self) -> &mut Decoder {
        &mut self.pen.decoder
    }

    fn codec(&self, seen: &Seen) -> Box<dyn Codec> {
        match self.form {
            Form::Markers => Box::new(QwenBox::new(Dialect::Qwen2Vl)),
            Form::Json(Coordinates::ResizedPixels) => Box::new(QwenJson::new(Unit::Pixels(seen.image))),
            Form::Json(_) => Box::new(QwenJson::new(Unit::Thousandths)),
        }
    }
}

impl Writer for Qwen {
    type Seen = Seen;

    fn checker(&self) -> TextCheck {
        self.pen.vocabulary.checker()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.pen.decoder.written())
    }

    fn warm_up(&mut self, pictures: &[Rgb; 2]) -> Result<(), GroundError> {
        let seen = [self.look_at(&pictures[0])?, self.look_at(&pictures[1])?];
        self.tower.try_together(&pictures.each_ref(), &seen.each_ref())?;
        let short = self.begin(&[&seen[0]], "person", 1)?;
        let long = self.begin(&[&seen[1]], "person in a red jacket", 1)?;
        short.clone().say(&mut self.pen.decoder, &[0])?;
        // A graph that fails in pieces is one that takes a prompt whole.
        self.continues = true;
        let pieces = self.begin(&[&seen[1]], "person in a red jacket", 1);
        self.continues = pieces.is_ok_and(|pieces| trial::alike(pieces.logits(), long.logits()));
        self.pen.choir.rows = trial::rows(&mut self.pen.decoder, &short, &long)?;
        Ok(())
    }

    fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Seen, VisionError>>, GroundError> {
        self.tower.look(pictures)
    }

    fn locate_each(&mut self, asks: &[(&Seen, &str)]) -> Result<Vec<Located>, GroundError> {
        let prompt = |(seen, text): &(&Seen, &str)| self.prompt(&[seen], &self.asked(text));
        let prompts = asks.iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<_> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
        answer::locate(
            self,
            |model| &mut model.pen,
            &lengths,
            |model, at| {
                let seen = asks[at].0;
                Ok((model.begin_prompt(&[seen], &prompts[at], 1)?, model.codec(seen)))
            },
        )
    }
}

/// Where a prompt is cut, so that what comes before can be read once for several: before the first picture and after the last.
fn joints(ids: &[i64], [start, end]: [i64; 2]) -> Vec<usize> {
    let before = ids.iter().position(|id| *id == start).filter(|at| *at > 0);
    let after = ids.iter().rposition(|id| *id == end).map(|at| at + 1);
    before.into_iter().chain(after).collect()
}

/// Layers of the language model that see the picture again, as its graph says; refuses a graph that lacks them.
fn deepstack(manifest: &Manifest, decoder: &Decoder) -> Result<usize, GroundError> {
    let found = decoder.deepstack();
    match manifest.decoder.as_ref().map(|facts| facts.deepstack) {
        Some(said) if said != found => {
            let reason = format!("decoder.deepstack: is {said}; the decoder's inputs say {found}");
            Err(GroundError::unfit(manifest, reason))
        }
        // Exports for transformers.js give the picture to the first layer alone, and would answer, only worse.
        None if found == 0 && manifest.family == QWEN3 => {
            let reason = "the decoder takes no `deepstack_embeds`: this export leaves out DeepStack, by which Qwen3-VL's layers \
                          see the picture again; make one with tools/export (python -m export qwen3-vl)";
            Err(GroundError::unfit(manifest, reason))
        }
        _ => Ok(found),
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
        (_, counted @ (Coordinates::ResizedPixels | Coordinates::Thousandths)) => Ok(Form::Json(counted)),
        (family, _) => Err(GroundError::unfit(
            manifest,
            format!("input.coordinates: the family {family} writes no location tokens"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_cut_around_their_pictures() {
        assert_eq!(joints(&[5, 1, 7, 7, 2, 5, 1, 7, 2, 5], [1, 2]), [1, 9]);
        assert_eq!(joints(&[1, 7, 2, 5], [1, 2]), [3]);
        assert_eq!(joints(&[5, 5], [1, 2]), [0; 0]);
    }
}
