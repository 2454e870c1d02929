//! From scored proposals on the canvas to the matches that are reported. Pure: numbers in, boxes out.

use crate::types::{BBox, Letterbox};

/// What a region must reach to be reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Least objectness of a region that is offered at all.
    pub objectness: f32,
    /// Least score of a match.
    pub score: f32,
    /// Of two matches that overlap more than this, the better one stays.
    pub nms_iou: f32,
    /// Of two that overlap less, the weaker one's score is multiplied by e^(-IoU²/this); infinite is by 1.
    pub soft: f32,
}

/// A region that matches, in source pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Where.
    pub bbox: BBox,
    /// How well, 0 to 1.
    pub score: f32,
}

/// The proposals of one frame: one entry a region in all three slices.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Corners in fractions of the canvas.
    pub boxes: &'a [[f32; 4]],
    /// How sure the proposal network is that this is a thing at all, 0 to 1.
    pub objectness: &'a [f32],
    /// How well it fits the words, 0 to 1.
    pub scores: &'a [f32],
}

/// The regions that pass the bar, best first; of equals the one proposed earlier comes first. Boxes are clipped to the
/// picture; those in the border, and anything that is not a number, are not reported.
///
/// A second, looser box around a thing overlaps its best one too little for plain suppression, where a crowd is to be told
/// apart. So the scores of what overlaps fall first: Soft-NMS with a Gaussian (Bodla et al. 2017, equation 3).
pub fn choose(view: &Letterbox, offer: Offer<'_>, bar: Bar) -> Vec<Pick> {
    choose_in(|corners| view.to_source(corners), offer, bar)
}

/// The same for a canvas that shows something else than a whole picture: `to_source` maps fractions of it to source
/// pixels.
pub fn choose_in(to_source: impl Fn([f32; 4]) -> Option<BBox>, offer: Offer<'_>, bar: Bar) -> Vec<Pick> {
    let regions = offer.boxes.iter().zip(offer.objectness).zip(offer.scores);
    let passing = regions.filter(|((_, objectness), score)| **objectness >= bar.objectness && **score >= bar.score);
    let mut picks: Vec<_> = passing
        .filter_map(|((corners, _), score)| Some(Pick { bbox: to_source(*corners)?, score: score.clamp(0.0, 1.0) }))
        .collect();
    let mut kept: Vec<Pick> = Vec::with_capacity(picks.len());
    while let Some(best) = take_best(&mut picks).filter(|best| best.score >= bar.score) {
        picks.retain_mut(|pick| {
            let iou = best.bbox.iou(&pick.bbox);
            pick.score *= (-iou * iou / bar.soft).exp();
            iou <= bar.nms_iou
        });
        kept.push(best);
    }
    kept
}

