//! The prompt with places for a picture and for regions.
//!
//! One line each: what precedes the user's turn, the picture, every region as its tag and a place, the question. Between
//! two places the text is read on its own, as both originals do (`tokenizer_image_region_token`): what stands before a
//! place never merges with what stands after it. A region's place counts as text where positions are concerned, for the
//! originals give it an id that is no picture's.

use std::ops::Range;

use crate::ground::{
    GroundError,
    codec::regions::{Dialect, SEPARATOR},
    models::tokens::Vocabulary,
    vision::mrope,
};

/// Stands for a region; no token has it.
const PLACE: i64 = -300;

/// A prompt's tokens, and where each stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The tokens: the image token for each token of the picture, and a negative number where a region stands.
    pub ids: Vec<i64>,
    /// Where they stand.
    pub positions: mrope::Positions,
    /// The places of the picture's tokens.
    pub picture: Range<usize>,
    /// The places of the regions, in order.
    pub regions: Vec<usize>,
    /// How many tokens at the end were put into the model's mouth.
    pub said: usize,
}

/// Lays out prompts.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) dialect: Dialect,
    /// What is asked; `{}` is the queries.
    pub(super) question: String,
    /// The token that stands for a piece of the picture.
    pub(super) image: i64,
}

impl Form {
    /// What is asked for some queries.
    pub(super) fn asked(&self, queries: &[&str]) -> String {
        let queries: Vec<_> = queries.iter().map(|query| query.trim()).collect();
        self.question.replacen("{}", &queries.join(SEPARATOR), 1)
    }

    /// The prompt that shows a picture of `tokens` tokens and a grid of patches, then `regions` regions, asks, and begins the
    /// answer with `begun`.
    pub(super) fn prompt(
        &self,
        vocabulary: &Vocabulary,
        (tokens, grid): (usize, (u32, u32)),
        regions: usize,
        asked: &str,
        begun: &str,
    ) -> Result<Prompt, GroundError> {
        let mut ids = vocabulary.encode(&format!("{}<|im_start|>user\n<|vision_start|>", self.dialect.system()))?;
        let picture = ids.len()..ids.len() + tokens;
        ids.resize(picture.end, self.image);
        let mut places = Vec::with_capacity(regions);
        // What precedes the next place.
        let mut between = "<|vision_end|>\n".to_owned();
        for index in 0..regions {
            ids.extend(vocabulary.encode(&format!("{between}{}", self.dialect.tag(index)))?);
            places.push(ids.len());
            ids.push(PLACE);
            between.clear();
        }
        if regions > 0 {
            between.push('\n');
        }
        ids.extend(vocabulary.encode(&format!("{between}{asked}<|im_end|>\n<|im_start|>assistant\n"))?);
        let said = if begun.is_empty() { Vec::new() } else { vocabulary.encode(begun)? };
        ids.extend(&said);
        let positions = mrope::Positions::of(&ids, self.image, &[grid])?;
        Ok(Prompt { ids, positions, picture, regions: places, said: said.len() })
    }
}

impl Prompt {
    /// The tokens as an embedding table takes them: what stands at a region's place is put there afterwards.
    pub(super) fn known(&self) -> Vec<i64> {
        self.ids.iter().map(|id| (*id).max(0)).collect()
    }
}
