//! Several phrases in one text, and where each stands in it.
//!
//! Grounding DINO is asked `a cat. a dog.`: every token gets a score for every box, and phrases see nothing of one another
//! but through the picture, for separators part them inside the graph. The reference names a box after all tokens above a
//! threshold, so that a box which fits two phrases is called by both at once (`get_phrases_from_posmap` in
//! `processing_grounding_dino.py`). Here each phrase keeps the span of its tokens and is scored by the best of them alone:
//! two phrases never merge, and a box that fits both answers both.

use std::ops::Range;

/// A text of several phrases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phrases {
    /// Its tokens, with those that begin, part and end it.
    pub(super) ids: Vec<i64>,
    /// Where each phrase stands, in the order given.
    pub(super) spans: Vec<Range<usize>>,
}

/// The tokens that give a text its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Begins a text.
    pub(super) begin: i64,
    /// After each phrase.
    pub(super) part: i64,
    /// Ends a text.
    pub(super) end: i64,
}

/// Puts phrases into as few texts of at most `most` tokens as they fill in order, at most `each` phrases a text. Phrases
/// that are equal share a span. A phrase too long for a text of its own is nobody's: it is checked before.
pub(super) fn texts(phrases: &[Vec<i64>], marks: Marks, most: usize, each: usize) -> Vec<(Phrases, Range<usize>)> {
    let mut texts: Vec<(Phrases, Range<usize>)> = Vec::new();
    for (at, phrase) in phrases.iter().enumerate() {
        let fits = |text: &Phrases| text.spans.len() < each && text.ids.len() + phrase.len() + 2 <= most;
        if !texts.last().is_some_and(|(text, _)| fits(text)) {
            texts.push((Phrases { ids: vec![marks.begin], spans: Vec::new() }, at..at));
        }
        let Some((text, covered)) = texts.last_mut() else { continue };
        let same = phrases[covered.clone()].iter().position(|earlier| earlier == phrase);
        let span = same.map_or(text.ids.len()..text.ids.len() + phrase.len(), |earlier| text.spans[earlier].clone());
        if same.is_none() {
            text.ids.extend(phrase);
            text.ids.push(marks.part);
        }
        text.spans.push(span);
        covered.end = at + 1;
    }
    for (text, _) in &mut texts {
        text.ids.push(marks.end);
    }
    texts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKS: Marks = Marks { begin: 101, part: 1012, end: 102 };

    #[test]
    fn phrases_stand_between_separators() {
        let phrases = [vec![7, 8], vec![9], vec![7, 8]];
        let got = texts(&phrases, MARKS, 256, 99);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].0.ids, [101, 7, 8, 1012, 9, 1012, 102]);
        assert_eq!((&got[0].0.spans[..], &got[0].1), (&[1..3, 4..5, 1..3][..], &(0..3)));
        assert_eq!(texts(&phrases, MARKS, 256, 1).len(), 3);
    }

    proptest! {
        #[test]
        fn every_phrase_has_a_span_of_its_own_tokens(
            phrases in prop::collection::vec(prop::collection::vec(200i64..210, 1..6), 0..30),
            most in 9usize..40, each in 1usize..10,
        ) {
            let got = texts(&phrases, MARKS, most, each);
            let mut next = 0;
            for (text, covered) in &got {
                prop_assert_eq!(covered.start, next);
                next = covered.end;
                prop_assert!(text.ids.len() <= most && text.spans.len() == covered.len() && covered.len() <= each);
                prop_assert_eq!((text.ids[0], text.ids[text.ids.len() - 1]), (101, 102));
                for (span, phrase) in text.spans.iter().zip(&phrases[covered.clone()]) {
                    prop_assert_eq!(&text.ids[span.clone()], &phrase[..]);
                    // Parted from whatever comes before and after.
                    prop_assert!([101, 1012].contains(&text.ids[span.start - 1]));
                    prop_assert_eq!(text.ids[span.end], 1012);
                }
                for (a, b) in text.spans.iter().zip(text.spans.iter().skip(1)) {
                    prop_assert!(a == b || a.end < b.start || b.end < a.start);
                }
            }
            prop_assert_eq!(next, phrases.len());
        }
    }
}
