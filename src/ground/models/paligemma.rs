//! `PaliGemma` 1 and 2: boxes as location tokens, y first.
//!
//! Picture and prompt see each other both ways: the graph does that to whatever comes with an empty cache, so a prompt
//! is fed in one piece. Positions count from 1.

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
        codec::{RawBox, paligemma},
        engine::{self, Data, Engine, Tensor},
        manifest::{Coordinates, Manifest, Positions},
        methods::{retrieve::TextCheck, written::Writer},
        vision::{Fit, Resampler},
    },
    types::Rgb,
};

/// The family's name in manifests.
pub const FAMILY: &str = "paligemma";

/// An opened model.
pub struct PaliGemma {
    vision: Box<dyn Engine>,
    decoder: Decoder,
    vocabulary: Arc<Vocabulary>,
    fit: Fit,
    resampler: Resampler,
    image_tokens: usize,
    image: i64,
    begin: i64,
    rules: Rules,
}

impl PaliGemma {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let tokens = &manifest.tokens;
        let mark = |key: &str, value: Option<u32>| need(manifest, &format!("tokens.{key}"), value).map(i64::from);
        if manifest.input.coordinates != Some(Coordinates::BinsYxyx) {
            return Err(unfit(manifest, "input.coordinates: should be \"bins-yxyx\"".to_owned()));
        }
        positions(manifest, Positions::FromOne)?;
        let limits = &manifest.limits;
        Ok(Self {
            fit: picture::stretch(manifest)?,
            vision: open_role(manifest, "vision_encoder", open)?,
            decoder: Decoder::open(manifest, open)?,
            vocabulary: Arc::new(Vocabulary::load(manifest)?),
            resampler: Resampler::default(),
            image_tokens: limits.image_tokens,
            image: mark("image", tokens.image)?,
            begin: mark("begin", tokens.begin)?,
            rules: Rules::of(manifest),
        })
    }

    /// The tensor `pixel_values` of a picture.
    pub fn pixels(&mut self, picture: &Rgb) -> Result<Tensor, GroundError> {
        picture::stretched(&self.fit, picture, &mut self.resampler)
    }

    /// What the model is asked for `text`.
    pub fn asked(&self, text: &str) -> String {
        paligemma::prompt(&[text.trim()])
    }

    /// The tokens of a picture and what is asked.
    pub fn prompt(&self, asked: &str) -> Result<Vec<i64>, GroundError> {
        let mut ids = vec![self.image; self.image_tokens];
        ids.push(self.begin);
        ids.extend(self.vocabulary.encode(asked)?);
        Ok(ids)
    }

    /// Shows the picture, says `asked`, and keeps the logits of the last `last` tokens of that.
    pub fn begin(&mut self, seen: &[f32], asked: &str, last: usize) -> Result<Talk, GroundError> {
        let mut ids = self.prompt(asked)?;
        // The image token may lie outside the table; its embeddings are replaced anyhow.
        ids[..self.image_tokens].fill(0);
        let mut embeds = self.decoder.embed(&ids)?;
        if let Data::F32(rows) = &mut embeds.data {
            rows[..seen.len()].copy_from_slice(seen);
        }
        let length = ids.len();
        let mask = Tensor { shape: vec![1, length], data: Data::I64(vec![1; length]) };
        let places = Tensor { shape: vec![1, length], data: Data::I64((1..).take(length).collect()) };
        let feeds = [("inputs_embeds", &embeds), ("attention_mask", &mask), ("position_ids", &places)];
        Talk::begin(&mut self.decoder, Manner::FromOne, &feeds, length, last)
    }

    /// Says `token` in a talk of this model.
    pub fn say(&mut self, talk: &mut Talk, token: u32) -> Result<(), GroundError> {
        talk.say(&mut self.decoder, token)
    }
}

impl Writer for PaliGemma {
    type Seen = Vec<f32>;

    fn checker(&self) -> TextCheck {
        self.vocabulary.checker()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.decoder.written())
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        let seen = self.look(picture)?;
        let mut talk = self.begin(&seen, "person", 1)?;
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
        let talk = self.begin(seen, &self.asked(text), 1)?;
        let mut codec = paligemma::PaliGemma::default();
        talk.answer(&mut self.decoder, &self.vocabulary, &self.rules, &mut codec)
    }
}
