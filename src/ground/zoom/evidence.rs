//! What looks at a thing said of it, picture after picture.

use std::time::Duration;

/// After this long a look counts half as much as a new one: about as long as what a thing looks like stays the same.
const HALF_LIFE: Duration = Duration::from_millis(500);

/// Scores that looks gave one thing, each weighed by how well the look shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    sum: f32,
    weight: f32,
}

impl Evidence {
    /// One look's.
    pub fn of(score: f32, weight: f32) -> Self {
        Self { sum: score * weight, weight }
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, weight: self.weight + other.weight }
    }

    /// What it counts for when this much time has passed.
    #[must_use]
    pub fn after(self, passed: Duration) -> Self {
        let share = (-passed.div_duration_f32(HALF_LIFE)).exp2();
        Self { sum: self.sum * share, weight: self.weight * share }
    }

    /// The mean of the scores; `None` where there are none.
    pub fn mean(self) -> Option<f32> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// How many good looks, made just now, it is worth.
    pub fn weight(self) -> f32 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn its_mean_lies_among_what_was_said_and_age_changes_only_what_it_counts_for(
            looks in proptest::collection::vec((0.0f32..=1.0, 0.01f32..1.0), 1..20),
            passed in 0u64..5000,
        ) {
            let all = looks.iter().fold(Evidence::default(), |all, (score, weight)| all.with(Evidence::of(*score, *weight)));
            let mean = all.mean().unwrap();
            let (low, high) = looks.iter().fold((1.0f32, 0.0f32), |(low, high), (score, _)| (low.min(*score), high.max(*score)));
            prop_assert!(mean >= low - 1e-4 && mean <= high + 1e-4);
            let old = all.after(Duration::from_millis(passed));
            prop_assert!((old.mean().unwrap() - mean).abs() < 1e-3);
            prop_assert!(old.weight() <= all.weight());
            // What is said now counts for more than what was said then.
            let now = old.with(Evidence::of(1.0, 1.0)).mean().unwrap();
            prop_assert!(now >= all.with(Evidence::of(1.0, 1.0)).mean().unwrap() - 1e-4);
        }
    }

    #[test]
    fn it_halves_in_its_half_life_and_nothing_says_nothing() {
        assert!((Evidence::of(0.5, 1.0).after(HALF_LIFE).weight() - 0.5).abs() < 1e-6);
        assert_eq!(Evidence::default().mean(), None);
        assert_eq!(
            Evidence::of(0.5, 1.0).after(Duration::from_hours(9999)).mean(),
            None,
            "so old that nothing is left"
        );
    }
}
