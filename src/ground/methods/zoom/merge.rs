//! The same thing seen in several views becomes one match. Pure: boxes in, boxes out.
//!
//! A thing that is large on its canvas is best seen where it is whole, so coarse views go first for those; what is
//! small on its canvas is best seen from near. A finer view's box inside a large one is a part of it; a coarse view's
//! small box beside a finer one is the same thing seen worse.

use super::look::MOVED;
use crate::{
    ground::{
        methods::{Hit, regions::Pick},
        zoom::{evidence::Evidence, memory::Seed},
    },
    types::{BBox, ScoreKind},
};

/// Of two views' boxes that overlap more than this, one stays; less than within a view, as small boxes are imprecise.
const SAME: f32 = 0.3;

/// Two views' boxes of which one lies in the other by more than this share are one thing.
const INSIDE: f32 = 0.7;

/// Of two views' boxes of one thing, one that is this many times as sure stays, whatever the views.
const SURER: f32 = 2.0;

/// A box as one view saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Where and how well.
    pub pick: Pick,
    /// The view; `None` is the whole picture.
    pub crop: Option<BBox>,
    /// How many source pixels the view shows across: the coarser, the more.
    pub across: f32,
    /// Whether it is small on the view's canvas.
    pub is_small: bool,
    /// What was said of it, on earlier pictures too.
    pub evidence: Evidence,
}

impl Seen {
    /// Where to look for it first on the next picture: in its crop, or in that in which it was found before, as one of `seeds`.
    pub fn seed(&self, seeds: &[Seed]) -> Option<Seed> {
        let Self { pick: Pick { bbox, .. }, crop, evidence, .. } = *self;
        if crop.is_some() {
            return Some(Seed { bbox, crop, missed: 0, evidence });
        }
        let overlap = |seed: &Seed| seed.bbox.iou(&bbox);
        let before = seeds.iter().max_by(|a, b| overlap(a).total_cmp(&overlap(b)))?;
        let seed = Seed { bbox, evidence, ..before.missed()? };
        (self.is_small && overlap(before) >= MOVED).then_some(seed)
    }
}

/// What is reported of it.
pub fn hits(found: &[Seen]) -> Vec<Hit> {
    found.iter().map(|one| Hit { pick: one.pick, kind: ScoreKind::TokenProb, crop: one.crop }).collect()
}

/// One match for each thing, best first. Of boxes in one view that overlap more than `nms_iou` the better one stays.
pub fn merged(seen: &[Seen], nms_iou: f32) -> Vec<Seen> {
    let outdone = |one: &Seen| seen.iter().any(|other| outdoes(other, one, nms_iou));
    let mut left: Vec<Seen> = seen.iter().filter(|one| !outdone(one)).copied().collect();
    left.sort_by(|a, b| {
        let by_view = if a.is_small { a.across.total_cmp(&b.across) } else { b.across.total_cmp(&a.across) };
        a.is_small.cmp(&b.is_small).then(by_view).then(b.pick.score.total_cmp(&a.pick.score))
    });
    let mut kept: Vec<Seen> = Vec::with_capacity(left.len());
    for one in left {
        if !kept.iter().any(|other| is_same(other, &one, nms_iou)) {
            kept.push(one);
        }
    }
    kept.sort_by(|a, b| b.pick.score.total_cmp(&a.pick.score));
    kept
}

fn is_same(a: &Seen, b: &Seen, nms_iou: f32) -> bool {
    let one_view = a.crop == b.crop;
    let limit = if one_view { nms_iou } else { SAME };
    a.pick.bbox.iou(&b.pick.bbox) > limit || (!one_view && inside(&a.pick.bbox, &b.pick.bbox) > INSIDE)
}

/// Whether `a` makes `b`, hardly believed and of another view, not worth a thought: whatever becomes of `a`. On clips, what was told
/// all the same where `a` was another thing's part was mostly wrong.
fn outdoes(a: &Seen, b: &Seen, nms_iou: f32) -> bool {
    a.crop != b.crop && a.pick.score > SURER * b.pick.score && is_same(a, b, nms_iou)
}

