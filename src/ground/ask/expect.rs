//! What to expect of a region nobody has asked about: what regions that look like it were answered before.
//!
//! An expectation is never published. It only decides which questions go first when not all can be asked at once.

use crate::ground::unit::dot;

/// Regions that are remembered: enough for what passes before one camera in a minute.
const KEPT: usize = 256;
/// A region less like any remembered one (cosine) is something new: anything may be expected of it.
const NOVEL: f32 = 0.7;
/// Regions this much less like it than the most alike still have a say.
const NEAR: f32 = 0.05;

/// Looks and the answers to all queries, of one camera. The newest replace the oldest.
#[derive(Debug, Default)]
pub struct Experience {
    looks: Vec<Vec<f32>>,
    scores: Vec<Vec<f32>>,
    next: usize,
}

impl Experience {
    /// Remembers what was answered about a region that looks like this: one score a query.
    pub fn add(&mut self, look: &[f32], scores: Vec<f32>) {
        if self.looks.len() < KEPT {
            self.looks.push(look.to_vec());
            self.scores.push(scores);
        } else {
            self.looks[self.next].clear();
            self.looks[self.next].extend_from_slice(look);
            self.scores[self.next] = scores;
            self.next = (self.next + 1) % KEPT;
        }
    }

    /// The highest score to expect of each query; 1 for all of them if nothing like it is remembered.
    pub fn expect(&self, look: &[f32], queries: usize) -> Vec<f32> {
        let alike: Vec<f32> = self.looks.iter().map(|known| dot(known, look)).collect();
        let most = alike.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Also when there is nothing, or nothing that is a number.
        if most.is_nan() || most < NOVEL {
            return vec![1.0; queries];
        }
        let mut expected = vec![0.0f32; queries];
        for (_, scores) in alike.iter().zip(&self.scores).filter(|(alike, _)| **alike >= most - NEAR) {
            for (expected, score) in expected.iter_mut().zip(scores) {
                *expected = expected.max(*score);
            }
        }
        expected
    }

    /// Forgets everything: the queries are others now.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_alike_is_expected_to_be_answered_alike_and_what_is_new_may_be_anything() {
        let mut experience = Experience::default();
        assert_eq!(experience.expect(&[1.0, 0.0], 2), [1.0, 1.0]);
        experience.add(&[1.0, 0.0], vec![0.9, 0.1]);
        experience.add(&[0.0, 1.0], vec![0.2, 0.8]);
        assert_eq!(experience.expect(&[1.0, 0.0], 2), [0.9, 0.1]);
        assert_eq!(experience.expect(&[0.0, 1.0], 2), [0.2, 0.8]);
        assert_eq!(experience.expect(&[-1.0, 0.0], 2), [1.0, 1.0]);
        assert_eq!(experience.expect(&[f32::NAN, 0.0], 2), [1.0, 1.0]);
        experience.clear();
        assert_eq!(experience.expect(&[1.0, 0.0], 1), [1.0]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut experience = Experience::default();
        for i in 0..=KEPT {
            let angle = i as f32;
            experience.add(&[angle.cos(), angle.sin()], vec![1.0]);
        }
        assert_eq!((experience.looks.len(), experience.next), (KEPT, 1));
    }
}
