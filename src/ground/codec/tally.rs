//! Which pieces made a box, and what their probabilities say about it.

/// One piece of the model's answer: its number and its probability.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    number: u64,
    prob: Option<f32>,
}

/// Numbers the pieces of one answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces {
    count: u64,
}

impl Pieces {
    pub(crate) fn next(&mut self, prob: Option<f32>) -> Piece {
        self.count += 1;
        Piece { number: self.count, prob: prob.filter(|p| (0.0..=1.0).contains(p)) }
    }
}

/// Collects the pieces of one box, each counted once however many of its characters belong to the box.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    last: u64,
    count: u32,
    unknown: bool,
    log_sum: f64,
}

impl Tally {
    /// A character of `piece` belongs to the box. Pieces must come in order.
    pub(crate) fn touch(&mut self, piece: Piece) {
        if piece.number <= self.last {
            return;
        }
        self.last = piece.number;
        self.count += 1;
        match piece.prob {
            // A probability of 0 would erase the others; no sampled token really has it.
            Some(p) => self.log_sum += f64::from(p).max(1e-12).ln(),
            None => self.unknown = true,
        }
    }

    /// Each of these pieces has characters that belong to the box.
    pub(crate) fn touch_all(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            self.touch(*piece);
        }
    }

    /// Geometric mean of the probabilities; `None` if there is no piece, or one without a probability.
    pub(crate) fn score(&self) -> Option<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "0..=1")]
        let mean = (self.log_sum / f64::from(self.count.max(1))).exp() as f32;
        (self.count > 0 && !self.unknown).then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(probs: &[Option<f32>]) -> Tally {
        let (mut pieces, mut tally) = (Pieces::default(), Tally::default());
        for &prob in probs {
            let piece = pieces.next(prob);
            tally.touch(piece);
            tally.touch(piece);
        }
        tally
    }

    #[test]
    fn a_piece_counts_once_and_the_mean_is_geometric() {
        assert!((tally(&[Some(0.9), Some(0.4)]).score().unwrap() - 0.6).abs() < 1e-6);
    }

    #[test]
    fn one_unknown_or_impossible_probability_leaves_no_score() {
        assert_eq!(tally(&[Some(0.9), None]).score(), None);
        assert_eq!(tally(&[Some(0.9), Some(f32::NAN)]).score(), None);
        assert_eq!(tally(&[Some(1.5)]).score(), None);
        assert_eq!(tally(&[]).score(), None);
    }

    #[test]
    fn a_piece_that_ends_one_tag_and_begins_the_next_counts_once() {
        let mut pieces = Pieces::default();
        let [a, b, c] = [0.9, 0.4, 0.6].map(|p| pieces.next(Some(p)));
        let mut tally = Tally::default();
        tally.touch_all(&[a, b]);
        tally.touch_all(&[b, c]);
        assert!((tally.score().unwrap() - 0.6).abs() < 1e-6);
    }
}
