//! What is done together: which pictures share a pass of the vision tower, which answers are written side by side. Pure.

use std::ops::Range;

use crate::ground::vision::VisionError;

/// How a language model's graph takes several answers at once. What it really does is tried when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// One at a time.
    #[default]
    Alone,
    /// Side by side if they are of one length.
    Alike,
    /// Side by side, the shorter ones filled up in front.
    Any,
}

/// Runs of pictures of these sizes that share a pass: in order, as many as together stay within `most`. One that is larger
/// by itself has a pass of its own.
pub fn passes(sizes: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (at, size) in sizes.iter().enumerate() {
        match passes.last_mut() {
            Some(pass) if sum + size <= most => {
                pass.end = at + 1;
                sum += size;
            }
            _ => {
                passes.push(at..at + 1);
                sum = *size;
            }
        }
    }
    passes
}

/// What was seen of the pictures that could be prepared, in their places among all; of the others, why they could not.
pub fn spread<P, S>(prepared: Vec<Result<P, VisionError>>, seen: Vec<S>) -> Vec<Result<S, VisionError>> {
    let mut seen = seen.into_iter();
    let missing = || VisionError::Prompt("the vision tower left a picture out".to_owned());
    prepared.into_iter().map(|one| one.and_then(|_| seen.next().ok_or_else(missing))).collect()
}

/// Which answers are written side by side, at most `most`, given the lengths of their prompts: every one in one group. The
/// order is kept as far as it goes, since questions about one picture stand next to each other.
pub fn groups(lengths: &[usize], rows: Rows, most: usize) -> Vec<Vec<usize>> {
    let most = if rows == Rows::Alone { 1 } else { most.max(1) };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, length) in lengths.iter().enumerate() {
        let fits = |group: &&mut Vec<usize>| {
            let alike = rows != Rows::Alike || group.first().is_some_and(|first| lengths[*first] == *length);
            group.len() < most && alike
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

/// The columns of a row of `length` that is filled up in front to `total`: the first one again, which nobody looks at.
pub fn columns(length: usize, total: usize) -> Vec<i64> {
    let fill = total.saturating_sub(length);
    vec![0; fill].into_iter().chain((0..).take(length)).collect()
}

/// Which of `total` columns count for a row of `length`, as masks say it: the last ones.
pub fn mask(length: usize, total: usize) -> impl Iterator<Item = i64> {
    (0..total).map(move |column| i64::from(column + length >= total))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_picture_is_in_one_pass_and_no_pass_is_larger_than_need_be(
            sizes in proptest::collection::vec(1usize..50, 0..40), most in 0usize..120,
        ) {
            let passes = passes(&sizes, most);
            let all: Vec<usize> = passes.iter().cloned().flatten().collect();
            prop_assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            let sum = |pass: &Range<usize>| sizes[pass.clone()].iter().sum::<usize>();
            for (at, pass) in passes.iter().enumerate() {
                prop_assert!(pass.len() == 1 || sum(pass) <= most);
                // The next one would not have fitted.
                prop_assert!(passes.get(at + 1).is_none_or(|next| sum(pass) + sizes[next.start] > most));
            }
        }

        #[test]
        fn every_answer_is_in_one_group(
            lengths in proptest::collection::vec(1usize..5, 0..40), most in 0usize..6,
            rows in prop_oneof![Just(Rows::Alone), Just(Rows::Alike), Just(Rows::Any)],
        ) {
            let groups = groups(&lengths, rows, most);
            let mut all: Vec<usize> = groups.concat();
            if rows != Rows::Alike {
                prop_assert!(all.is_sorted());
                let full = if rows == Rows::Alone { 1 } else { most.max(1) };
                prop_assert_eq!(groups.len(), lengths.len().div_ceil(full));
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for group in &groups {
                prop_assert!(group.len() <= most.max(1) && group.is_sorted());
                prop_assert!(rows != Rows::Alone || group.len() == 1);
                prop_assert!(rows != Rows::Alike || group.iter().all(|at| lengths[*at] == lengths[group[0]]));
            }
        }

        #[test]
        fn what_is_filled_up_is_masked_and_the_rest_is_in_order(length in 1usize..9, more in 0usize..9) {
            let total = length + more;
            let seen: Vec<i64> = columns(length, total).into_iter().zip(mask(length, total))
                .filter(|(_, counts)| *counts == 1).map(|(column, _)| column).collect();
            prop_assert_eq!(columns(length, total).len(), total);
            prop_assert_eq!(seen, (0..i64::try_from(length).unwrap()).collect::<Vec<_>>());
        }
    }
}
