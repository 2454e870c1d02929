//! A word-level vocabulary: what a text's words are as numbers. A word that is not in it is refused, never guessed.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use crate::ground::GroundError;

/// The id that fills a text up to its full length.
pub const PAD: i64 = 0;

/// Words and their ids; several words may share one.
#[derive(Debug)]
pub struct Words {
    ids: HashMap<String, i64>,
    /// By these one thing is meant.
    one: Vec<String>,
    example: String,
    /// Whom the messages speak of.
    model: String,
    length: usize,
}

impl Words {
    /// Reads `{"word": id, …}` from `file`. Texts of `model` become `length` ids; those with one of the words `one` mean one thing.
    pub fn load(file: &Path, model: &str, length: usize, one: &[String]) -> Result<Self, GroundError> {
        let bad = |reason: String| GroundError::Vocabulary { file: file.to_owned(), reason };
        let text = fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
        let ids: HashMap<String, i64> = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if ids.get("<pad>") != Some(&PAD) {
            return Err(bad(format!("`<pad>` should be {PAD}")));
        }
        if let Some((word, id)) = ids.iter().find(|(word, id)| **id < 0 || (**id == PAD && *word != "<pad>")) {
            return Err(bad(format!("`{word}` cannot be {id}")));
        }
        let spoken = ids.keys().filter(|word| !word.is_empty() && word.chars().all(char::is_alphanumeric)).min();
        let example = spoken.cloned().ok_or_else(|| bad("it has no word".to_owned()))?;
        if let Some(word) = one.iter().find(|word| !ids.contains_key(*word)) {
            return Err(bad(format!("`{word}`, which `one` in [tokens] names, is not in it")));
        }
        Ok(Self { ids, one: one.to_vec(), example, model: model.to_owned(), length })
    }

    /// The text's words as ids, padded to full length. Fails if it has no word, too many, or one that is not known;
    /// the message names them and is for people.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, String> {
        let lower = text.to_lowercase();
        let words: Vec<_> = split(&lower).collect();
        let model = &self.model;
        // In the order of the text, each once. Names such as `<unk>` cannot come up: their brackets split words.
        let mut seen = BTreeSet::new();
        let unknown = words.iter().filter(|w| !self.ids.contains_key(**w) && seen.insert(**w));
        let unknown: Vec<_> = unknown.map(|w| format!("`{w}`")).collect();
        match unknown.as_slice() {
            [] => (),
            [one] => return Err(format!("{model} does not know the word {one}; say it with other words")),
            many => return Err(format!("{model} does not know the words {}; say it with others", many.join(", "))),
        }
        if words.is_empty() {
            return Err(format!("there is no word in \"{text}\"; say what to look for"));
        }
        if words.len() > self.length {
            let (count, most) = (words.len(), self.length);
            return Err(format!("the text has {count} words; {model} takes at most {most}: shorten it"));
        }
        let mut ids: Vec<_> = words.iter().filter_map(|w| self.ids.get(*w).copied()).collect();
        ids.resize(self.length, PAD);
        Ok(ids)
    }

    /// Whether one thing is meant, whatever else fits.
    pub fn means_one(&self, text: &str) -> bool {
        split(&text.to_lowercase()).any(|word| self.one.iter().any(|one| one == word))
    }

    /// A word the model knows, to warm up with.
    pub fn example(&self) -> &str {
        &self.example
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(json: &str) -> Result<Words, GroundError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vocab.json");
        fs::write(&file, json).unwrap();
        Words::load(&file, "tiny", 4, &["red".to_owned()])
    }

    fn english() -> Words {
        words(r#"{"<pad>": 0, "<unk>": 1, "the": 2, "a": 2, "red": 3, "car": 4, "straße": 5, "unk": 6}"#).unwrap()
    }

    #[test]
    fn case_and_punctuation_do_not_matter() {
        for text in ["the red car", "A  RED, car!", "a-red_car", "\u{a0}The “red” (car)."] {
            assert_eq!(english().encode(text), Ok(vec![2, 3, 4, PAD]), "{text}");
        }
        assert_eq!(english().encode("STRASSE Straße").unwrap_err().matches('`').count(), 2);
        assert_eq!(english().encode("Straße"), Ok(vec![5, 0, 0, 0]));
    }

    #[test]
    fn unknown_words_are_named_once_each_and_never_guessed() {
        let error = english().encode("the zebra").unwrap_err();
        assert!(error.contains("tiny does not know the word `zebra`"), "{error}");
        let error = english().encode("zebra and Zebra or emu car").unwrap_err();
        assert!(error.contains("the words `zebra`, `and`, `or`, `emu`;"), "{error}");
    }

    #[test]
    fn some_words_mean_one_thing() {
        for (text, one) in
            [("the Red car", true), ("car,red", true), ("the car", false), ("redcar", false), ("", false)]
        {
            assert_eq!(english().means_one(text), one, "{text}");
        }
        let error = words(r#"{"<pad>": 0, "the": 2}"#).unwrap_err().to_string();
        assert!(error.contains("`red`, which `one` in [tokens] names, is not in it"), "{error}");
    }

    #[test]
    fn reserved_names_are_not_words() {
        assert_eq!(english().encode("<unk>"), Ok(vec![6, 0, 0, 0]));
        assert!(english().encode("<pad>").unwrap_err().contains("`pad`"));
    }

    #[test]
    fn texts_without_words_or_with_too_many_are_refused() {
        assert!(english().encode("?!").unwrap_err().contains("no word"));
        let error = english().encode("a red car a red car").unwrap_err();
        assert!(error.contains("6 words") && error.contains("at most 4"), "{error}");
    }

    #[test]
    fn a_vocabulary_that_would_mislead_is_refused() {
        for (json, wrong) in [
            ("[]", "invalid type"),
            (r#"{"the": 2}"#, "`<pad>` should be 0"),
            (r#"{"<pad>": 0, "<unk>": 1}"#, "no word"),
            (r#"{"<pad>": 0, "the": 0}"#, "`the` cannot be 0"),
            (r#"{"<pad>": 0, "the": -2}"#, "`the` cannot be -2"),
        ] {
            let error = words(json).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("vocab.json"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_encoded_in_full_or_refused(text in "\\PC{0,40}|((the|red|car)[ ,.]){0,6}") {
            if let Ok(ids) = english().encode(&text) {
                prop_assert_eq!(ids.len(), 4);
                prop_assert!(ids[0] != PAD && ids.iter().all(|id| (0..=6).contains(id) && *id != 1));
            }
        }
    }
}
