//! `Pix2Seq`: token ids `ymin xmin ymax xmax class`, five a box.
//!
//! `utils.py` and `tasks/task_utils.py` of google-research/pix2seq: `q = clip(round(c · (B − 1)), 0, B − 1)`,
//! `c = q / (B − 1)` clipped to 0..1, B = 1000, halves to even (`tf.round`). A coordinate's token is `q + 1000`, a
//! class's is `label + 100`; ids below 100 are special. At most 100 objects.
//!
//! The class is **not** the token that was sampled but the best of the class range, and the score is that class's
//! softmax over the *whole* vocabulary (`decode_object_seq_to_bbox`): [`Vocabulary::class_of`] does this on the step's
//! logits. `Pix2Seq` is the one family with a score of its own, so no token probabilities are averaged here.

use std::ops::Range;

use super::{checked, quantised};

/// Tokens a box takes.
const PER_BOX: usize = 5;

/// The layout of the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// Number of coordinate bins, B.
    pub bins: u32,
    /// Id of coordinate bin 0; class ids end here.
    pub first_coordinate: u32,
    /// Id of class 0.
    pub first_class: u32,
}

impl Default for Vocabulary {
    /// The published COCO models.
    fn default() -> Self {
        Self { bins: 1000, first_coordinate: 1000, first_class: 100 }
    }
}

/// One box, with its class by number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassBox {
    /// The class, counting from 0.
    pub class: u32,
    /// `[x1, y1, x2, y2]` in fractions of the model's input image, padding included.
    pub fractions: [f32; 4],
    /// Probability of the class, as the original scores it.
    pub score: f32,
}

impl Vocabulary {
    fn classes(self) -> Range<u32> {
        self.first_class..self.first_coordinate
    }

    /// The bin of an id, if it is a coordinate.
    fn bin(self, id: u32) -> Option<u32> {
        id.checked_sub(self.first_coordinate).filter(|q| *q < self.bins)
    }

    /// The best class of one step's logits over the vocabulary, and its softmax probability over the whole vocabulary.
    /// `None` if the logits are fewer than the classes, or not finite.
    pub fn class_of(self, logits: &[f32]) -> Option<(u32, f32)> {
        let classes = self.classes();
        let range = logits.get(classes.start as usize..classes.end as usize)?;
        let (best, top) = range.iter().enumerate().fold(
            (0, f32::NEG_INFINITY),
            |best, (i, &v)| {
                if v > best.1 { (i, v) } else { best }
            },
        );
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|v| f64::from(v - max).exp()).sum();
        #[expect(clippy::cast_possible_truncation, reason = "0..=1")]
        let prob = (f64::from(top - max).exp() / sum) as f32;
        prob.is_finite().then_some((u32::try_from(best).ok()?, prob))
    }

    /// The five tokens of a box.
    pub fn encode(self, class: u32, fractions: [f32; 4]) -> [u32; PER_BOX] {
        let [x1, y1, x2, y2] = fractions.map(|f| {
            let q = quantised(f, f64::from(self.bins.saturating_sub(1)), self.bins.saturating_sub(1));
            q + self.first_coordinate
        });
        [y1, x1, y2, x2, self.first_class + class]
    }
}

/// Reads one answer of `Pix2Seq`.
#[derive(Debug, Clone, Default)]
pub struct Pix2Seq {
    vocabulary: Vocabulary,
    held: Vec<u32>,
}

