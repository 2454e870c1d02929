//! Florence-2: boxes as location tokens, after a phrase of the caption they ground.
//!
//! An encoder reads picture and text, so that every query costs a pass of it; the vision tower runs once a frame. The
//! model has no task for one referred box, so a query is grounded as a caption: every phrase in it that the model finds
//! answers, as it does in the reference.

use super::{
    Open,
    answer::{self, Pen},
    decoder::Decoder,
    need, open_role, positions,
    speech::{self, Manner, Talk},
    square::{Seen, Tower},
    tokens::Vocabulary,
    trial,
};
use crate::{
    ground::{
        GroundError,
        codec::{RawBox, florence},
        engine::{self, Engine, Tensor},
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
pub const FAMILY: &str = "florence-2";

/// An opened model.
pub struct Florence {
    tower: Tower,
    encoder: Box<dyn Engine>,
    pen: Pen,
    image_tokens: usize,
    marks: Marks,
    /// Whether the encoder's states are needed for the first token only.
    remembers: bool,
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
            return Err(GroundError::unfit(manifest, "input.coordinates: should be \"bins-xyxy\""));
        }
        positions(manifest, Positions::InGraph)?;
        let pen = Pen::open(manifest, Vocabulary::load(manifest)?, open)?;
        Ok(Self {
            tower: Tower::open(manifest, open, pen.decoder.hidden(), manifest.limits.max_batch)?,
            encoder: open_role(manifest, "encoder_model", open)?,
            pen,
            image_tokens: manifest.limits.image_tokens,
            marks,
            remembers: false,
        })
    }

    /// The tensor `pixel_values` of a picture.
    pub fn pixels(&mut self, picture: &Rgb) -> Result<Tensor, GroundError> {
        Ok(self.tower.pixels(picture)?)
    }

    /// What the model is asked for `text`.
    pub fn asked(&self, text: &str) -> String {
        florence::prompt(text)
    }

    /// The encoder's tokens for a picture and what is asked.
    pub fn prompt(&self, asked: &str) -> Result<Vec<i64>, GroundError> {
        let mut ids = vec![self.marks.image; self.image_tokens];
        ids.push(self.marks.begin);
        ids.extend(self.pen.vocabulary.encode(asked)?);
        ids.push(self.marks.end);
        Ok(ids)
    }

    /// Shows the picture, says `asked`, and begins the answer.
    pub fn begin(&mut self, seen: &[f32], asked: &str) -> Result<Talk, GroundError> {
        let ids = self.prompt(asked)?;
        self.begin_prompt(seen, &ids)
    }

    fn begin_prompt(&mut self, seen: &[f32], ids: &[i64]) -> Result<Talk, GroundError> {
        let embeds = self.pen.decoder.embed_with(ids, 0, seen)?;
        let (length, hidden) = (ids.len(), self.pen.decoder.hidden());
        let mask = Tensor::i64s(&[1, length], vec![1; length]);
        let inputs = [("inputs_embeds", &embeds), ("attention_mask", &mask)];
        let shape = [1, length, hidden];
        let [states] = engine::run_f32(self.encoder.as_mut(), &inputs, [("last_hidden_state", &shape)])?;
        let states = Tensor::f32s(&shape, states);
        let first = self.pen.decoder.embed(&[self.marks.first])?;
        let manner = Manner::Encoder { states, mask };
        let mask = Tensor::i64s(&[1, 1], vec![1]);
        let feeds = [("inputs_embeds", &first), ("attention_mask", &mask)];
        let prompt = speech::Prompt { feeds: &feeds, length: 1, delta: 0, last: 1 };
        let cache = self.pen.decoder.begin()?;
        let talk = Talk::begin(&mut self.pen.decoder, cache, manner, &prompt)?;
        Ok(if self.remembers { talk.without_states() } else { talk })
    }

    /// The language model, in which talks of this model go on.
    pub fn decoder(&mut self) -> &mut Decoder {
        &mut self.pen.decoder
    }
}

impl Writer for Florence {
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
        let short = self.begin(&seen[0], &self.asked("person"))?;
        let long = self.begin(&seen[1], &self.asked("person in a red jacket"))?;
        let mut said = short.clone();
        said.say(&mut self.pen.decoder, &[0])?;
        let mut without = short.clone().without_states();
        let again = without.say(&mut self.pen.decoder, &[0]);
        self.remembers = again.is_ok() && trial::alike(said.logits(), without.logits());
        self.pen.choir.rows = trial::rows(&mut self.pen.decoder, &short, &long)?;
        Ok(())
    }

    fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Seen, VisionError>>, GroundError> {
        self.tower.look(pictures)
    }

    fn locate_each(&mut self, asks: &[(&Seen, &str)]) -> Result<Vec<Located>, GroundError> {
        let prompts = asks.iter().map(|(_, text)| self.prompt(&self.asked(text))).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<_> = prompts.iter().map(Vec::len).collect();
        let answers = answer::locate(
            self,
            |model| &mut model.pen,
            &lengths,
            |model, at| Ok((model.begin_prompt(asks[at].0, &prompts[at])?, Box::new(florence::Florence::default()))),
        );
        let all = answers?.into_iter().zip(asks);
        Ok(all.map(|(found, (_, text))| found.map(|found| meant(text, found))).collect())
    }
}

/// Of all that a text's phrases were grounded to, what the text is about: in "person next to the van" the person, the phrase that
/// comes first. The model has no task that answers with one thing only: if the first label is what something is
/// next to, it grounded all but what the text is about. Where no label stands in the text, all are kept.
fn meant(text: &str, found: Vec<RawBox>) -> Vec<RawBox> {
    let text = text.to_lowercase();
    let label = |raw: &RawBox| Some(raw.label.to_lowercase()).filter(|label| !label.is_empty());
    let place = |raw: &RawBox| label(raw).and_then(|label| text.find(&label));
    let Some(first) = found.iter().filter_map(place).min() else { return found };
    if relates(&text[..first]) {
        return Vec::new();
    }
    found.into_iter().filter(|raw| place(raw) == Some(first)).collect()
}

/// Whether what comes after this part of a text is not what the text is about, but what that has to do with.
fn relates(text: &str) -> bool {
    const RELATING: [&str; 18] = [
        "above", "at", "behind", "below", "beside", "by", "carrying", "from", "holding", "in", "near", "next", "on",
        "over", "riding", "under", "wearing", "with",
    ];
    text.split_whitespace().any(|word| RELATING.contains(&word))
        || text.contains("left of ")
        || text.contains("right of ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_about_its_first_phrase() {
        let found = |labels: &[&str]| -> Vec<RawBox> {
            let raw = |label: &&str| RawBox { fractions: [0.0; 4], label: (*label).to_owned(), score: None };
            labels.iter().map(raw).collect()
        };
        let labels = |text: &str, all: &[&str]| -> Vec<String> {
            meant(text, found(all)).into_iter().map(|raw| raw.label).collect()
        };
        assert_eq!(labels("Person next to the van", &["the van", "person", "person"]), ["person", "person"]);
        assert_eq!(labels("red car", &["red car"]), ["red car"]);
        assert_eq!(labels("all of the red cars", &["the red cars"]), ["the red cars"]);
        assert!(labels("person next to the van", &["the van"]).is_empty(), "nobody asked for vans");
        assert_eq!(labels("red car", &["car"]), ["car"]);
        assert_eq!(labels("red car", &["a lorry", "dog"]), ["a lorry", "dog"]);
        assert!(labels("red car", &[]).is_empty());
    }
}
