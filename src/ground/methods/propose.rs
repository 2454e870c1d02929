//! Regions of a picture that may hold a thing, whatever it is: what models that rank regions by words begin with.

use super::regions::Pick;
use crate::{
    ground::{GroundError, codec::Placement},
    types::{BBox, Rgb, overlap},
};

/// A region that may hold a thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Where, in pixels of the picture.
    pub bbox: BBox,
    /// How sure the network is that there is a thing at all, 0 to 1.
    pub objectness: f32,
}

/// Offers regions of a picture.
pub trait BoxProposer: Send {
    /// Regions of a picture, the surest first.
    fn regions(&mut self, picture: &Rgb) -> Result<Vec<Region>, GroundError>;
}

/// A box with a score, before anything is known of it but where it lies on the model's image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Corners, in any unit that all candidates share.
    pub corners: [f32; 4],
    /// What it is one of; candidates of different classes never suppress one another.
    pub class: usize,
    /// How sure the network is, 0 to 1.
    pub score: f32,
}

impl Candidate {
    /// One whose corners are in pixels of the picture, as a region; `None` if it is no box.
    pub fn region(&self) -> Option<Region> {
        Some(Region { bbox: self.bbox()?, objectness: self.score })
    }

    /// The same as a match.
    pub fn pick(&self) -> Option<Pick> {
        Some(Pick { bbox: self.bbox()?, score: self.score })
    }

    fn bbox(&self) -> Option<BBox> {
        let [x1, y1, x2, y2] = self.corners;
        BBox::new(x1, y1, x2, y2)
    }
}

/// The corners of a box of which a network tells the centre and the sides.
pub fn corners([cx, cy, w, h]: [f32; 4]) -> [f32; 4] {
    [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
}

/// The best candidates, best first, of which none overlaps a better one of its class by more than `iou`; at most
/// `most`. Of equals the earlier is the better. What is empty or not a number is left out.
///
/// Greedy suppression, as every detector's reference does it; without the pixel that older ones add to each side.
pub fn suppress(mut candidates: Vec<Candidate>, iou: f32, most: usize) -> Vec<Candidate> {
    candidates.retain(|c| {
        let [x1, y1, x2, y2] = c.corners;
        c.score.is_finite() && c.corners.iter().all(|v| v.is_finite()) && x1 < x2 && y1 < y2
    });
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() >= most {
            break;
        }
        let covered =
            |better: &Candidate| better.class == candidate.class && overlap(&better.corners, &candidate.corners) > iou;
        if iou >= 1.0 || !kept.iter().any(covered) {
            kept.push(candidate);
        }
    }
    kept
}

/// The candidates, in fractions of an image in which a picture lies so, with a score of at least `least`, suppressed by `iou`: as
/// matches in the picture, best first.
pub fn picks(candidates: Vec<Candidate>, least: f32, iou: f32, placement: &Placement) -> Vec<Pick> {
    let sure = candidates.into_iter().filter(|candidate| candidate.score >= least).collect();
    let pick = |c: &Candidate| Some(Pick { bbox: placement.to_picture(c.corners)?, score: c.score });
    suppress(sure, iou, usize::MAX).iter().filter_map(pick).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(corners: [f32; 4], class: usize, score: f32) -> Candidate {
        Candidate { corners, class, score }
    }

    #[test]
    fn a_box_is_suppressed_by_a_better_one_of_its_class_only() {
        let a = candidate([0.0, 0.0, 10.0, 10.0], 0, 0.5);
        let b = candidate([1.0, 0.0, 11.0, 10.0], 0, 0.9);
        let c = candidate([1.0, 0.0, 11.0, 10.0], 1, 0.4);
        assert_eq!(suppress(vec![a, b, c], 0.5, 9), [b, c]);
        assert_eq!(suppress(vec![a, b, c], 0.9, 9), [b, a, c]);
        assert_eq!(suppress(vec![a, b, c], 1.0, 2), [b, a]);
    }

    #[test]
    fn what_is_no_box_is_no_candidate() {
        for corners in
            [[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, f32::NAN, 1.0, 1.0], [0.0, 0.0, f32::INFINITY, 1.0]]
        {
            assert_eq!(suppress(vec![candidate(corners, 0, 0.5)], 0.5, 9), []);
        }
        assert_eq!(suppress(vec![candidate([0.0, 0.0, 1.0, 1.0], 0, f32::NAN)], 0.5, 9), []);
    }

    proptest! {
        #[test]
        fn what_stays_is_apart_and_what_goes_is_covered(
            boxes in prop::collection::vec((0.0f32..50.0, 0.0f32..50.0, 1.0f32..40.0, 1.0f32..40.0, 0usize..3, 0u8..9), 0..60),
            iou in 0.0f32..1.0,
        ) {
            let all: Vec<_> = boxes.iter().map(|&(x, y, w, h, class, score)| {
                candidate([x, y, x + w, y + h], class, f32::from(score) / 8.0)
            }).collect();
            let kept = suppress(all.clone(), iou, usize::MAX);
            for (i, one) in kept.iter().enumerate() {
                for better in &kept[..i] {
                    prop_assert!(better.score >= one.score);
                    prop_assert!(better.class != one.class || overlap(&better.corners, &one.corners) <= iou);
                }
            }
            for gone in &all {
                let covers = |k: &Candidate| {
                    k == gone
                        || (k.class == gone.class && k.score >= gone.score && overlap(&k.corners, &gone.corners) > iou)
                };
                prop_assert!(kept.iter().any(covers));
            }
        }
    }
}