/// How much of the smaller box lies in the other.
fn inside(a: &BBox, b: &BBox) -> f32 {
    let (iou, sum) = (a.iou(b), a.area() + b.area());
    // IoU = i / (sum - i), solved for i.
    let both = iou * sum / (1.0 + iou);
    both / a.area().min(b.area())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(corners: [f32; 4], score: f32, crop: Option<f32>, is_small: bool) -> Seen {
        let [x1, y1, x2, y2] = corners;
        let crop = crop.and_then(|side| BBox::new(0.0, 0.0, side, side));
        let across = crop.map_or(1000.0, |crop| crop.width());
        let pick = Pick { bbox: BBox::new(x1, y1, x2, y2).unwrap(), score };
        Seen { pick, crop, across, is_small, evidence: Evidence::default() }
    }

    fn corners(hits: &[Seen]) -> Vec<([f32; 4], f32, bool)> {
        hits.iter().map(|hit| (hit.pick.bbox.corners(), hit.pick.score, hit.crop.is_some())).collect()
    }

    #[test]
    fn what_is_small_is_taken_from_near_and_what_is_large_from_afar() {
        let far = seen([100.0, 100.0, 112.0, 120.0], 0.9, None, true);
        let near = seen([101.0, 104.0, 116.0, 128.0], 0.8, Some(250.0), false);
        assert_eq!(corners(&merged(&[far, near], 0.5)), [([101.0, 104.0, 116.0, 128.0], 0.8, true)]);
        let bus = seen([100.0, 100.0, 400.0, 300.0], 0.6, None, false);
        let wheel = seen([120.0, 260.0, 160.0, 300.0], 0.95, Some(250.0), false);
        assert_eq!(corners(&merged(&[wheel, bus], 0.5)), [([100.0, 100.0, 400.0, 300.0], 0.6, false)]);
    }

    #[test]
    fn what_is_hardly_believed_takes_nothing_away_that_is_sure() {
        let blur = seen([0.0, 0.0, 600.0, 600.0], 0.06, None, false);
        let person = seen([100.0, 100.0, 160.0, 260.0], 0.9, Some(250.0), false);
        assert_eq!(corners(&merged(&[blur, person], 0.5)), [([100.0, 100.0, 160.0, 260.0], 0.9, true)]);
        let far = seen([98.0, 104.0, 158.0, 262.0], 0.8, None, true);
        let trace = seen([101.0, 100.0, 160.0, 260.0], 0.1, Some(250.0), true);
        assert_eq!(corners(&merged(&[far, trace], 0.5)), [([98.0, 104.0, 158.0, 262.0], 0.8, false)]);
    }

    #[test]
    fn what_one_view_tells_apart_stays_apart() {
        let (a, b) = (seen([0.0, 0.0, 10.0, 10.0], 0.6, None, true), seen([5.0, 0.0, 15.0, 10.0], 0.7, None, true));
        assert_eq!(merged(&[a, b], 0.5).len(), 2);
        assert_eq!(merged(&[a, b], 0.3).len(), 1);
        assert_eq!(merged(&[a, Seen { crop: BBox::new(0.0, 0.0, 9.0, 9.0), ..b }], 0.5).len(), 1);
    }

    proptest! {
        #[test]
        fn every_thing_is_kept_once_and_the_best_come_first(
            boxes in proptest::collection::vec(
                (0u8..200, 0u8..200, 1u8..50, 1u8..50, 0u8..9, prop::option::of(1u8..4), any::<bool>()), 0..20,
            ),
        ) {
            let seen: Vec<_> = boxes.iter().map(|(x, y, w, h, score, crop, small)| {
                let (x, y) = (f32::from(*x), f32::from(*y));
                let corners = [x, y, x + f32::from(*w), y + f32::from(*h)];
                super::tests::seen(corners, f32::from(*score) / 8.0, crop.map(|c| 100.0 * f32::from(c)), *small)
            }).collect();
            let hits = merged(&seen, 0.5);
            prop_assert!(hits.is_sorted_by(|a, b| a.pick.score >= b.pick.score));
            for hit in &hits {
                prop_assert!(seen.iter().any(|one| one.pick.bbox == hit.pick.bbox && one.crop == hit.crop));
                prop_assert!((0.0..=1.0).contains(&hit.pick.score));
            }
            for (at, a) in hits.iter().enumerate() {
                for b in &hits[..at] {
                    let (iou, inside) = (a.pick.bbox.iou(&b.pick.bbox), inside(&a.pick.bbox, &b.pick.bbox));
                    let apart = if a.crop == b.crop { iou <= 0.5 } else { iou <= SAME && inside <= INSIDE };
                    prop_assert!(apart, "{:?} and {:?} are one", a, b);
                }
            }
            for one in &seen {
                let near = |hit: &Seen| {
                    hit.pick.bbox.iou(&one.pick.bbox) > 0.299 || inside(&hit.pick.bbox, &one.pick.bbox) > 0.699
                };
                let surer = seen.iter().any(|other| outdoes(other, one, 0.5));
                prop_assert!(surer || hits.iter().any(near), "{:?} is lost", one);
            }
        }
    }
}
