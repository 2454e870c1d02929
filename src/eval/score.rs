//! One method's answers to a whole data set, as figures: overall and by kind of phrase.
//!
//! Of words that mean one thing, as `largest car`, some models report the best match alone, whatever else fits. That holds for
//! every asking, with any threshold: the ranking of such a phrase has one box, so that its share in `recall` and in the average
//! precisions says whether that box is right, not what the model could have found.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    matching::{Scored, Truth},
    phrase::{Answer, Tally, Verdict},
    precision::{Precision, Ranking},
};

/// Takes in answers, gives figures.
#[derive(Debug, Default)]
pub struct Scorer {
    kinds: BTreeMap<Arc<str>, (Tally, Ranking)>,
    all: Tally,
    /// Whether rankings were taken in, without which there is no average precision.
    ranked: bool,
}

/// How good answers are. `None` where nothing was there to measure it with.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Phrases asked.
    pub phrases: usize,
    /// Things they ask for.
    pub targets: usize,
    /// Phrases for exactly one thing.
    pub for_one: usize,
    /// Phrases for several.
    pub for_several: usize,
    /// Phrases for nothing that is there.
    pub for_nothing: usize,
    /// Phrases that the model could not be asked; they count as wrong.
    pub refused: usize,
    /// Phrases whose search ended before it had found anything or looked everywhere; its silence counts as an answer.
    pub unfinished: usize,
    /// Of the phrases for one, the share whose best-scoring box has an IoU of 0.5 or more.
    pub accuracy: Option<f64>,
    /// Over the phrases for one, the mean IoU of the best-scoring box.
    pub mean_iou: Option<f64>,
    /// F1 over the boxes for all phrases, at IoU 0.5.
    pub f1: Option<f64>,
    /// F1 over the phrases for several, at IoU 0.5.
    pub f1_several: Option<f64>,
    /// Of the phrases for nothing, the share answered without a box.
    pub miss: Option<f64>,
    /// The share of things that some box covers when every box is answered, however badly it scores. For `retrieve`, the
    /// share that the proposals cover: the selection cannot find more. Of a phrase whose words mean one thing only the best
    /// box is answered even then, so that for those it is the share that the best box covers.
    pub recall: Option<f64>,
    /// COCO's average precisions; over several kinds, their means. A phrase whose words mean one thing enters its one box.
    #[serde(flatten)]
    pub precision: Precision,
}

impl Scorer {
    /// Takes one phrase in: what is there, and the reported `answer`, where the model gave one. `ranking` is every box it
    /// would report without a threshold, however badly it scores; without it there is no average precision.
    pub fn add(
        &mut self,
        kind: &Arc<str>,
        truths: &[Truth],
        answer: Option<Answer<'_>>,
        ranking: Option<&[Scored]>,
    ) -> Verdict {
        let verdict = Verdict::new(truths, answer);
        let (tally, boxes) = self.kinds.entry(Arc::clone(kind)).or_default();
        tally.add(&verdict);
        self.all.add(&verdict);
        if let Some(ranking) = ranking {
            self.ranked = true;
            boxes.add(truths, ranking);
        }
        verdict
    }

    /// The figures over all phrases, and of each kind.
    pub fn figures(&self) -> (Figures, BTreeMap<Arc<str>, Figures>) {
        let ranked = |ranking: &Ranking| if self.ranked { ranking.precision() } else { Precision::default() };
        let kinds: BTreeMap<_, _> = self
            .kinds
            .iter()
            .map(|(kind, (tally, ranking))| {
                (Arc::clone(kind), figures(tally, ranked(ranking), self.reached(ranking.reached())))
            })
            .collect();
        let each: Vec<Precision> = kinds.values().map(|figures| figures.precision).collect();
        let reached = self.kinds.values().map(|(_, ranking)| ranking.reached());
        let reached = reached.fold((0, 0), |(wanted, found), (w, f)| (wanted + w, found + f));
        (figures(&self.all, Precision::mean(&each), self.reached(reached)), kinds)
    }

    fn reached(&self, (wanted, found): (usize, usize)) -> Option<f64> {
        (self.ranked && wanted > 0).then(|| found as f64 / wanted as f64)
    }
}

fn figures(tally: &Tally, precision: Precision, recall: Option<f64>) -> Figures {
    let [for_one, for_several, for_nothing] = tally.cases();
    Figures {
        phrases: tally.phrases,
        targets: tally.things,
        for_one,
        for_several,
        for_nothing,
        refused: tally.refused,
        unfinished: tally.unfinished,
        accuracy: tally.accuracy(),
        mean_iou: tally.mean_iou(),
        f1: tally.f1(),
        f1_several: tally.f1_several(),
        miss: tally.miss(),
        recall,
        precision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::matching::Rect;

    fn thing(x: f64) -> Truth {
        Truth::boxed(Rect { x, y: 0.0, width: 40.0, height: 40.0 })
    }

    fn on(x: f64, score: f64) -> Scored {
        Scored { rect: thing(x).rect, score }
    }

    #[test]
    fn kinds_are_kept_apart_and_precision_is_the_mean_of_theirs() {
        let (person, dog): (Arc<str>, Arc<str>) = ("person".into(), "dog".into());
        let mut scorer = Scorer::default();
        let (sure, any) = ([on(0.0, 0.9)], [on(0.0, 0.9), on(100.0, 0.1)]);
        scorer.add(&person, &[thing(0.0), thing(100.0)], Some(Answer::finished(&sure)), Some(&any));
        scorer.add(&dog, &[thing(0.0)], Some(Answer { boxes: &[], finished: false }), Some(&[]));
        scorer.add(&dog, &[], None, None);
        let (all, kinds) = scorer.figures();
        assert_eq!((all.phrases, all.targets, all.refused, all.unfinished), (3, 3, 1, 1));
        assert_eq!((kinds["person"].unfinished, kinds["dog"].unfinished), (0, 1));
        assert_eq!((kinds["person"].precision.ap, kinds["dog"].precision.ap), (Some(1.0), Some(0.0)));
        assert_eq!((all.precision.ap, all.recall), (Some(0.5), Some(2.0 / 3.0)));
        assert_eq!(
            (kinds["person"].f1, kinds["dog"].accuracy, kinds["dog"].miss),
            (Some(2.0 / 3.0), Some(0.0), Some(0.0))
        );
    }

    #[test]
    fn without_rankings_there_is_no_average_precision() {
        let mut scorer = Scorer::default();
        scorer.add(&"phrase".into(), &[thing(0.0)], Some(Answer::finished(&[on(0.0, 0.5)])), None);
        let (all, _) = scorer.figures();
        assert_eq!((all.accuracy, all.precision, all.recall), (Some(1.0), Precision::default(), None));
    }
}
