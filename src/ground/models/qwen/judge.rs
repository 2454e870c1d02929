//! Qwen-VL asked yes or no, and for what a question is about: what a zoom search wants to know of it.

use super::{Prompt, Qwen, Seen};
use crate::ground::{
    GroundError,
    methods::zoom::views::Judge,
    vision::mrope,
    zoom::{Rules, cues, wording::Part},
};

/// Tokens of an answer that names things (`max_new_tokens` in the original).
const MOST_TOKENS: usize = 256;

impl Judge for Qwen {
    fn search_rules(&self) -> Rules {
        Rules::qwen()
    }

    fn sure(&mut self, pictures: &[&Seen], parts: &[Part]) -> Result<f64, GroundError> {
        let talk = self.begin_with(pictures, parts, 1)?;
        let logit = |word: &str| -> Result<f64, GroundError> {
            let first = self.pen.vocabulary.encode(word)?.first().copied();
            let at = first.and_then(|id| usize::try_from(id).ok());
            let logit = at.and_then(|at| talk.logits().get(at)).copied().filter(|logit| !logit.is_nan());
            Ok(logit.map(f64::from).ok_or_else(|| self.pen.decoder.failed(format!("it gave no logit for `{word}`")))?)
        };
        let (yes, no) = (logit("Yes")?, logit("No")?);
        // 2·(softmax - 1/2) of two is the hyperbolic tangent of half their difference.
        Ok(((yes - no) / 2.0).tanh())
    }

    fn cues(&mut self, question: &str) -> Result<Vec<String>, GroundError> {
        let (turns, last) = cues::conversation(question);
        let mut ids = self.opening()?;
        for (asked, answer) in turns {
            ids.extend(self.turn("user", &self.pen.vocabulary.encode(&asked)?)?);
            ids.extend(self.turn("assistant", &self.pen.vocabulary.encode(answer)?)?);
        }
        ids.extend(self.turn("user", &self.pen.vocabulary.encode(&last)?)?);
        ids.extend(self.answering()?);
        if ids.len() + MOST_TOKENS > self.pen.rules.context {
            return Ok(Vec::new());
        }
        let positions = mrope::Positions::of(&ids, self.marks.image, &[])?;
        let talk = self.begin_prompt(&[], &Prompt { ids, positions }, 1)?;
        let said = self.pen.words(talk, MOST_TOKENS)?;
        Ok(cues::read(&said))
    }
}
