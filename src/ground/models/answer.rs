//! Until the answer is over: greedy, several side by side.
//!
//! Answers take the best token each time, and its probability. They end with an end token, with a cap, or with the
//! [`Guard`] that sees a model going round in circles; a row that is over drops out, and the others go on without it.

use std::sync::Arc;

use super::{
    Open,
    decoder::Decoder,
    need, not_numbers,
    plan::{self, Rows},
    speech::Talk,
    tokens::Vocabulary,
};
use crate::ground::{
    GroundError,
    codec::{
        Codec, RawBox,
        guard::{Caps, Guard},
        softmax::best,
    },
    manifest::Manifest,
    methods::written::Located,
};

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
    /// What the manifest says of answers. Without a token that ends them every one would go on to its cap.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, GroundError> {
        let (limits, end) = (&manifest.limits, &manifest.tokens.end);
        Ok(Self {
            end: need(manifest, "tokens.end", Some(end.clone()).filter(|end| !end.is_empty()))?,
            caps: Caps { tokens: limits.answer_tokens, boxes: limits.boxes },
            context: limits.context,
        })
    }

    /// Watches an answer of up to `tokens` tokens after `place` others.
    pub(super) fn guard(&self, place: usize, tokens: usize) -> Guard {
        let room = self.context.saturating_sub(place).max(1);
        Guard::new(Caps { tokens: tokens.min(room), ..self.caps })
    }
}

/// One answer as it is written.
struct Speaker<S> {
    guard: Guard,
    speech: S,
    codec: Box<dyn Codec>,
    boxes: Vec<RawBox>,
    /// Why there is no answer.
    failed: Option<GroundError>,
}

impl<S: FnMut(u32) -> String> Speaker<S> {
    /// Takes the next token; `false` if the answer ends with it.
    fn goes_on_after(&mut self, token: u32, probability: f32) -> bool {
        let found = self.codec.push(&(self.speech)(token), Some(probability));
        // Every box that the model made up has to pass the guard, whatever it said to the token.
        let made_up = if self.codec.chooses() { &[][..] } else { &found };
        let stops = [self.guard.token(token)].into_iter().chain(made_up.iter().map(|raw| self.guard.found(raw)));
        let stop = stops.fold(None, Option::or);
        self.boxes.extend(found);
        stop.is_none()
    }
}

/// What writes a model's answers.
pub(super) struct Pen {
    pub(super) decoder: Decoder,
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) rules: Rules,
    pub(super) choir: Choir,
}

impl Pen {
    /// Opens the language model of a manifest, whose words these are.
    pub(super) fn open(manifest: &Manifest, words: Vocabulary, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let rules = Rules::of(manifest)?;
        let decoder = Decoder::open(manifest, open)?;
        Ok(Self { decoder, vocabulary: Arc::new(words), rules, choir: Choir::of(manifest) })
    }

    /// Lets the model give all the answers, and reads the boxes out of what it says. An answer whose numbers are wrong drops out,
    /// and the others go on without it.
    pub(super) fn all(&mut self, talks: Vec<(Talk, Box<dyn Codec>)>) -> Result<Vec<Located>, GroundError> {
        let Self { decoder, vocabulary, rules, .. } = self;
        let (talks, codecs): (Vec<_>, Vec<_>) = talks.into_iter().unzip();
        let mut talk = Talk::join(decoder, talks)?;
        let speaker = |(row, codec)| {
            let guard = rules.guard(talk.place(row), rules.caps.tokens);
            Speaker { guard, speech: vocabulary.speech(), codec, boxes: Vec::new(), failed: None }
        };
        let mut speakers: Vec<_> = codecs.into_iter().enumerate().map(speaker).collect();
        // Who speaks in each row.
        let mut going: Vec<usize> = (0..speakers.len()).collect();
        loop {
            let (mut rows, mut tokens) = (Vec::new(), Vec::new());
            for (row, at) in going.iter().enumerate() {
                let (token, probability) = match told(decoder, talk.next(row)) {
                    Ok(best) => best,
                    Err(error) => {
                        speakers[*at].failed = Some(error);
                        continue;
                    }
                };
                if rules.end.contains(&token) {
                    continue;
                }
                decoder.wrote();
                if speakers[*at].goes_on_after(token, probability) {
                    rows.push(row);
                    tokens.push(token);
                }
            }
            if rows.is_empty() {
                break;
            }
            if rows.len() < going.len() {
                talk.pick(decoder, &rows)?;
                going = rows.iter().map(|row| going[*row]).collect();
            }
            talk.say(decoder, &tokens)?;
        }
        let finish = |mut speaker: Speaker<_>| {
            if let Some(error) = speaker.failed {
                return Err(error);
            }
            speaker.boxes.extend(speaker.codec.finish());
            Ok(speaker.boxes)
        };
        Ok(speakers.into_iter().map(finish).collect())
    }

