//! A published vocabulary: texts to token ids, and an answer's ids back to text as they come.

use std::{collections::HashSet, sync::Arc};

use tokenizers::{Encoding, Tokenizer};

use crate::ground::{GroundError, manifest::Manifest, methods::retrieve::TextCheck};

/// Tokens that a prompt has beside the picture and the query, with room to spare.
const FRAME: usize = 48;

/// Opens the manifest's vocabulary, a `tokenizer.json`.
pub(super) fn tokenizer(manifest: &Manifest) -> Result<Tokenizer, GroundError> {
    let file = manifest.dir.join(&manifest.tokens.vocabulary);
    let bad = |reason: String| GroundError::Vocabulary { file: file.clone(), reason };
    let mut tokenizer = Tokenizer::from_file(&file).map_err(|e| bad(e.to_string()))?;
    // Published vocabularies come with the lengths their trainers used.
    tokenizer.with_truncation(None).map_err(|e| bad(e.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The tokens of a text, none added.
pub(super) fn read(tokenizer: &Tokenizer, text: &str, model: &str) -> Result<Encoding, String> {
    let encoded = tokenizer.encode_fast(text, false);
    encoded.map_err(|e| format!("{model} cannot read the text: {e}; say it with other words"))
}

/// Why a text that holds this token cannot be asked.
pub(super) fn reserved(token: &str, model: &str) -> String {
    format!("the text contains `{token}`, which has a meaning of its own to {model}; leave it out")
}

/// Why a text without tokens cannot be asked.
pub(super) fn empty(text: &str, model: &str) -> String {
    format!("there is nothing in \"{text}\" that {model} could read; say what to look for")
}

/// The vocabulary of a model, and which of its tokens no query may contain.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    reserved: HashSet<u32>,
    model: String,
    most: usize,
}

impl Vocabulary {
    /// Reads the manifest's vocabulary, a `tokenizer.json`.
    pub fn load(manifest: &Manifest) -> Result<Self, GroundError> {
        Self::load_beside(manifest, 0, 1)
    }

    /// The same where a prompt has `taken` more tokens, and room for `texts` texts.
    pub fn load_beside(manifest: &Manifest, taken: usize, texts: usize) -> Result<Self, GroundError> {
        let tokenizer = tokenizer(manifest)?;
        let limits = &manifest.limits;
        let taken = limits.image_tokens.saturating_add(FRAME).saturating_add(taken);
        let most = limits.context.saturating_sub(taken) / texts.max(1);
        if most == 0 {
            let reason = "limits.context leaves no room for words beside limits.image_tokens";
            return Err(GroundError::unfit(manifest, reason));
        }
        let reserved = manifest.tokens.reserved().into_iter().collect();
        Ok(Self { tokenizer, reserved, model: manifest.name.clone(), most })
    }

    /// The token that is written `text`, and from now on nothing that a query may contain.
    pub fn reserve(&mut self, text: &str) -> Option<u32> {
        let id = self.tokenizer.token_to_id(text)?;
        self.reserved.insert(id);
        Some(id)
    }

    /// The tokens of a text, none added.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, GroundError> {
        let encoded = self.tokenizer.encode_fast(text, false);
        // What a tokenizer cannot encode is no picture's and no graph's fault; the checker has seen the query before.
        let encoded = encoded.map_err(|e| GroundError::Text { reason: e.to_string() })?;
        Ok(encoded.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Whether `text` can be asked: short enough, and without tokens that would change the prompt's structure.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let model = &self.model;
        let encoded = read(&self.tokenizer, text, model)?;
        if let Some(id) = encoded.get_ids().iter().find(|id| self.reserved.contains(id)) {
            let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
            return Err(reserved(&token, model));
        }
        match encoded.get_ids().len() {
            0 => Err(empty(text, model)),
            count if count > self.most => {
                Err(format!("the text has {count} tokens; {model} takes at most {}: shorten it", self.most))
            }
            _ => Ok(()),
        }
    }

    /// The check, from any thread.
    pub fn checker(self: &Arc<Self>) -> TextCheck {
        let own = Arc::clone(self);
        Arc::new(move |text| own.check(text))
    }

    /// The pieces of text that tokens add to an answer, one after the other. A token that ends in the middle of a
    /// character adds nothing until the character is complete.
    pub fn speech(&self) -> impl FnMut(u32) -> String {
        let mut stream = self.tokenizer.decode_stream(false);
        move |id| {
            if let Ok(piece) = stream.step(id) {
                return piece.unwrap_or_default();
            }
            // Bytes that are no text: forget them, and go on with this token.
            stream = self.tokenizer.decode_stream(false);
            stream.step(id).ok().flatten().unwrap_or_default()
        }
    }
}
