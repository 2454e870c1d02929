//! Logits -> probabilities.

/// The probability of each; `None` if they are not numbers, or none of them is possible.
pub fn softmax(logits: &[f32]) -> Option<Vec<f32>> {
    let (_, most) = largest(logits)?;
    let raised: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = raised.iter().sum();
    Some(raised.into_iter().map(|one| one / sum).collect())
}

/// The place of the best and its probability; of equals the first. `None` as for [`softmax`].
pub fn best(logits: &[f32]) -> Option<(usize, f32)> {
    let (at, most) = largest(logits)?;
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    Some((at, 1.0 / sum))
}

fn largest(logits: &[f32]) -> Option<(usize, f32)> {
    let (mut at, mut most) = (0, f32::NEG_INFINITY);
    for (i, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if logit > most {
            (at, most) = (i, logit);
        }
    }
    most.is_finite().then_some((at, most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_the_best_wins_with_its_softmax_probability() {
        let (token, probability) = best(&[0.0, 2.0, f32::NEG_INFINITY, 2.0]).unwrap();
        assert_eq!(token, 1);
        assert!((probability - 2.0_f32.exp() / (1.0 + 2.0 * 2.0_f32.exp())).abs() < 1e-6);
        assert!(best(&[1e30, 0.0]).is_some_and(|(token, p)| token == 0 && (p - 1.0).abs() < 1e-6));
    }

    #[test]
    fn logits_that_are_not_numbers_are_no_answer() {
        for bad in [&[][..], &[f32::NAN, 1.0], &[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY]] {
            assert_eq!((best(bad), softmax(bad)), (None, None), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn they_are_of_one_whole_in_the_order_of_the_logits(logits in prop::collection::vec(-80.0f32..80.0, 1..40)) {
            let got = softmax(&logits).unwrap();
            prop_assert!((got.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            for (a, b) in got.iter().zip(&logits).zip(got.iter().zip(&logits).skip(1)) {
                let ordered = if a.1 <= b.1 { a.0 <= b.0 } else { a.0 >= b.0 };
                prop_assert!(ordered);
            }
        }
    }
}
