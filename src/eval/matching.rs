//! Which answered box is which true thing. Boxes as COCO has them: x, y, width and height in `f64` pixels, no pixel added.
//!
//! The rules are those of `pycocotools/cocoeval.py` and its `maskApi.c` (cocoapi, BSD), written anew.

use crate::types::BBox;

/// A box by its upper left corner and its size, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width, not negative.
    pub width: f64,
    /// Height, not negative.
    pub height: f64,
}

impl Rect {
    /// Width times height.
    pub fn area(&self) -> f64 {
        self.width * self.height
    }

    /// Corners `[x1, y1, x2, y2]`.
    pub fn corners(&self) -> [f64; 4] {
        [self.x, self.y, self.x + self.width, self.y + self.height]
    }

    /// Area of the part that both have.
    fn shared(&self, other: &Self) -> f64 {
        let width = (self.x + self.width).min(other.x + other.width) - self.x.max(other.x);
        let height = (self.y + self.height).min(other.y + other.height) - self.y.max(other.y);
        if width <= 0.0 || height <= 0.0 { 0.0 } else { width * height }
    }

    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &Self) -> f64 {
        ratio(self.shared(other), self.area() + other.area(), 1.0)
    }

    /// The share of this box that lies in `crowd`, 0 to 1.
    pub fn inside(&self, crowd: &Self) -> f64 {
        ratio(self.shared(crowd), self.area(), 0.0)
    }
}

/// `shared / (whole - times * shared)`, 0 where nothing is shared.
fn ratio(shared: f64, whole: f64, times: f64) -> f64 {
    if shared > 0.0 { shared / (whole - times * shared) } else { 0.0 }
}

impl From<&BBox> for Rect {
    fn from(bbox: &BBox) -> Self {
        let [x1, y1, x2, y2] = bbox.corners().map(f64::from);
        Self { x: x1, y: y1, width: x2 - x1, height: y2 - y1 }
    }
}

/// A thing that is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Where.
    pub rect: Rect,
    /// Its area in square pixels; of its outline, where the data set knows that, not of its box.
    pub area: f64,
    /// Many of them in one box: whatever is found inside counts neither way.
    pub crowd: bool,
}

impl Truth {
    /// A single thing that fills its box.
    pub fn boxed(rect: Rect) -> Self {
        Self { rect, area: rect.area(), crowd: false }
    }

    /// How well `found` covers it: IoU, or for a crowd the share of `found` inside.
    pub fn overlap(&self, found: &Rect) -> f64 {
        if self.crowd { found.inside(&self.rect) } else { found.iou(&self.rect) }
    }
}

/// An answered box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Where.
    pub rect: Rect,
    /// How sure; only the order matters.
    pub score: f64,
}

/// The `most` best of `found`, best first; of equals the earlier comes first.
pub fn best(found: &[Scored], most: usize) -> Vec<Scored> {
    let mut sorted = found.to_vec();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    sorted.truncate(most);
    sorted
}

/// The overlap of each answered box with each thing: one row an answered box.
pub fn overlaps(found: &[Scored], truths: &[Truth]) -> Vec<Vec<f64>> {
    found.iter().map(|f| truths.iter().map(|t| t.overlap(&f.rect)).collect()).collect()
}

