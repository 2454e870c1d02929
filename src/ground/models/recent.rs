//! What was computed before and may be asked for again: the latest few, so that memory has an end.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// At most so many values by key; the one not asked for longest makes room.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    known: HashMap<K, (u64, V)>,
    /// Counts look-ups: how long ago is a difference of two of them.
    now: u64,
    most: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), now: 0, most: most.max(1) }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.now += 1;
        let (used, value) = self.known.get_mut(key)?;
        *used = self.now;
        Some(value.clone())
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        if self.known.len() >= self.most
            && !self.known.contains_key(&key)
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            self.known.remove(&oldest);
        }
        self.known.insert(key, (self.now, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_makes_room() {
        let mut recent = Recent::new(3);
        for i in 0..4 {
            assert_eq!(recent.get(&i), None);
            recent.put(i, i * 10);
            assert_eq!(recent.get(&0), Some(0));
        }
        assert_eq!([1, 2, 3].map(|i| recent.get(&i)), [None, Some(20), Some(30)]);
        recent.put(3, 31);
        assert_eq!([0, 2, 3].map(|i| recent.get(&i)), [Some(0), Some(20), Some(31)]);
    }
}
