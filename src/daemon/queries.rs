//! Revisions: every change of a query gets a number its id never had before.

use std::collections::BTreeMap;

use crate::{
    config::QueryConfig,
    types::{QueryId, QuerySet},
};

/// Counts the changes of whatever has a name. Remembers every id ever seen, so that what is removed and added again is a new
/// revision.
#[derive(Debug)]
pub(super) struct Changes<K, V>(BTreeMap<K, (u32, Option<V>)>);

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Changes<K, V> {
    /// Takes note of all there is now.
    pub(super) fn note(&mut self, wanted: &BTreeMap<K, V>) {
        for (id, (_, last)) in &mut self.0 {
            if !wanted.contains_key(id) {
                *last = None;
            }
        }
        for (id, value) in wanted {
            let (rev, last) = self.0.entry(id.clone()).or_insert((0, None));
            if last.as_ref() != Some(value) {
                *rev += 1;
                *last = Some(value.clone());
            }
        }
    }

    /// The revision of `id`; 0 if it was never there.
    pub(super) fn rev(&self, id: &K) -> u32 {
        self.0.get(id).map_or(0, |(rev, _)| *rev)
    }
}

/// The revisions of queries.
#[derive(Debug, Default)]
pub struct Revisions(Changes<QueryId, QueryConfig>);

impl Revisions {
    /// The query set for `wanted`: unchanged queries keep their revision, all others get their next one.
    pub fn apply(&mut self, wanted: &BTreeMap<QueryId, QueryConfig>) -> QuerySet {
        self.0.note(wanted);
        QuerySet::new(wanted.values().map(|config| config.query(self.0.rev(&config.id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(queries: &[(&str, &str)]) -> BTreeMap<QueryId, QueryConfig> {
        let make = |(id, text): &(&str, &str)| {
            let id = QueryId::new(id).unwrap();
            (id.clone(), QueryConfig::new(id, text))
        };
        queries.iter().map(make).collect()
    }

    #[test]
    fn only_a_change_moves_a_revision_and_none_comes_back() {
        let mut revisions = Revisions::default();
        let mut rev = |queries: &[(&str, &str)]| -> Vec<u32> {
            revisions.apply(&wanted(queries)).iter().map(|q| q.rev).collect()
        };
        assert_eq!(rev(&[("a", "car"), ("b", "dog")]), [1, 1]);
        assert_eq!(rev(&[("a", "van"), ("b", "dog")]), [2, 1]);
        assert_eq!(rev(&[("b", "dog")]), [1]);
        assert_eq!(rev(&[("a", "van"), ("b", "dog")]), [3, 1]);
    }
}
