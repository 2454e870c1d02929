//! The text of a configuration file, and where in it something stands: every error names its line.

use std::path::Path;

use super::ConfigError;
use crate::ingest::may_be_address;

/// A file that is being checked. Places in it are bytes from its start.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Where relative paths begin.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// What stands at `at` cannot be meant.
    pub(super) fn invalid(&self, at: usize, message: impl Into<String>) -> ConfigError {
        let line = line_of(self.text.as_bytes(), at);
        ConfigError::Invalid { path: self.path.to_owned(), line, message: message.into() }
    }

    /// What `toml` says about the text, and where. It would also show the line, which may hold a password.
    pub(super) fn unreadable(&self, error: &toml::de::Error) -> ConfigError {
        let text = self.text;
        let before = &text[..error.span().map_or(0, |span| text.floor_char_boundary(span.start))];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let (line, column) = (line_of(text.as_bytes(), before.len()), before[start..].chars().count() + 1);
        let key = text[start..].lines().next().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
        let is_key = |key: &&str| key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        let key = key.filter(is_key).map_or(String::new(), |key| format!(", `{key}`"));
        let said = error.message();
        let said = if may_be_address(said) { "a value of the wrong kind, or not as TOML has it" } else { said };
        let message = format!("line {line}, column {column}{key}: {said}");
        ConfigError::Toml { path: self.path.to_owned(), message }
    }

    /// Where `key` is set in the table `name`, which begins at `table`, or in a table inside it: `control.query` is in
    /// `[mqtt.control]`. The table's own place if there is no such line.
    pub(super) fn key(&self, name: &str, table: usize, key: &str) -> usize {
        let inner = || {
            let (inner, key) = key.split_once('.')?;
            let header = format!("[{name}.{inner}]");
            let (at, _) = self.lines(0).find(|(_, line)| line.starts_with(&header))?;
            Some(self.setting(at, key).unwrap_or(at))
        };
        self.setting(table, key).or_else(inner).unwrap_or(table)
    }

    /// Where the table whose header is at `header` sets `key`.
    fn setting(&self, header: usize, key: &str) -> Option<usize> {
        let sets = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
        let mut lines = self.lines(header).skip(1).take_while(|(_, line)| !line.starts_with('['));
        lines.find(|(_, line)| sets(line)).map(|(at, _)| at)
    }

    /// The lines from `start` on, without what they are indented by, and where each begins.
    fn lines(&self, start: usize) -> impl Iterator<Item = (usize, &str)> {
        self.text[start..].split_inclusive('\n').scan(start, |next, line| {
            let at = *next;
            *next += line.len();
            Some((at, line.trim_start()))
        })
    }
}

/// Line of byte `offset`, counting from 1.
pub(super) fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_own_table() {
        let text = "[mqtt]\n# url = 1\nurls = 2\n  url  = 3\n[mqtt.control]\nquery = 4\n[http]\nusername = 5\n";
        let source = Source { path: Path::new("g.toml"), text };
        let line = |key| line_of(text.as_bytes(), source.key("mqtt", 0, key));
        assert_eq!(["url", "control.query", "control.camera", "username"].map(line), [4, 6, 5, 1]);
        let text = "[mqtt]\ncontrol.query = 1\n";
        let source = Source { path: Path::new("g.toml"), text };
        assert_eq!(source.key("mqtt", 0, "control.query"), 7);
    }
}
