//! Average precision as COCO counts it: the whole ranking of a class's boxes over all images.
//!
//! From `pycocotools/cocoeval.py` (cocoapi): IoU from 0.50 to 0.95 by 0.05, precision at 101 recalls, at most 100 boxes an
//! image and class, crowds and things of other sizes excused. `tests/data/eval` compares it with pycocotools.

use serde::Serialize;

use super::matching::{Scored, Truth, assign, best, overlaps};

/// Most boxes of one image and class that count.
pub const MAX_BOXES: usize = 100;

const THRESHOLDS: usize = 10;
const RECALLS: u32 = 100;

/// Areas in square pixels, both ends included: all, small, medium, large.
const AREAS: [(f64, f64); 4] = [(0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10)];

/// The `i`th IoU threshold, rounded just as the reference rounds it.
fn threshold(i: usize) -> f64 {
    0.5 + i as f64 * ((0.95 - 0.5) / 9.0)
}

fn bit(area: usize, threshold: usize) -> u64 {
    1 << (area * THRESHOLDS + threshold)
}

/// One box in the ranking: at which areas and thresholds it is right, and where it counts neither way.
#[derive(Debug, Clone, Copy)]
struct Row {
    score: f64,
    right: u64,
    excused: u64,
}

/// The boxes of one class over all images, and how many things there were to find.
#[derive(Debug, Clone, Default)]
pub struct Ranking {
    rows: Vec<Row>,
    wanted: [usize; AREAS.len()],
}

/// The average precisions of one class, or their means over classes; `None` where there was nothing to find.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Precision {
    /// Mean over IoU 0.50 to 0.95.
    pub ap: Option<f64>,
    /// At IoU 0.50.
    pub ap50: Option<f64>,
    /// At IoU 0.75.
    pub ap75: Option<f64>,
    /// As `ap`, things below 32 squared pixels.
    pub ap_small: Option<f64>,
    /// As `ap`, things from 32 to 96 squared pixels.
    pub ap_medium: Option<f64>,
    /// As `ap`, larger things.
    pub ap_large: Option<f64>,
}

impl Precision {
    /// The mean of every figure over the classes that have it.
    pub fn mean(classes: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> Option<f64>| {
            let known: Vec<f64> = classes.iter().filter_map(figure).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        };
        Self {
            ap: mean(|p| p.ap),
            ap50: mean(|p| p.ap50),
            ap75: mean(|p| p.ap75),
            ap_small: mean(|p| p.ap_small),
            ap_medium: mean(|p| p.ap_medium),
            ap_large: mean(|p| p.ap_large),
        }
    }
}

impl Ranking {
    /// Takes in one image: what is there of the class, and what was answered. Of equal scores the one taken in earlier
    /// ranks first, so the order of the images can matter to a model whose scores are all alike.
    pub fn add(&mut self, truths: &[Truth], found: &[Scored]) {
        let found = best(found, MAX_BOXES);
        let overlaps = overlaps(&found, truths);
        let mut rows: Vec<Row> = found.iter().map(|f| Row { score: f.score, right: 0, excused: 0 }).collect();
        for (a, &(low, high)) in AREAS.iter().enumerate() {
            let outside = |area: f64| area < low || area > high;
            let ignored: Vec<bool> = truths.iter().map(|t| t.crowd || outside(t.area)).collect();
            self.wanted[a] += ignored.iter().filter(|ignored| !**ignored).count();
            for t in 0..THRESHOLDS {
                let assigned = assign(&overlaps, truths, &ignored, threshold(t));
                for ((row, found), assigned) in rows.iter_mut().zip(&found).zip(assigned) {
                    match assigned {
                        Some(i) if !ignored[i] => row.right |= bit(a, t),
                        Some(_) => row.excused |= bit(a, t),
                        None if outside(found.rect.area()) => row.excused |= bit(a, t),
                        None => {}
                    }
                }
            }
        }
        self.rows.extend(rows);
    }

    /// Things to find, and how many of them some box found at IoU 0.5, whatever its score.
    pub fn reached(&self) -> (usize, usize) {
        (self.wanted[0], self.rows.iter().filter(|row| row.right & bit(0, 0) != 0).count())
    }

    /// The class's average precisions.
    pub fn precision(&self) -> Precision {
        let mut rows = self.rows.clone();
        // Stable: equal scores stay in the order of the images.
        rows.sort_by(|a, b| b.score.total_cmp(&a.score));
        let at = |a: usize, t: usize| average(&rows, bit(a, t), self.wanted[a]);
        let over = |a: usize| {
            let all: Option<Vec<f64>> = (0..THRESHOLDS).map(|t| at(a, t)).collect();
            all.map(|all| all.iter().sum::<f64>() / THRESHOLDS as f64)
        };
        Precision {
            ap: over(0),
            ap50: at(0, 0),
            ap75: at(0, 5),
            ap_small: over(1),
            ap_medium: over(2),
            ap_large: over(3),
        }
    }
}

/// The mean of the precisions at 101 recalls; `None` if there is nothing to find.
fn average(rows: &[Row], bit: u64, wanted: usize) -> Option<f64> {
    if wanted == 0 {
        return None;
    }
    let (mut right, mut counted) = (0usize, 0usize);
    let mut curve: Vec<(f64, f64)> = Vec::new();
    for row in rows.iter().filter(|row| row.excused & bit == 0) {
        right += usize::from(row.right & bit != 0);
        counted += 1;
        curve.push((right as f64 / wanted as f64, right as f64 / counted as f64));
    }
    // Precision at a recall is the best at that recall or a higher one.
    let mut most = 0.0f64;
    for (_, precision) in curve.iter_mut().rev() {
        most = most.max(*precision);
        *precision = most;
    }
    let mut rest = curve.as_slice();
    let precisions = (0..=RECALLS).map(|i| {
        let recall = f64::from(i) * 0.01;
        rest = &rest[rest.partition_point(|(reached, _)| *reached < recall)..];
        rest.first().map_or(0.0, |(_, precision)| *precision)
    });
    Some(precisions.sum::<f64>() / f64::from(RECALLS + 1))
}

#[cfg(test)]
mod tests;
