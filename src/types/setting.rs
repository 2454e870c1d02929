//! A setting of a table in the configuration that cannot be meant.

use std::fmt;

/// Which setting, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongSetting {
    /// The key in its table.
    pub key: &'static str,
    /// What is wrong and what to do; continues a sentence that the key begins.
    pub problem: String,
}

impl WrongSetting {
    /// `key` is set to what `problem` says.
    pub fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into() }
    }
}

impl fmt::Display for WrongSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.problem)
    }
}
