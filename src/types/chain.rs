//! Errors as people read them.

use std::error::Error;

/// An error and its causes in one line, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("it failed")]
        Silent(#[source] io::Error),
        #[error("it failed: {0}")]
        Telling(#[source] io::Error),
    }

    #[test]
    fn a_cause_is_said_once() {
        for outer in [Outer::Silent, Outer::Telling] {
            assert_eq!(chain(&outer(io::Error::other("no room"))), "it failed: no room");
        }
    }
}