/// Takes the best out; of equals the first. The others keep their order.
fn take_best(picks: &mut Vec<Pick>) -> Option<Pick> {
    let better = |best: usize, at: usize| if picks[at].score > picks[best].score { at } else { best };
    let best = (0..picks.len()).reduce(better)?;
    Some(picks.remove(best))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Size;

    const BAR: Bar = Bar { objectness: 0.3, score: 0.5, nms_iou: 0.6, soft: f32::INFINITY };

    fn square() -> Letterbox {
        Letterbox::fit(Size::new(100, 100), 1.0, Size::new(100, 100))
    }

    fn scores(picks: &[Pick]) -> Vec<f32> {
        picks.iter().map(|p| p.score).collect()
    }

    #[test]
    fn the_best_of_a_heap_stays_and_the_rest_comes_in_order() {
        let boxes = [[0.0, 0.0, 0.5, 0.5], [0.01, 0.0, 0.51, 0.5], [0.6, 0.6, 0.9, 0.9], [0.6, 0.0, 0.9, 0.3]];
        let offer = Offer { boxes: &boxes, objectness: &[0.9, 0.9, 0.9, 0.29], scores: &[0.7, 0.8, 0.9, 1.0] };
        let picks = choose(&square(), offer, BAR);
        assert_eq!(scores(&picks), [0.9, 0.8]);
        assert_eq!(Some(picks[1].bbox), BBox::new(1.0, 0.0, 51.0, 50.0));
    }

    #[test]
    fn the_bar_itself_passes_and_what_is_not_a_number_does_not() {
        let boxes = [[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7], [0.8, 0.8, f32::NAN, 0.9], [0.3, 0.3, 0.2, 0.4]];
        let offer = Offer { boxes: &boxes, objectness: &[0.3, f32::NAN, 0.9, 0.9], scores: &[0.5, 0.9, 0.9, 0.9] };
        assert_eq!(scores(&choose(&square(), offer, BAR)), [0.5]);
        let nan = Offer { boxes: &boxes[..1], objectness: &[0.9], scores: &[f32::NAN] };
        assert_eq!(choose(&square(), nan, BAR), []);
    }

    #[test]
    fn of_equals_the_earlier_proposal_wins() {
        let boxes = [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.51]];
        let offer = Offer { boxes: &boxes, objectness: &[0.9; 2], scores: &[0.8; 2] };
        let picks = choose(&square(), offer, BAR);
        assert_eq!(picks.iter().map(|p| p.bbox.corners()[3]).collect::<Vec<_>>(), [50.0]);
    }

    #[test]
    fn the_score_of_what_overlaps_a_better_one_falls() {
        // IoU of the first with the others: 1/3, 0, 1/9.
        let boxes = [[0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.4], [0.6, 0.6, 0.9, 0.9], [0.0, 0.32, 0.4, 0.72]];
        let offer = Offer { boxes: &boxes, objectness: &[0.9; 4], scores: &[0.9, 0.7, 0.6, 0.55] };
        let picks = choose(&square(), offer, Bar { soft: 0.3, ..BAR });
        // 0.7 · e^(-1/2.7) = 0.4833 is under the bar; 0.55 · e^(-1/24.3) = 0.5278 is not.
        assert_eq!(picks.len(), 3);
        for (pick, score) in picks.iter().zip([0.9, 0.6, 0.527_8]) {
            assert!((pick.score - score).abs() < 1e-3, "{picks:?}");
        }
    }

    #[test]
    fn a_region_in_the_border_is_not_reported() {
        let tall = Letterbox::fit(Size::new(100, 200), 1.0, Size::new(100, 100));
        let offer = Offer { boxes: &[[0.0, 0.0, 0.2, 1.0]], objectness: &[1.0], scores: &[1.0] };
        assert_eq!(choose(&tall, offer, BAR), []);
    }

    fn regions() -> impl Strategy<Value = Vec<([f32; 4], f32, f32)>> {
        // Few distinct scores, so that ties are common.
        // Of whole numbers: proptest now and then trips over its own rounding in ranges like -0.2..1.2.
        let corners = [(); 4].map(|()| (-200i16..1200).prop_map(|thousandths| f32::from(thousandths) / 1000.0));
        proptest::collection::vec((corners, 0.0f32..1.0, (0u8..8).prop_map(|s| f32::from(s) / 7.0)), 0..40)
    }

    proptest! {
        #[test]
        fn picks_keep_every_promise(
            regions in regions(), (w, h) in (1u32..3000, 1u32..3000),
            objectness in 0.0f32..1.0, score in 0.0f32..1.0, nms_iou in 0.0f32..1.0,
            soft in prop_oneof![Just(f32::INFINITY), 0.05f32..2.0],
        ) {
            let view = Letterbox::fit(Size::new(w, h), 1.0, Size::new(512, 288));
            let bar = Bar { objectness, score, nms_iou, soft };
            let boxes: Vec<_> = regions.iter().map(|r| r.0).collect();
            let sure: Vec<_> = regions.iter().map(|r| r.1).collect();
            let scores: Vec<_> = regions.iter().map(|r| r.2).collect();
            let offer = Offer { boxes: &boxes, objectness: &sure, scores: &scores };
            let picks = choose(&view, offer, bar);
            prop_assert_eq!(&picks, &choose(&view, offer, bar));
            for (i, pick) in picks.iter().enumerate() {
                let [x1, y1, x2, y2] = pick.bbox.corners();
                prop_assert!(x1 >= 0.0 && y1 >= 0.0 && x2 <= w as f32 && y2 <= h as f32);
                prop_assert!(pick.score >= bar.score && pick.score <= 1.0);
                prop_assert!(picks[..i].iter().all(|p| p.score >= pick.score && p.bbox.iou(&pick.bbox) <= bar.nms_iou));
            }
            // Nothing that passes is left out but for a better one on top of it, or better ones that overlap it.
            for (corners, sure, score) in &regions {
                if *sure >= bar.objectness && *score >= bar.score && let Some(bbox) = view.to_source(*corners) {
                    let on_top = |p: &Pick| p.bbox == bbox || p.bbox.iou(&bbox) > bar.nms_iou;
                    let fallen = picks.iter().map(|p| (-p.bbox.iou(&bbox).powi(2) / bar.soft).exp()).product::<f32>() * score;
                    prop_assert!(picks.iter().any(on_top) || fallen < bar.score * 1.0001, "{:?} is missing", bbox);
                }
            }
        }
    }
}
