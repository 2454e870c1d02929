//! Answers as they are reported, phrase by phrase: is the best box right, are all of several found, is nothing said where
//! nothing is.
//!
//! A box is right where it overlaps a thing by IoU 0.5 or more, as referring-expression benchmarks (RefCOCO) count it. Boxes in crowds
//! are as if they had not been answered.

use super::matching::{Scored, Truth, assign, best, overlaps};

const RIGHT: f64 = 0.5;

/// What a phrase asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// One thing: the best-scoring box counts, of those that are in no crowd.
    One,
    /// Several things: every box counts.
    Several,
    /// Nothing is there: silence is right.
    Nothing,
    /// Only crowds: neither silence nor boxes are wrong. Not counted.
    Crowd,
}

/// What a model said to a phrase.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The boxes, as they are reported.
    pub boxes: &'a [Scored],
    /// Whether it had found something, or looked everywhere. A search that spent its passes before that counts by its silence, like
    /// any other; how many of them there were is told beside the figures.
    pub finished: bool,
}

impl<'a> Answer<'a> {
    /// What was said once all was looked at.
    pub fn finished(boxes: &'a [Scored]) -> Self {
        Self { boxes, finished: true }
    }
}

/// How one phrase was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// What was asked.
    pub case: Case,
    /// Whether the model answered at all; where it refused, everything is missed and silence is no merit.
    pub answered: bool,
    /// Whether it had found something or looked everywhere, as far as it answered.
    pub finished: bool,
    /// Things found.
    pub hits: usize,
    /// Boxes that are on no thing and in no crowd.
    pub wrong: usize,
    /// Things not found.
    pub missed: usize,
    /// IoU of the best-scoring box that is in no crowd with the one thing; 0 without a box, or where there is not just one thing.
    pub iou: f64,
}

impl Verdict {
    /// Judges an answer; `None` is a refusal.
    pub fn new(truths: &[Truth], answer: Option<Answer<'_>>) -> Self {
        let found = best(answer.map(|answer| answer.boxes).unwrap_or_default(), usize::MAX);
        let things = truths.iter().filter(|t| !t.crowd).count();
        let case = match things {
            0 if truths.is_empty() => Case::Nothing,
            0 => Case::Crowd,
            1 => Case::One,
            _ => Case::Several,
        };
        let crowd: Vec<bool> = truths.iter().map(|t| t.crowd).collect();
        let assigned = assign(&overlaps(&found, truths), truths, &crowd, RIGHT);
        let hits = assigned.iter().flatten().filter(|i| !crowd[**i]).count();
        let mut counted = found.iter().zip(&assigned).filter(|(_, to)| to.is_none_or(|i| !crowd[i]));
        let one = truths.iter().find(|t| case == Case::One && !t.crowd);
        let iou = one.zip(counted.next()).map_or(0.0, |(one, (first, _))| one.overlap(&first.rect));
        let wrong = assigned.iter().filter(|i| i.is_none()).count();
        let (answered, finished) = (answer.is_some(), answer.is_none_or(|answer| answer.finished));
        Self { case, answered, finished, hits, wrong, missed: things - hits, iou }
    }

    /// From 0, all wrong, to 1, all right: F1 where something is there.
    pub fn merit(&self) -> f64 {
        match self.case {
            Case::Nothing | Case::Crowd => f64::from(u8::from(self.answered && self.wrong == 0)),
            Case::One | Case::Several => f1(self.hits, self.wrong, self.missed).unwrap_or(0.0),
        }
    }
}

/// The sums over many phrases.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Phrases taken in.
    pub phrases: usize,
    /// Things there were to find.
    pub things: usize,
    /// Phrases the model refused.
    pub refused: usize,
    /// Phrases it was silent about before it had looked everywhere.
    pub unfinished: usize,
    one: usize,
    one_right: usize,
    iou: f64,
    several: usize,
    several_counts: [usize; 3],
    nothing: usize,
    nothing_right: usize,
    counts: [usize; 3],
}

