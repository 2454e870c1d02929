//! `PaliGemma` 1 and 2: boxes as location tokens, y first.
//!
//! Picture and prompt see each other both ways: the graph does that to whatever comes with an empty cache, so a prompt
//! is fed in one piece. Positions count from 1.

use super::{
    Open,
    answer::{self, Pen},
    decoder::Decoder,
    need, positions,
    speech::{self, Manner, Talk},
    square::{Seen, Tower},
    tokens::Vocabulary,
    trial,
};
use crate::{
    ground::{
        GroundError,
        codec::paligemma,
        engine::Tensor,
        manifest::{Coordinates, Manifest, Positions},
        methods::{
            retrieve::TextCheck,
            written::{Located, Writer},
        },
        vision::VisionError,
    },
    types::Rgb,
};

/// The family's name in manifests.
pub const FAMILY: &str = "paligemma";

/// An opened model.
pub struct PaliGemma {
    tower: Tower,
    pen: Pen,
    image_tokens: usize,
    image: i64,
    begin: i64,
}

impl PaliGemma {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let tokens = &manifest.tokens;
        let mark = |key: &str, value: Option<u32>| need(manifest, &format!("tokens.{key}"), value).map(i64::from);
        if manifest.input.coordinates != Some(Coordinates::BinsYxyx) {
            return Err(GroundError::unfit(manifest, "input.coordinates: should be \"bins-yxyx\""));
        }
        positions(manifest, Positions::FromOne)?;
        let pen = Pen::open(manifest, Vocabulary::load(manifest)?, open)?;
        Ok(Self {
            tower: Tower::open(manifest, open, pen.decoder.hidden(), manifest.limits.max_batch)?,
            pen,
            image_tokens: manifest.limits.image_tokens,
            image: mark("image", tokens.image)?,
            begin: mark("begin", tokens.begin)?,
        })
    }

    /// The tensor `pixel_values` of a picture.
    pub fn pixels(&mut self, picture: &Rgb) -> Result<Tensor, GroundError> {
        Ok(self.tower.pixels(picture)?)
    }

    /// What the model is asked for `text`.
    pub fn asked(&self, text: &str) -> String {
        paligemma::prompt(&[text.trim()])
    }

    /// The tokens of a picture and what is asked.
    pub fn prompt(&self, asked: &str) -> Result<Vec<i64>, GroundError> {
        let mut ids = vec![self.image; self.image_tokens];
        ids.push(self.begin);
        ids.extend(self.pen.vocabulary.encode(asked)?);
        Ok(ids)
    }

    /// Shows the picture, says `asked`, and keeps the logits of the last `last` tokens of that.
    pub fn begin(&mut self, seen: &[f32], asked: &str, last: usize) -> Result<Talk, GroundError> {
        let ids = self.prompt(asked)?;
        self.begin_prompt(seen, &ids, last)
    }

    fn begin_prompt(&mut self, seen: &[f32], ids: &[i64], last: usize) -> Result<Talk, GroundError> {
        let embeds = self.pen.decoder.embed_with(ids, 0, seen)?;
        let length = ids.len();
        let mask = Tensor::i64s(&[1, length], vec![1; length]);
        let places = Tensor::i64s(&[1, length], (1..).take(length).collect());
        let feeds = [("inputs_embeds", &embeds), ("attention_mask", &mask), ("position_ids", &places)];
        let prompt = speech::Prompt { feeds: &feeds, length, delta: 1, last };
        let cache = self.pen.decoder.begin()?;
        Talk::begin(&mut self.pen.decoder, cache, Manner::Counted, &prompt)
    }

    /// The language model, in which talks of this model go on.
    pub fn decoder(&mut self) -> &mut Decoder {
        &mut self.pen.decoder
    }
}

impl Writer for PaliGemma {
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
        let short = self.begin(&seen[0], &self.asked("person"), 1)?;
        let long = self.begin(&seen[1], &self.asked("person in a red jacket"), 1)?;
        short.clone().say(&mut self.pen.decoder, &[0])?;
        self.pen.choir.rows = trial::rows(&mut self.pen.decoder, &short, &long)?;
        Ok(())
    }

    fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Seen, VisionError>>, GroundError> {
        self.tower.look(pictures)
    }

    fn locate_each(&mut self, asks: &[(&Seen, &str)]) -> Result<Vec<Located>, GroundError> {
        let prompts = asks.iter().map(|(_, text)| self.prompt(&self.asked(text))).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<_> = prompts.iter().map(Vec::len).collect();
        answer::locate(
            self,
            |model| &mut model.pen,
            &lengths,
            |model, at| {
                Ok((model.begin_prompt(asks[at].0, &prompts[at], 1)?, Box::new(paligemma::PaliGemma::default())))
            },
        )
    }
}