/// Gives each answered box, the best first, the free thing it overlaps most, at least by `threshold`: the thing's index.
///
/// `overlaps` has a row an answered box. A thing that is `ignored` is taken only by a box that finds no other; a crowd can be
/// taken again and again. Of equally good things the later one is taken.
pub fn assign(overlaps: &[Vec<f64>], truths: &[Truth], ignored: &[bool], threshold: f64) -> Vec<Option<usize>> {
    let counted = (0..truths.len()).filter(|i| !ignored[*i]);
    let order: Vec<usize> = counted.chain((0..truths.len()).filter(|i| ignored[*i])).collect();
    let mut taken = vec![false; truths.len()];
    // A perfect overlap must reach a threshold of 1 in spite of rounding.
    let least = threshold.min(1.0 - 1e-10);
    let mut assigned = Vec::with_capacity(overlaps.len());
    for row in overlaps {
        let mut found: Option<usize> = None;
        let mut most = least;
        for &i in &order {
            if taken[i] && !truths[i].crowd {
                continue;
            }
            if found.is_some_and(|f| !ignored[f]) && ignored[i] {
                break;
            }
            if row[i] >= most {
                (found, most) = (Some(i), row[i]);
            }
        }
        if let Some(i) = found {
            taken[i] = true;
        }
        assigned.push(found);
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn rect(x: f64, y: f64, width: f64, height: f64) -> Rect {
        Rect { x, y, width, height }
    }

    fn found(rects: &[Rect]) -> Vec<Scored> {
        (0u8..).zip(rects).map(|(i, rect)| Scored { rect: *rect, score: 1.0 - f64::from(i) / 256.0 }).collect()
    }

    fn assigned(rects: &[Rect], truths: &[Truth], ignored: &[bool], threshold: f64) -> Vec<Option<usize>> {
        assign(&overlaps(&found(rects), truths), truths, ignored, threshold)
    }

    #[test]
    fn overlap_is_of_the_union_and_for_a_crowd_of_the_answer() {
        let (a, b) = (rect(0.0, 0.0, 2.0, 2.0), rect(1.0, 0.0, 2.0, 2.0));
        assert!((a.iou(&b) - 1.0 / 3.0).abs() < 1e-12);
        assert!((Truth { crowd: true, ..Truth::boxed(b) }.overlap(&a) - 0.5).abs() < 1e-12);
        assert!(a.iou(&rect(2.0, 0.0, 1.0, 1.0)) <= 0.0, "touching is not overlapping");
    }

    #[test]
    fn a_thing_is_found_once_and_by_the_better_box() {
        let truths = [Truth::boxed(rect(0.0, 0.0, 10.0, 10.0))];
        let two = [rect(0.0, 0.0, 10.0, 9.0), rect(0.0, 0.0, 10.0, 10.0)];
        assert_eq!(assigned(&two, &truths, &[false], 0.5), [Some(0), None]);
    }

    #[test]
    fn a_crowd_takes_any_number_but_only_what_nobody_else_wants() {
        let crowd = Truth { crowd: true, ..Truth::boxed(rect(0.0, 0.0, 100.0, 100.0)) };
        let truths = [crowd, Truth::boxed(rect(0.0, 0.0, 10.0, 10.0))];
        let three = [rect(0.0, 0.0, 10.0, 8.0), rect(50.0, 50.0, 5.0, 5.0), rect(60.0, 50.0, 5.0, 5.0)];
        assert_eq!(assigned(&three, &truths, &[true, false], 0.5), [Some(1), Some(0), Some(0)]);
    }

    proptest! {
        #[test]
        fn assignments_are_one_to_one_and_reach_the_threshold(
            boxes in proptest::collection::vec((0u8..20, 0u8..20, 1u8..20, 1u8..20), 0..12),
            things in proptest::collection::vec((0u8..20, 0u8..20, 1u8..20, 1u8..20, any::<bool>()), 0..12),
            threshold in 0.1f64..1.0,
        ) {
            let to = |x: u8, y: u8, w: u8, h: u8| rect(x.into(), y.into(), w.into(), h.into());
            let rects: Vec<Rect> = boxes.iter().map(|b| to(b.0, b.1, b.2, b.3)).collect();
            let truths: Vec<Truth> =
                things.iter().map(|t| Truth { crowd: t.4, ..Truth::boxed(to(t.0, t.1, t.2, t.3)) }).collect();
            let crowd: Vec<bool> = truths.iter().map(|t| t.crowd).collect();
            let got = assigned(&rects, &truths, &crowd, threshold);
            let mut singles: Vec<usize> = got.iter().flatten().copied().filter(|i| !truths[*i].crowd).collect();
            let taken = singles.len();
            singles.sort_unstable();
            singles.dedup();
            prop_assert_eq!(singles.len(), taken, "a thing was found twice");
            for (rect, i) in rects.iter().zip(&got) {
                prop_assert!(i.is_none_or(|i| truths[i].overlap(rect) >= threshold.min(1.0 - 1e-10)));
            }
            // With a lower bar no fewer things are found... of the boxes that found nothing, none had a free one to take.
            for (rect, _) in rects.iter().zip(&got).filter(|(_, i)| i.is_none()) {
                let free = |i: usize| truths[i].crowd || !singles.contains(&i);
                prop_assert!((0..truths.len()).all(|i| !free(i) || truths[i].overlap(rect) < threshold));
            }
        }
    }
}
