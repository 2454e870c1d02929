//! Until the answer is over: greedy, several side by side.
//!
//! Answers take the best token each time, and its probability. They end with an end token, with a cap, or with the
//! [`Guard`] that sees a model going round in circles; a row that is over drops out, and the others go on without it.

use super::{
    decoder::Decoder,
    need,
    plan::{self, Rows},
    speech::Talk,
    tokens::Vocabulary,
};
use crate::ground::{
    GroundError,
    codec::{
        Codec, RawBox,
        guard::{Caps, Guard},
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

/// Lets the model give all the answers, and reads the boxes out of what it says. An answer whose numbers are wrong drops out,
/// and the others go on without it.
pub(super) fn all(
    decoder: &mut Decoder,
    vocabulary: &Vocabulary,
    rules: &Rules,
    talks: Vec<(Talk, Box<dyn Codec>)>,
) -> Result<Vec<Located>, GroundError> {
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
pub(super) fn words(
    decoder: &mut Decoder,
    vocabulary: &Vocabulary,
    rules: &Rules,
    mut talk: Talk,
    most: usize,
) -> Result<String, GroundError> {
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

/// The best token and its probability.
pub(super) fn told(decoder: &Decoder, logits: &[f32]) -> Result<(u32, f32), GroundError> {
    Ok(best(logits).ok_or_else(|| decoder.failed(crate::ground::models::not_numbers("logits")))?)
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
    use crate::ground::engine::EngineError;

    #[test]
    fn the_first_of_the_best_wins_with_its_softmax_probability() {
        let (token, probability) = best(&[0.0, 2.0, f32::NEG_INFINITY, 2.0]).unwrap();
        assert_eq!(token, 1);
        assert!((probability - 2.0_f32.exp() / (1.0 + 2.0 * 2.0_f32.exp())).abs() < 1e-6);
        assert!(best(&[1e30, 0.0]).is_some_and(|(token, p)| token == 0 && (p - 1.0).abs() < 1e-6));
    }

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

    #[test]
    fn logits_that_are_not_numbers_are_no_answer() {
        for bad in [&[][..], &[f32::NAN, 1.0], &[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY]] {
            assert_eq!(best(bad), None, "{bad:?}");
        }
    }
}