impl Tally {
    /// Takes one phrase in.
    pub fn add(&mut self, verdict: &Verdict) {
        let counts = [verdict.hits, verdict.wrong, verdict.missed];
        self.phrases += 1;
        self.things += verdict.hits + verdict.missed;
        self.refused += usize::from(!verdict.answered);
        self.unfinished += usize::from(!verdict.finished);
        match verdict.case {
            Case::One => {
                self.one += 1;
                self.one_right += usize::from(verdict.iou >= RIGHT);
                self.iou += verdict.iou;
            }
            Case::Several => {
                self.several += 1;
                sum(&mut self.several_counts, counts);
            }
            Case::Nothing => {
                self.nothing += 1;
                self.nothing_right += usize::from(verdict.merit() > 0.5);
            }
            Case::Crowd => return,
        }
        sum(&mut self.counts, counts);
    }

    /// Phrases for one thing, for several, for nothing.
    pub fn cases(&self) -> [usize; 3] {
        [self.one, self.several, self.nothing]
    }

    /// Of the phrases for one thing, the share whose best-scoring box is right.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.one_right as f64, self.one)
    }

    /// Over the phrases for one thing, the mean IoU of the best-scoring box.
    pub fn mean_iou(&self) -> Option<f64> {
        share(self.iou, self.one)
    }

    /// F1 over all boxes and things of the phrases for several.
    pub fn f1_several(&self) -> Option<f64> {
        let [hits, wrong, missed] = self.several_counts;
        f1(hits, wrong, missed)
    }

    /// Of the phrases for nothing, the share answered without a box.
    pub fn miss(&self) -> Option<f64> {
        share(self.nothing_right as f64, self.nothing)
    }

    /// F1 over all boxes and things, wherever they were asked for.
    pub fn f1(&self) -> Option<f64> {
        let [hits, wrong, missed] = self.counts;
        f1(hits, wrong, missed)
    }
}

fn sum(into: &mut [usize; 3], counts: [usize; 3]) {
    into.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
}

fn share(part: f64, of: usize) -> Option<f64> {
    (of > 0).then(|| part / of as f64)
}

