//! What answers cost: time, runs of the model's graphs, tokens written.

use serde::Serialize;

/// One frame with all its queries, asked at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Milliseconds in the model.
    pub ms: f64,
    /// Queries asked; at least one.
    pub queries: usize,
    /// Runs of the model's graphs, where they are counted.
    pub passes: Option<u64>,
    /// Tokens written, where they are counted.
    pub tokens: Option<u64>,
}

/// The frames of one method.
#[derive(Debug, Clone, Default)]
pub struct Cost(Vec<Sample>);

/// How a cost is spread over frames or queries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// Half of them cost no more.
    pub p50: f64,
    /// All but a twentieth cost no more.
    pub p95: f64,
}

/// A cost by frame and by query. The queries of a frame are asked together, so each is charged its share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bill {
    /// By frame, with all its queries.
    pub frame: Spread,
    /// By query.
    pub query: Spread,
}

impl Cost {
    /// Takes one frame in.
    pub fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Frames taken in.
    pub fn frames(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds; `None` without frames.
    pub fn ms(&self) -> Option<Bill> {
        self.bill(|sample| Some(sample.ms))
    }

    /// Runs of the model's graphs; `None` without frames, or if they were not counted for each.
    pub fn passes(&self) -> Option<Bill> {
        self.bill(|sample| sample.passes.map(|n| n as f64))
    }

    /// Tokens written; `None` without frames, or if they were not counted for each.
    pub fn tokens(&self) -> Option<Bill> {
        self.bill(|sample| sample.tokens.map(|n| n as f64))
    }

    fn bill(&self, amount: impl Fn(&Sample) -> Option<f64>) -> Option<Bill> {
        let frames: Vec<f64> = self.0.iter().map(&amount).collect::<Option<_>>()?;
        let shares = self.0.iter().zip(&frames).flat_map(|(sample, whole)| {
            let queries = sample.queries.max(1);
            std::iter::repeat_n(whole / queries as f64, queries)
        });
        Some(Bill { query: Spread::of(shares.collect())?, frame: Spread::of(frames)? })
    }
}

impl Spread {
    /// By nearest rank: each percentile is one of `values`. `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let rank = |percent| nearest_rank(&values, percent);
        Some(Self { mean: values.iter().sum::<f64>() / values.len() as f64, p50: rank(50)?, p95: rank(95)? })
    }
}

/// The least of `sorted` that so many percent are not above; `None` if there are none.
pub fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(ms: f64, queries: usize) -> Sample {
        Sample { ms, queries, passes: Some(3), tokens: None }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = |values: &[f64]| Spread::of(values.to_vec()).map(|s| (s.p50, s.p95));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(spread(&hundred), Some((50.0, 95.0)));
        assert_eq!(spread(&[2.0, 1.0]), Some((1.0, 2.0)));
        assert_eq!(spread(&[7.0]), Some((7.0, 7.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn queries_pay_their_share_of_the_frame_and_what_is_not_counted_is_not_zero() {
        let mut cost = Cost::default();
        cost.add(sample(10.0, 1));
        cost.add(sample(90.0, 9));
        let bill = cost.ms().unwrap();
        assert_eq!((bill.frame.p50, bill.frame.p95, bill.frame.mean), (10.0, 90.0, 50.0));
        assert_eq!((bill.query.p50, bill.query.p95, bill.query.mean), (10.0, 10.0, 10.0));
        assert_eq!(cost.passes().map(|b| b.frame.mean), Some(3.0));
        assert_eq!(cost.tokens(), None);
        assert_eq!(Cost::default().ms(), None);
    }

    proptest! {
        #[test]
        fn percentiles_are_ordered_within_bounds_and_do_not_depend_on_order(
            mut values in proptest::collection::vec(0.0f64..1e6, 1..200), turn in 0usize..200,
        ) {
            let spread = Spread::of(values.clone()).unwrap();
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            prop_assert!(low <= spread.p50 && spread.p50 <= spread.p95 && spread.p95 <= high);
            let covered = |bound: f64| values.iter().filter(|v| **v <= bound).count() as f64 / values.len() as f64;
            prop_assert!(covered(spread.p50) >= 0.5 && covered(spread.p95) >= 0.95);
            let by = turn % values.len();
            values.rotate_left(by);
            prop_assert_eq!(Spread::of(values).map(|s| (s.p50, s.p95)), Some((spread.p50, spread.p95)));
        }
    }
}
