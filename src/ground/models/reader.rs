//! Texts as models that read them whole take them: token ids with the tokens that begin and end a text, filled up where
//! the graph has a fixed length.

use std::{collections::HashSet, sync::Arc};

use tokenizers::Tokenizer;

use super::{
    need,
    tokens::{empty, read, reserved, tokenizer},
};
use crate::ground::{
    GroundError,
    engine::Tensor,
    manifest::{Manifest, TextInput},
    methods::retrieve::TextCheck,
};

/// Reads texts for one model.
pub(super) struct Reader {
    tokenizer: Tokenizer,
    rules: TextInput,
    /// Tokens that begin and end a text, where the manifest names them; else the tokenizer's own do.
    around: Option<[Vec<i64>; 2]>,
    reserved: HashSet<u32>,
    model: String,
}

/// A text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    /// All of them, those that fill up included.
    pub(super) ids: Vec<i64>,
    /// How many are the text's, with those that begin and end it.
    pub(super) count: usize,
}

impl Ids {
    /// `input_ids` and `attention_mask`, `[1, length]` each.
    pub(super) fn tensors(&self) -> [Tensor; 2] {
        let shape = vec![1, self.ids.len()];
        let mask = (0..self.ids.len()).map(|at| i64::from(at < self.count)).collect();
        [Tensor::i64s(&shape, self.ids.clone()), Tensor::i64s(&shape, mask)]
    }
}

impl Reader {
    /// Reads the manifest's vocabulary, a `tokenizer.json`, and its `[text]`.
    pub(super) fn load(manifest: &Manifest) -> Result<Self, GroundError> {
        let rules = need(manifest, "text", manifest.text.clone())?;
        if rules.template.matches("{}").count() != 1 {
            return Err(GroundError::unfit(
                manifest,
                format!("text.template: `{}` should hold {{}} once", rules.template),
            ));
        }
        let tokenizer = tokenizer(manifest)?;
        let special = tokenizer.get_added_tokens_decoder();
        let reserved = special.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        let tokens = &manifest.tokens;
        let ids = |ids: &[u32]| ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        let around = (tokens.begin.is_some() || !tokens.end.is_empty())
            .then(|| [ids(tokens.begin.as_slice()), ids(&tokens.end)]);
        Ok(Self { tokenizer, rules, around, reserved, model: manifest.name.clone() })
    }

    /// The tokens of some words, none added; refuses those that have a meaning of their own to the model.
    pub(super) fn words(&self, text: &str) -> Result<Vec<i64>, String> {
        let model = &self.model;
        let cleaned = self.cleaned(text);
        let encoded = read(&self.tokenizer, &cleaned, model)?;
        if let Some(id) = encoded.get_ids().iter().find(|id| self.reserved.contains(id)) {
            let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
            if !cleaned.contains(&token) {
                // What stands for anything that is not in the vocabulary.
                return Err(format!(
                    "\"{text}\" has something in it that {model} cannot read; say it with other words"
                ));
            }
            return Err(reserved(&token, model));
        }
        if encoded.get_ids().is_empty() {
            return Err(empty(text, model));
        }
        Ok(encoded.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// A query as the model is told it: in the template.
    pub(super) fn query(&self, text: &str) -> Result<Ids, String> {
        // The words alone first, or the template's would hide that there are none.
        self.words(text)?;
        self.whole(&self.rules.template.replacen("{}", text, 1))
    }

    /// A whole text: with the tokens that begin and end it, and filled up.
    pub(super) fn whole(&self, text: &str) -> Result<Ids, String> {
        let words = self.words(text)?;
        if let Some([begin, end]) = &self.around {
            return self.filled([begin.as_slice(), &words, end].concat());
        }
        let encoded = self.tokenizer.encode_fast(self.cleaned(text), true);
        let encoded = encoded.map_err(|e| format!("{} cannot read the text: {e}", self.model))?;
        self.filled(encoded.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Checks the length, and fills up if texts are.
    pub(super) fn filled(&self, mut ids: Vec<i64>) -> Result<Ids, String> {
        let (count, most) = (ids.len(), self.rules.length);
        if count > most {
            let model = &self.model;
            return Err(format!("the text has {count} tokens; {model} takes at most {most}: shorten it"));
        }
        if let Some(pad) = self.rules.pad {
            ids.resize(most, pad);
        }
        Ok(Ids { ids, count })
    }

    /// Most tokens of a text.
    pub(super) fn length(&self) -> usize {
        self.rules.length
    }

    /// Whom messages speak of.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Whether a query can be asked, from any thread.
    pub(super) fn checker(self: &Arc<Self>) -> TextCheck {
        let own = Arc::clone(self);
        Arc::new(move |text| own.query(text).map(drop))
    }

    fn cleaned(&self, text: &str) -> String {
        let mut text = text.trim().to_owned();
        if self.rules.lowercase {
            text = text.to_lowercase();
        }
        if self.rules.plain {
            text.retain(|c| !c.is_ascii_punctuation());
            text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        text
    }
}
