//! Revisions: every change of a query gets a number its id never had before.

use std::collections::BTreeMap;

use crate::{
    config::QueryConfig,
    types::{Query, QueryId, QuerySet},
};

/// Remembers the last revision of every id ever seen, so that a query removed and added again is a new revision.
#[derive(Debug, Default)]
pub struct Revisions(BTreeMap<QueryId, (u32, Option<QueryConfig>)>);

impl Revisions {
    /// The query set for `wanted`: unchanged queries keep their revision, all others get their next one.
    pub fn apply(&mut self, wanted: &BTreeMap<QueryId, QueryConfig>) -> QuerySet {
        for (id, (_, last)) in &mut self.0 {
            if !wanted.contains_key(id) {
                *last = None;
            }
        }
        let queries: Vec<Query> = wanted
            .values()
            .map(|config| {
                let (rev, last) = self.0.entry(config.id.clone()).or_default();
                if last.as_ref() != Some(config) {
                    *rev += 1;
                    *last = Some(config.clone());
                }
                config.query(*rev)
            })
            .collect();
        QuerySet::new(queries)
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
