//! A JSON file whose values are asked for by key; what is wrong with one names the file and the key.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::ManifestError;

/// A file, or the part of one under some key.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) file: PathBuf,
    value: Value,
}

impl Json {
    pub(super) fn read(file: PathBuf) -> Result<Self, ManifestError> {
        let value = parse(&file)?;
        Ok(Self { file, value })
    }

    /// What stands under `key`.
    pub(super) fn part(&self, key: &str) -> Result<Self, ManifestError> {
        let value = self.get(key)?.ok_or_else(|| self.wrong(key, "is missing"))?;
        Ok(Self { file: self.file.clone(), value })
    }

    /// The value under `a.b.c`; none if it is missing or null.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ManifestError> {
        let found = key.split('.').try_fold(&self.value, |value, part| value.get(part));
        match found {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|e| self.wrong(key, &e.to_string())),
        }
    }

    /// The first value that there is.
    pub(super) fn first<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Option<T>, ManifestError> {
        for key in keys {
            if let Some(found) = self.get(key)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first value that there is; an error that names the first key if there is none.
    pub(super) fn need<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<T, ManifestError> {
        self.first(keys)?.ok_or_else(|| self.wrong(keys.first().copied().unwrap_or_default(), "is missing"))
    }

    /// An error about `key`.
    pub(super) fn wrong(&self, key: &str, reason: &str) -> ManifestError {
        ManifestError::Value { file: self.file.clone(), key: key.to_owned(), reason: reason.to_owned() }
    }

    /// The special tokens of a `tokenizer.json`, by their text.
    pub(super) fn added_tokens(file: &Path) -> Result<BTreeMap<String, u32>, ManifestError> {
        #[derive(Deserialize)]
        struct Tokenizer {
            #[serde(default)]
            added_tokens: Vec<Added>,
        }
        #[derive(Deserialize)]
        struct Added {
            id: u32,
            content: String,
        }
        let tokenizer: Tokenizer = parse(file)?;
        Ok(tokenizer.added_tokens.into_iter().map(|token| (token.content, token.id)).collect())
    }
}

fn parse<T: DeserializeOwned>(file: &Path) -> Result<T, ManifestError> {
    let text = fs::read(file).map_err(|source| ManifestError::Read { file: file.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|e| ManifestError::Syntax { file: file.to_owned(), reason: e.to_string() })
}