impl Pix2Seq {
    /// A codec for this layout.
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary, held: Vec::with_capacity(PER_BOX) }
    }

    /// Takes the next coordinate token. Returns whether the next step is a class, whose logits go to
    /// [`Pix2Seq::push_class`]. A token that is no coordinate spoils its box, which is then read to its end and
    /// dropped, so that the following boxes stay in step (the original cuts the sequence every five tokens).
    pub fn push_coordinate(&mut self, id: u32) -> bool {
        if self.held.len() < PER_BOX - 1 {
            self.held.push(id);
        }
        self.held.len() == PER_BOX - 1
    }

    /// Takes the class and its probability, from [`Vocabulary::class_of`]; returns the box if its four coordinates
    /// are whole.
    pub fn push_class(&mut self, class: u32, score: f32) -> Option<ClassBox> {
        let held = std::mem::take(&mut self.held);
        let &[y1, x1, y2, x2] = held.as_slice() else { return None };
        let last = f64::from(self.vocabulary.bins.saturating_sub(1));
        let fraction = |id: u32| self.vocabulary.bin(id).map(|q| f64::from(q) / last);
        let fractions = checked([fraction(x1)?, fraction(y1)?, fraction(x2)?, fraction(y2)?])?;
        let known = self.vocabulary.classes().contains(&class.checked_add(self.vocabulary.first_class)?);
        (known && (0.0..=1.0).contains(&score)).then_some(ClassBox { class, fractions, score })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(tokens: &[u32]) -> Vec<ClassBox> {
        let mut codec = Pix2Seq::default();
        let mut out = Vec::new();
        let mut class_next = false;
        for &id in tokens {
            if class_next {
                out.extend(codec.push_class(id.saturating_sub(100), 0.5));
                class_next = false;
            } else {
                class_next = codec.push_coordinate(id);
            }
        }
        out
    }

    #[test]
    fn y_comes_first() {
        let tokens = Vocabulary::default().encode(17, [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(tokens, [1200, 1100, 1400, 1300, 117]);
        let got = read(&tokens);
        assert_eq!(got[0].class, 17);
        assert!((got[0].fractions[0] - 100.0 / 999.0).abs() < 1e-6);
    }

    #[test]
    fn a_spoilt_box_does_not_shift_the_next() {
        let v = Vocabulary::default();
        let mut tokens = v.encode(1, [0.1, 0.1, 0.2, 0.2]).to_vec();
        tokens[2] = 5;
        tokens.extend(v.encode(2, [0.3, 0.3, 0.4, 0.4]));
        tokens.extend([1001, 1002]);
        let got: Vec<_> = read(&tokens).iter().map(|b| b.class).collect();
        assert_eq!(got, [2]);
    }

    #[test]
    fn the_class_is_the_best_of_its_range_scored_over_all() {
        let v = Vocabulary { bins: 4, first_coordinate: 4, first_class: 2 };
        let (class, prob) = v.class_of(&[9.0, 9.0, 0.0, 1.0, 9.0, 2.0]).unwrap();
        let sum: f64 = [9.0f64, 9.0, 0.0, 1.0, 9.0, 2.0].iter().map(|v| v.exp()).sum();
        assert_eq!(class, 1);
        assert!((f64::from(prob) - 1f64.exp() / sum).abs() < 1e-9);
        assert_eq!(v.class_of(&[1.0, 2.0]), None);
        assert_eq!(v.class_of(&[f32::NAN; 8]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_half_a_bin(
            x in 0.0f32..0.8, y in 0.0f32..0.8, w in 0.01f32..0.2, h in 0.01f32..0.2, class in 0u32..900,
        ) {
            let fractions = [x, y, x + w, y + h];
            let got = read(&Vocabulary::default().encode(class, fractions));
            prop_assert_eq!(got[0].class, class);
            for (a, b) in got[0].fractions.iter().zip(fractions) {
                prop_assert!((a - b).abs() <= 0.501 / 999.0);
            }
        }

        #[test]
        fn any_tokens_give_sound_boxes(tokens in proptest::collection::vec(0u32..2100, 0..200)) {
            let got = read(&tokens);
            prop_assert!(got.len() <= tokens.len() / 5);
            for b in got {
                prop_assert!(b.fractions[0] < b.fractions[2] && b.fractions[1] < b.fractions[3]);
                prop_assert!(b.fractions.iter().all(|f| (0.0..=1.0).contains(f)));
            }
        }
    }
}
