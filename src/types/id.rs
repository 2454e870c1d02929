//! Names that end up in MQTT topics, so they are checked once, where they enter.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest id accepted; it becomes one level of an MQTT topic and part of a file name.
pub const MAX_ID_LEN: usize = 64;

/// Why a text cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id is the empty string.
    #[error("an id cannot be empty")]
    Empty,
    /// The id has more than [`MAX_ID_LEN`] characters.
    #[error("an id has at most {MAX_ID_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// The id has a character that is not a letter, digit, `-` or `_`.
    #[error("`{id}` has the character {found:?}; an id is made of ASCII letters, digits, `-` and `_`")]
    BadCharacter {
        /// The id as given.
        id: String,
        /// The first offending character.
        found: char,
    },
}

fn checked(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.chars().count() > MAX_ID_LEN {
        return Err(IdError::TooLong(text.chars().count()));
    }
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_') {
        Some(found) => Err(IdError::BadCharacter { id: text.to_owned(), found }),
        None => Ok(text.into()),
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`: 1 to [`MAX_ID_LEN`] ASCII letters, digits, `-` or `_`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                checked(text).map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

id_type!(
    /// A camera's name: its level in every topic.
    CameraId
);
id_type!(
    /// A query's name: its level in `present`, `count` and `snapshot` topics.
    QueryId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_break_a_topic_are_refused() {
        for bad in ["", "a/b", "a b", "+", "#", "gâte", &"x".repeat(65)] {
            assert!(CameraId::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(CameraId::new("gate-1_b").map(|id| id.to_string()), Ok("gate-1_b".to_owned()));
    }
}