/// `None` where there is neither a box nor a thing.
fn f1(hits: usize, wrong: usize, missed: usize) -> Option<f64> {
    share(2.0 * hits as f64, 2 * hits + wrong + missed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::eval::matching::Rect;

    fn thing(x: f64) -> Truth {
        Truth::boxed(Rect { x, y: 0.0, width: 10.0, height: 10.0 })
    }

    fn at(x: f64, score: f64) -> Scored {
        Scored { rect: thing(x).rect, score }
    }

    fn tally(phrases: &[(&[Truth], Option<&[Scored]>)]) -> Tally {
        let mut tally = Tally::default();
        for (truths, answer) in phrases {
            tally.add(&Verdict::new(truths, answer.map(Answer::finished)));
        }
        tally
    }

    #[test]
    fn for_one_thing_the_best_scoring_box_counts_however_good_the_others_are() {
        let (right, wrong) = ([at(50.0, 0.2), at(2.0, 0.9)], [at(50.0, 0.9), at(0.0, 0.8)]);
        let one = [thing(0.0)];
        let got = tally(&[(&one, Some(&right)), (&one, Some(&wrong)), (&one, Some(&[])), (&one, None)]);
        assert_eq!((got.accuracy(), got.refused), (Some(0.25), 1));
        assert!((got.mean_iou().unwrap() - 80.0 / 120.0 / 4.0).abs() < 1e-12);
        assert_eq!(got.f1_several(), None);
    }

    #[test]
    fn for_several_things_every_box_counts() {
        let truths = [thing(0.0), thing(20.0), thing(40.0)];
        let got = tally(&[(&truths, Some(&[at(0.0, 0.9), at(20.0, 0.8), at(90.0, 0.7)]))]);
        assert!((got.f1_several().unwrap() - 4.0 / 6.0).abs() < 1e-12);
        assert_eq!((got.accuracy(), got.miss(), got.cases()), (None, None, [0, 1, 0]));
    }

    #[test]
    fn silence_is_right_where_nothing_is_unless_the_question_was_refused() {
        let got = tally(&[(&[], Some(&[])), (&[], Some(&[at(0.0, 0.1)])), (&[], None), (&[], Some(&[]))]);
        assert_eq!((got.miss(), got.refused), (Some(0.5), 1));
        assert_eq!(got.f1(), Some(0.0), "the false box counts");
    }

    #[test]
    fn a_search_that_was_given_up_counts_as_what_it_said_and_is_counted() {
        let unfinished = |boxes| Some(Answer { boxes, finished: false });
        let (one, mut got) = ([thing(0.0)], Tally::default());
        got.add(&Verdict::new(&[], unfinished(&[])));
        got.add(&Verdict::new(&one, unfinished(&[])));
        got.add(&Verdict::new(&one, None));
        assert_eq!((got.unfinished, got.refused), (2, 1));
        assert_eq!((got.miss(), got.accuracy()), (Some(1.0), Some(0.0)));
    }

    #[test]
    fn boxes_in_a_crowd_count_neither_way() {
        let crowd = Truth { crowd: true, ..Truth::boxed(Rect { x: 0.0, y: 0.0, width: 100.0, height: 100.0 }) };
        let inside = [at(5.0, 0.9), at(50.0, 0.8)];
        let only = tally(&[(&[crowd], Some(&inside))]);
        assert_eq!((only.miss(), only.f1(), only.cases()), (None, None, [0, 0, 0]));
        let beside = tally(&[(&[crowd, thing(5.0), thing(200.0)], Some(&inside))]);
        assert_eq!((beside.f1_several(), beside.cases()), (Some(2.0 / 3.0), [0, 1, 0]));
        // Of one thing beside a crowd, the best box that is not in the crowd is judged.
        let better_in_the_crowd = [at(50.0, 0.9), at(5.0, 0.8), at(300.0, 0.7)];
        let one = tally(&[(&[crowd, thing(5.0)], Some(&better_in_the_crowd)), (&[thing(300.0), crowd], Some(&inside))]);
        assert_eq!((one.accuracy(), one.mean_iou(), one.cases()), (Some(0.5), Some(0.5), [2, 0, 0]));
    }

    fn boxes() -> impl Strategy<Value = Vec<(u8, u8)>> {
        proptest::collection::vec((0u8..100, 0u8..100), 0..8)
    }

    proptest! {
        #[test]
        fn verdicts_add_up_and_do_not_depend_on_order(things in boxes(), answers in boxes(), turn in 0usize..8) {
            let truths: Vec<Truth> = things.iter().map(|(x, _)| thing((*x).into())).collect();
            let mut found: Vec<Scored> =
                (0u8..).zip(&answers).map(|(i, (x, s))| at((*x).into(), f64::from(*s) * 16.0 + f64::from(i))).collect();
            let verdict = Verdict::new(&truths, Some(Answer::finished(&found)));
            prop_assert_eq!(verdict.hits + verdict.missed, truths.len());
            prop_assert_eq!(verdict.hits + verdict.wrong, found.len());
            prop_assert!((0.0..=1.0).contains(&verdict.merit()) && (0.0..=1.0).contains(&verdict.iou));
            let by = turn % found.len().max(1);
            found.rotate_left(by);
            prop_assert_eq!(verdict, Verdict::new(&truths, Some(Answer::finished(&found))));
        }

        #[test]
        fn one_more_false_box_never_helps(things in boxes(), answers in boxes()) {
            let truths: Vec<Truth> = things.iter().map(|(x, _)| thing((*x).into())).collect();
            let mut found: Vec<Scored> = answers.iter().map(|(x, s)| at((*x).into(), (*s).into())).collect();
            let before = Verdict::new(&truths, Some(Answer::finished(&found))).merit();
            found.push(at(1e4, -1.0));
            prop_assert!(Verdict::new(&truths, Some(Answer::finished(&found))).merit() <= before);
        }
    }
}