    /// Lets the model say up to `most` tokens in words.
    pub(super) fn words(&mut self, mut talk: Talk, most: usize) -> Result<String, GroundError> {
        let Self { decoder, vocabulary, rules, .. } = self;
        let mut guard = rules.guard(talk.place(0), most);
        let (mut speech, mut said) = (vocabulary.speech(), String::new());
        loop {
            let (token, _) = told(decoder, talk.next(0))?;
            if rules.end.contains(&token) {
                return Ok(said);
            }
            decoder.wrote();
            said.push_str(&speech(token));
            if guard.token(token).is_some() {
                return Ok(said);
            }
            talk.say(decoder, &[token])?;
        }
    }
}

/// What a model's pen writes to prompts of these lengths; `begin` begins the answer to one of them, and says how it is to be read.
pub(super) fn locate<M>(
    model: &mut M,
    pen: fn(&mut M) -> &mut Pen,
    lengths: &[usize],
    begin: impl Fn(&mut M, usize) -> Result<(Talk, Box<dyn Codec>), GroundError>,
) -> Result<Vec<Located>, GroundError> {
    let mut choir = pen(model).choir;
    let answers = choir.answer(lengths, |group| {
        let talks = group.iter().map(|at| begin(model, *at)).collect::<Result<_, _>>()?;
        pen(model).all(talks)
    });
    pen(model).choir = choir;
    answers
}

/// How many answers are written side by side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choir {
    /// How the graph takes them.
    pub(super) rows: Rows,
    /// The most at once.
    most: usize,
}

impl Choir {
    /// One at a time, until it is known what the graph does; then as many as the manifest allows.
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self { rows: Rows::default(), most: manifest.limits.rows }
    }

    /// Answers questions whose prompts have these lengths; `sing` begins and ends those it is given the numbers of. Where the
    /// engine fails they are tried in halves, and not so many again: the reason may be memory. What is wrong with one answer is
    /// that one's alone.
    pub(super) fn answer(
        &mut self,
        lengths: &[usize],
        mut sing: impl FnMut(&[usize]) -> Result<Vec<Located>, GroundError>,
    ) -> Result<Vec<Located>, GroundError> {
        let mut answers: Vec<Located> = lengths.iter().map(|_| Ok(Vec::new())).collect();
        let mut groups = plan::groups(lengths, self.rows, self.most);
        groups.reverse();
        while let Some(group) = groups.pop() {
            let (upper, lower) = group.split_at(group.len() / 2);
            if group.len() > self.most {
                groups.extend([lower.to_vec(), upper.to_vec()]);
                continue;
            }
            match sing(&group) {
                Ok(sung) => group.iter().zip(sung).for_each(|(at, located)| answers[*at] = located),
                Err(error @ GroundError::Engine(_)) if group.len() > 1 => {
                    self.most = group.len() / 2;
                    tracing::warn!("{} answers at once: {error}; from now on at most {}", group.len(), self.most);
                    groups.push(group);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

/// The best token and its probability.
pub(super) fn told(decoder: &Decoder, logits: &[f32]) -> Result<(u32, f32), GroundError> {
    let (at, probability) = best(logits).ok_or_else(|| decoder.failed(not_numbers("logits")))?;
    Ok((u32::try_from(at).unwrap_or(u32::MAX), probability))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::engine::EngineError;

    #[test]
    fn only_an_engine_that_fails_is_asked_less_at_once() {
        let failed = || {
            let (file, reason) = ("decoder.onnx".into(), "there is no memory".to_owned());
            GroundError::from(EngineError::Run { file, reason })
        };
        let mut choir = Choir { rows: Rows::Any, most: 4 };
        let one = |at: &usize| if *at == 2 { Err(failed()) } else { Ok(Vec::new()) };
        let sung = choir.answer(&[1; 4], |group| Ok(group.iter().map(one).collect())).unwrap();
        assert_eq!(sung.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
        assert!(choir.answer(&[1; 4], |_| Err(GroundError::Text { reason: String::new() })).is_err());
        assert_eq!(choir.most, 4);
        let mut groups = Vec::new();
        let sung = choir.answer(&[1; 4], |group| {
            groups.push(group.len());
            if group.len() > 2 { Err(failed()) } else { Ok(group.iter().map(|_| Ok(Vec::new())).collect()) }
        });
        assert!(sung.unwrap().iter().all(Result::is_ok));
        assert_eq!((groups, choir.most), (vec![4, 2, 2], 2));
    }
}
