//! Encoded texts: queries are few and long-lived, and changing ones through MQTT must not grow memory.

use std::{collections::HashMap, sync::Arc};

/// Texts that are kept.
const MAX_TEXTS: usize = 256;

/// A query text as the graphs take it.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) ids: Vec<i64>,
    pub(super) features: Vec<f32>,
}

/// Encoded texts, at most [`MAX_TEXTS`]: the one that was not asked for longest makes room.
#[derive(Debug, Default)]
pub(super) struct Texts {
    known: HashMap<Arc<str>, (u64, Arc<Text>)>,
    /// Counts look-ups: how long ago is a difference of two of them.
    now: u64,
}

impl Texts {
    pub(super) fn get(&mut self, text: &str) -> Option<Arc<Text>> {
        self.now += 1;
        let (used, encoded) = self.known.get_mut(text)?;
        *used = self.now;
        Some(Arc::clone(encoded))
    }

    pub(super) fn put(&mut self, text: &str, encoded: &Arc<Text>) {
        if self.known.len() >= MAX_TEXTS
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (used, _))| *used).map(|(t, _)| Arc::clone(t))
        {
            self.known.remove(&oldest);
        }
        self.known.insert(text.into(), (self.now, Arc::clone(encoded)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_not_asked_for_longest_makes_room() {
        let mut texts = Texts::default();
        let encoded = Arc::new(Text { ids: vec![], features: vec![] });
        for i in 0..=MAX_TEXTS {
            assert!(texts.get(&i.to_string()).is_none());
            texts.put(&i.to_string(), &encoded);
            assert!(texts.get("0").is_some());
        }
        assert_eq!(texts.known.len(), MAX_TEXTS);
        assert!(texts.get("1").is_none() && texts.get("2").is_some());
    }
}
