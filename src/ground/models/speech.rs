//! From one token to the next until the answer is over: what all families that write have in common.
//!
//! Answers are greedy: the best token each time, and its probability. They end with an end token, with a cap, or with
//! the [`Guard`] that sees a model going round in circles.

use super::{
    decoder::{Cache, Decoder},
    tokens::Vocabulary,
};
use crate::ground::{
    GroundError,
    codec::{
        Codec, RawBox,
        guard::{Caps, Guard},
    },
    engine::{Data, Input, Tensor},
    manifest::Manifest,
};

/// How a family tells its language model where a token stands, and what else it feeds with each.
pub enum Manner {
    /// Three equal positions, `place + delta`; zeros for that many layers that see the picture again.
    Mrope {
        /// What to add to the place of a token.
        delta: i64,
        /// Layers that see the picture's features again.
        deepstack: usize,
    },
    /// Counted from 1.
    FromOne,
    /// The encoder's states, and which of them count.
    Encoder {
        /// `encoder_hidden_states`, of picture and text.
        states: Tensor,
        /// `encoder_attention_mask`.
        mask: Tensor,
    },
}

/// An answer under way.
pub struct Talk {
    cache: Cache,
    manner: Manner,
    /// Tokens behind it; the next one's place.
    place: usize,
    logits: Vec<f32>,
}

/// When an answer is over.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Tokens that end it.
    pub end: Vec<u32>,
    /// The most it may hold.
    pub caps: Caps,
    /// Tokens that the language model can hold altogether.
    pub context: usize,
}

impl Rules {
    /// What the manifest says of answers.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let limits = &manifest.limits;
        Self {
            end: manifest.tokens.end.clone(),
            caps: Caps { tokens: limits.answer_tokens, boxes: limits.boxes },
            context: limits.context,
        }
    }
}

impl Talk {
    /// Reads a prompt of `length` tokens, given as the decoder takes it; keeps the logits of the last `last` positions.
    pub fn begin(
        decoder: &mut Decoder,
        manner: Manner,
        prompt: &[(&str, &Tensor)],
        length: usize,
        last: usize,
    ) -> Result<Self, GroundError> {
        let mut cache = decoder.begin()?;
        let mut feeds: Vec<_> = prompt.iter().map(|(name, tensor)| (*name, Input::Tensor(tensor))).collect();
        manner.encoder(&mut feeds);
        let logits = decoder.run(&mut cache, &feeds, last)?;
        Ok(Self { cache, manner, place: length, logits })
    }

    /// Logits after the latest token; after the prompt those of the last positions asked for.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Says `token`: the next logits are those of what follows it.
    pub fn say(&mut self, decoder: &mut Decoder, token: u32) -> Result<(), GroundError> {
        let embeds = decoder.embed(&[token.into()])?;
        let place = i64::try_from(self.place).unwrap_or(i64::MAX);
        let i64s = |shape: &[usize], data| Tensor { shape: shape.to_vec(), data: Data::I64(data) };
        let mask = i64s(&[1, self.place + 1], vec![1; self.place + 1]);
        let mut extra = vec![("inputs_embeds", embeds)];
        match self.manner {
            Manner::Mrope { delta, deepstack } => {
                extra.push(("attention_mask", mask));
                extra.push(("position_ids", i64s(&[3, 1, 1], vec![place + delta; 3])));
                if deepstack > 0 {
                    let data = Data::F32(vec![0.0; deepstack * decoder.hidden()]);
                    extra.push(("deepstack_embeds", Tensor { shape: vec![deepstack, 1, 1, decoder.hidden()], data }));
                }
            }
            Manner::FromOne => {
                extra.push(("attention_mask", mask));
                extra.push(("position_ids", i64s(&[1, 1], vec![place + 1])));
            }
            // Where its graph asks for it.
            Manner::Encoder { .. } => extra.push(("attention_mask", mask)),
        }
        let mut feeds: Vec<_> = extra.iter().map(|(name, tensor)| (*name, Input::Tensor(tensor))).collect();
        self.manner.encoder(&mut feeds);
        self.logits = decoder.run(&mut self.cache, &feeds, 1)?;
        self.place += 1;
        Ok(())
    }

    /// Lets the model answer, and reads the boxes out of what it says.
    pub fn answer(
        mut self,
        decoder: &mut Decoder,
        vocabulary: &Vocabulary,
        rules: &Rules,
        codec: &mut dyn Codec,
    ) -> Result<Vec<RawBox>, GroundError> {
        let room = rules.context.saturating_sub(self.place).max(1);
        let mut guard = Guard::new(Caps { tokens: rules.caps.tokens.min(room), ..rules.caps });
        let mut speech = vocabulary.speech();
        let mut boxes = Vec::new();
        loop {
            let (token, probability) =
                best(&self.logits).ok_or_else(|| decoder.failed("its `logits` are not numbers".to_owned()))?;
            if rules.end.contains(&token) {
                break;
            }
            decoder.wrote();
            let found = codec.push(&speech(token), Some(probability));
            // Every box has to pass the guard, whatever it said to the token.
            let stops = [guard.token(token)].into_iter().chain(found.iter().map(|raw| guard.found(raw)));
            let stop = stops.fold(None, Option::or);
            boxes.extend(found);
            if stop.is_some() {
                break;
            }
            self.say(decoder, token)?;
        }
        boxes.extend(codec.finish());
        Ok(boxes)
    }
}

impl Talk {
    /// Lets the model say up to `most` tokens in words.
    pub fn words(
        mut self,
        decoder: &mut Decoder,
        vocabulary: &Vocabulary,
        rules: &Rules,
        most: usize,
    ) -> Result<String, GroundError> {
        let mut guard = Guard::new(Caps { tokens: most, ..rules.caps });
        let (mut speech, mut said) = (vocabulary.speech(), String::new());
        loop {
            let (token, _) =
                best(&self.logits).ok_or_else(|| decoder.failed("its `logits` are not numbers".to_owned()))?;
            if rules.end.contains(&token) {
                return Ok(said);
            }
            said.push_str(&speech(token));
            if guard.token(token).is_some() {
                return Ok(said);
            }
            self.say(decoder, token)?;
        }
    }
}

impl Manner {
    fn encoder<'a>(&'a self, feeds: &mut Vec<(&'a str, Input<'a>)>) {
        if let Self::Encoder { states, mask } = self {
            feeds.push(("encoder_hidden_states", Input::Tensor(states)));
            feeds.push(("encoder_attention_mask", Input::Tensor(mask)));
        }
    }
}

/// The best token and its probability; of equals the first. `None` if the best is not a number, or there is none.
pub fn best(logits: &[f32]) -> Option<(u32, f32)> {
    let (mut at, mut most) = (0, f32::NEG_INFINITY);
    for (i, &logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return None;
        }
        if logit > most {
            (at, most) = (i, logit);
        }
    }
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    most.is_finite().then(|| (at, 1.0 / sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_wins_with_its_softmax_probability() {
        let (token, probability) = best(&[0.0, 2.0, f32::NEG_INFINITY, 2.0]).unwrap();
        assert_eq!(token, 1);
        assert!((probability - 2.0_f32.exp() / (1.0 + 2.0 * 2.0_f32.exp())).abs() < 1e-6);
        assert!(best(&[1e30, 0.0]).is_some_and(|(token, p)| token == 0 && (p - 1.0).abs() < 1e-6));
    }

    #[test]
    fn logits_that_are_not_numbers_are_no_answer() {
        for bad in [&[][..], &[f32::NAN, 1.0], &[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY]] {
            assert_eq!(best(bad), None, "{bad:?}");
        }
    }
}
