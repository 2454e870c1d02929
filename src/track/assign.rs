//! The best pairing of rows with columns. Pure.
//!
//! The optimum (Hungarian method, shortest augmenting paths), not the greedy choice: at low frame rates boxes of
//! neighbours overlap each other's predictions, and one greedy mistake swaps two tracks for good.

/// Pairs of row and column: as many as possible, and of those pairings the one with the highest sum of scores. `score`
/// gives 0 to 1 for a pair, or `None` if the two cannot belong together.
pub(super) fn assign(rows: usize, columns: usize, score: impl Fn(usize, usize) -> Option<f32>) -> Vec<(usize, usize)> {
    let scores: Vec<Option<f32>> = (0..rows * columns).map(|i| score(i / columns, i % columns)).collect();
    // Most rows and columns of a crowded picture have nothing in common with any other: they need no solving.
    let rows: Vec<usize> = (0..rows).filter(|r| (0..columns).any(|c| scores[r * columns + c].is_some())).collect();
    let used: Vec<usize> = (0..columns).filter(|c| rows.iter().any(|r| scores[r * columns + c].is_some())).collect();
    // The method wants the short side as rows.
    let flipped = rows.len() > used.len();
    let (short, long) = if flipped { (&used, &rows) } else { (&rows, &used) };
    let pair = |s: usize, l: usize| if flipped { (long[l], short[s]) } else { (short[s], long[l]) };
    let score_of = |s: usize, l: usize| {
        let (row, column) = pair(s, l);
        scores[row * columns + column]
    };
    // Far above any sum of real costs, so that it is taken only where nothing else is left.
    let forbidden = (short.len() + 1) as f64 * 2.0;
    let cost = |s: usize, l: usize| score_of(s, l).map_or(forbidden, |score| 1.0 - f64::from(score).clamp(0.0, 1.0));
    let owners = hungarian(short.len(), long.len(), cost);
    let pairs = owners.into_iter().enumerate().filter_map(|(l, s)| s.map(|s| (s, l)));
    pairs.filter(|(s, l)| score_of(*s, *l).is_some()).map(|(s, l)| pair(s, l)).collect()
}

/// Which row each column belongs to, for the least total cost. Needs `rows <= columns`.
fn hungarian(rows: usize, columns: usize, cost: impl Fn(usize, usize) -> f64) -> Vec<Option<usize>> {
    let (mut row_potential, mut column_potential) = (vec![0.0; rows], vec![0.0; columns]);
    let mut owner: Vec<Option<usize>> = vec![None; columns];
    for start in 0..rows {
        // The shortest path from the new row to a column without owner; `from` remembers the way.
        let (mut distance, mut from) = (vec![f64::INFINITY; columns], vec![None; columns]);
        let mut visited = vec![false; columns];
        let (mut row, mut entered): (usize, Option<usize>) = (start, None);
        let free = loop {
            if let Some(column) = entered {
                visited[column] = true;
            }
            let mut nearest: Option<usize> = None;
            for column in (0..columns).filter(|c| !visited[*c]) {
                let reduced = cost(row, column) - row_potential[row] - column_potential[column];
                if reduced < distance[column] {
                    (distance[column], from[column]) = (reduced, entered);
                }
                if nearest.is_none_or(|n| distance[column] < distance[n]) {
                    nearest = Some(column);
                }
            }
            // There is always one: fewer rows were placed than there are columns.
            let Some(column) = nearest else { break None };
            let delta = distance[column];
            row_potential[start] += delta;
            for c in 0..columns {
                if visited[c] {
                    column_potential[c] -= delta;
                    if let Some(r) = owner[c] {
                        row_potential[r] += delta;
                    }
                } else {
                    distance[c] -= delta;
                }
            }
            entered = Some(column);
            match owner[column] {
                Some(next) => row = next,
                None => break Some(column),
            }
        };
        let mut column = free;
        while let Some(c) = column {
            owner[c] = from[c].map_or(Some(start), |before: usize| owner[before]);
            column = from[c];
        }
    }
    owner
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every pairing, tried out: most pairs first, then the highest sum.
    fn best(scores: &[Vec<Option<f32>>], row: usize, used: &mut Vec<bool>) -> (usize, f32) {
        if row == scores.len() {
            return (0, 0.0);
        }
        let mut top = best(scores, row + 1, used);
        for column in 0..used.len() {
            if let Some(score) = scores[row][column].filter(|_| !used[column]) {
                used[column] = true;
                let (pairs, sum) = best(scores, row + 1, used);
                used[column] = false;
                if (pairs + 1, sum + score).partial_cmp(&top) == Some(std::cmp::Ordering::Greater) {
                    top = (pairs + 1, sum + score);
                }
            }
        }
        top
    }

    proptest! {
        #[test]
        fn it_is_the_best_of_all_pairings(
            columns in 0usize..6, cells in proptest::collection::vec(proptest::option::of(0.0f32..=1.0), 36), rows in 0usize..6,
        ) {
            let scores: Vec<Vec<_>> = (0..rows).map(|r| cells[r * 6..r * 6 + columns].to_vec()).collect();
            let pairs = assign(rows, columns, |r, c| scores[r][c]);
            let mut seen = (vec![false; rows], vec![false; columns]);
            for (r, c) in &pairs {
                prop_assert!(!std::mem::replace(&mut seen.0[*r], true) && !std::mem::replace(&mut seen.1[*c], true));
            }
            let sum: f32 = pairs.iter().map(|(r, c)| scores[*r][*c].unwrap()).sum();
            let (most, top) = best(&scores, 0, &mut vec![false; columns]);
            prop_assert_eq!(pairs.len(), most);
            prop_assert!((sum - top).abs() < 1e-4, "{} {}", sum, top);
        }
    }
}
