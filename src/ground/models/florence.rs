//! Florence-2: boxes as location tokens, after a phrase of the caption they ground.
//!
//! An encoder reads picture and text, so that every query costs a pass of it; the vision tower runs once a frame. The
//! model has no task for one referred box, so a query is grounded as a caption: every phrase in it that the model finds
//! answers, as it does in the reference.

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
            RawBox,
            florence::{self, Task},
        },
        engine::{self, Data, Engine, Tensor},
        manifest::{Coordinates, Manifest, Positions},
        methods::{retrieve::TextCheck, written::Writer},
        vision::{Fit, Resampler},
    },
    types::Rgb,
};

/// The family's name in manifests.
pub const FAMILY: &str = "florence-2";

/// What the model is asked.
const TASK: Task = Task::PhraseGrounding;

/// An opened model.
pub struct Florence {
    vision: Box<dyn Engine>,
    encoder: Box<dyn Engine>,
    decoder: Decoder,
    vocabulary: Arc<Vocabulary>,
    fit: Fit,
    resampler: Resampler,
    image_tokens: usize,
    marks: Marks,
    rules: Rules,
}

#[derive(Debug, Clone, Copy)]
struct Marks {
    image: i64,
    begin: i64,
    end: i64,
    first: i64,
}

impl Florence {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let tokens = &manifest.tokens;
        let mark = |key: &str, value: Option<u32>| need(manifest, &format!("tokens.{key}"), value).map(i64::from);
        let marks = Marks {
            // Published exports have no token for the picture; nothing is embedded in its places, so any will do.
            image: tokens.image.map_or(0, i64::from),
            begin: mark("begin", tokens.begin)?,
            end: mark("end", tokens.end.first().copied())?,
            first: mark("first", tokens.first)?,
        };
        if manifest.input.coordinates != Some(Coordinates::BinsXyxy) {
            return Err(unfit(manifest, "input.coordinates: should be \"bins-xyxy\"".to_owned()));
        }
        positions(manifest, Positions::InGraph)?;
        let limits = &manifest.limits;
        Ok(Self {
            fit: picture::stretch(manifest)?,
            vision: open_role(manifest, "vision_encoder", open)?,
            encoder: open_role(manifest, "encoder_model", open)?,
            decoder: Decoder::open(manifest, open)?,
            vocabulary: Arc::new(Vocabulary::load(manifest)?),
            resampler: Resampler::default(),
            image_tokens: limits.image_tokens,
            marks,
            rules: Rules::of(manifest),
        })
    }

    /// The tensor `pixel_values` of a picture.
    pub fn pixels(&mut self, picture: &Rgb) -> Result<Tensor, GroundError> {
        picture::stretched(&self.fit, picture, &mut self.resampler)
    }

    /// What the model is asked for `text`.
    pub fn asked(&self, text: &str) -> String {
        TASK.prompt(text)
    }

    /// The encoder's tokens for a picture and what is asked.
    pub fn prompt(&self, asked: &str) -> Result<Vec<i64>, GroundError> {
        let mut ids = vec![self.marks.image; self.image_tokens];
        ids.push(self.marks.begin);
        ids.extend(self.vocabulary.encode(asked)?);
        ids.push(self.marks.end);
        Ok(ids)
    }

    /// Shows the picture, says `asked`, and begins the answer.
    pub fn begin(&mut self, seen: &[f32], asked: &str) -> Result<Talk, GroundError> {
        let mut ids = self.prompt(asked)?;
        // The image token may lie outside the table; its embeddings are replaced anyhow.
        ids[..self.image_tokens].fill(0);
        let mut embeds = self.decoder.embed(&ids)?;
        if let Data::F32(rows) = &mut embeds.data {
            rows[..seen.len()].copy_from_slice(seen);
        }
        let (length, hidden) = (ids.len(), self.decoder.hidden());
        let mask = Tensor { shape: vec![1, length], data: Data::I64(vec![1; length]) };
        let inputs = [("inputs_embeds", &embeds), ("attention_mask", &mask)];
        let shape = [1, length, hidden];
        let [states] = engine::run_f32(self.encoder.as_mut(), &inputs, [("last_hidden_state", &shape)])?;
        let states = Tensor { shape: shape.to_vec(), data: Data::F32(states) };
        let first = self.decoder.embed(&[self.marks.first])?;
        let manner = Manner::Encoder { states, mask };
        let mask = Tensor { shape: vec![1, 1], data: Data::I64(vec![1]) };
        Talk::begin(&mut self.decoder, manner, &[("inputs_embeds", &first), ("attention_mask", &mask)], 1, 1)
    }

    /// Says `token` in a talk of this model.
    pub fn say(&mut self, talk: &mut Talk, token: u32) -> Result<(), GroundError> {
        talk.say(&mut self.decoder, token)
    }
}

impl Writer for Florence {
    type Seen = Vec<f32>;

    fn checker(&self) -> TextCheck {
        self.vocabulary.checker()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.decoder.written())
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        let seen = self.look(picture)?;
        let mut talk = self.begin(&seen, "person")?;
        self.say(&mut talk, 0)
    }

    fn look(&mut self, picture: &Rgb) -> Result<Vec<f32>, GroundError> {
        let pixels = self.pixels(picture)?;
        let shape = [1, self.image_tokens, self.decoder.hidden()];
        let [features] =
            engine::run_f32(self.vision.as_mut(), &[("pixel_values", &pixels)], [("image_features", &shape)])?;
        Ok(features)
    }

    fn locate(&mut self, seen: &Vec<f32>, text: &str) -> Result<Vec<RawBox>, GroundError> {
        let talk = self.begin(seen, &self.asked(text))?;
        let mut codec = florence::Florence::new(TASK);
        talk.answer(&mut self.decoder, &self.vocabulary, &self.rules, &mut codec)
    }
}
