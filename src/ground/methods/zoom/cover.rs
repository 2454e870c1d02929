//! Which crops to look at, of all that might show something known, if there is no time for all. Pure.

use super::look::{SMALL, Sight};
use crate::{
    ground::zoom::memory::Seed,
    types::{BBox, Size},
};

/// A crop shows a thing with this much of the thing's size around it.
const SHOWN: f32 = 0.25;

/// What another crop has to add, where a thing that nothing else shows, seen well, adds 1.
const LEAST_GAIN: f32 = 0.2;

/// Whether a crop shows where a seed is.
pub(super) fn shows(crop: &BBox, seed: &Seed, picture: Size) -> bool {
    shows_box(crop, &seed.bbox, picture)
}

/// Whether a crop shows a box whole.
pub(super) fn shows_box(crop: &BBox, bbox: &BBox, picture: Size) -> bool {
    holds(crop, bbox, SHOWN, picture)
}

/// Whether a crop shows a thing with `round` times its size around it, as far as the picture goes.
pub(super) fn holds(crop: &BBox, thing: &BBox, round: f32, picture: Size) -> bool {
    let ([x1, y1, x2, y2], [left, top, right, bottom]) = (thing.corners(), crop.corners());
    let (dx, dy) = (thing.width() * round, thing.height() * round);
    let (width, height) = (picture.width as f32, picture.height as f32);
    let low = (x1 - dx).max(0.0) >= left && (y1 - dy).max(0.0) >= top;
    low && (x2 + dx).min(width) <= right && (y2 + dy).min(height) <= bottom
}

/// Source pixels, on a side, that make one of the canvas. A crop of another shape than the canvas does not fill it: the side
/// that does is what counts.
pub(super) fn coarseness(crop: &BBox, canvas: Size) -> f32 {
    (crop.width() / canvas.width as f32).max(crop.height() / canvas.height as f32)
}

/// How well a crop shows a seed, 0 to 1: nothing more is gained once it is no longer small on the canvas, and nothing at all where it is not shown whole.
pub(super) fn clarity(crop: &BBox, seed: &Seed, sight: Sight, picture: Size) -> f32 {
    if !shows(crop, seed, picture) {
        return 0.0;
    }
    let share = seed.bbox.width().max(seed.bbox.height()) / coarseness(crop, sight.canvas) / sight.span();
    (share / SMALL).min(1.0)
}

/// At most `most` of `crops` that together show the seeds as well as they can, those that add more first. Each adds what
/// it shows better than those before it (a greedy maximum coverage: at least 1 − 1/e of the best there is, Nemhauser,
/// Wolsey and Fisher 1978).
pub(super) fn covering(seeds: &[Seed], crops: &[BBox], most: usize, sight: Sight, picture: Size) -> Vec<BBox> {
    // Those that had to wait count for more, so that each has its turn.
    let worth = |seed: &Seed| if seed.missed > 0 { 2.0 } else { 1.0 };
    let clear = |crop: &BBox| seeds.iter().map(|seed| clarity(crop, seed, sight, picture)).collect::<Vec<_>>();
    let clarities: Vec<Vec<f32>> = crops.iter().map(clear).collect();
    let mut best = vec![0.0_f32; seeds.len()];
    let mut shown = Vec::new();
    while shown.len() < most {
        let added = |clear: &[f32]| -> f32 {
            seeds.iter().zip(clear).zip(&best).map(|((seed, now), best)| (now - best).max(0.0) * worth(seed)).sum()
        };
        // Of equals the first.
        let gains = clarities.iter().map(|clear| added(clear)).enumerate();
        let Some((at, gain)) = gains.reduce(|a, b| if b.1 > a.1 { b } else { a }) else { break };
        if gain < LEAST_GAIN {
            break;
        }
        shown.push(crops[at]);
        for (best, now) in best.iter_mut().zip(&clarities[at]) {
            *best = best.max(*now);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PICTURE: Size = Size { width: 1000, height: 500 };
    const SIGHT: Sight = Sight { canvas: Size { width: 100, height: 50 }, detail: 1.0 };

    fn square(x: f32, y: f32, side: f32) -> BBox {
        BBox::new(x, y, x + side, y + side).unwrap()
    }

    fn seed(x: f32, y: f32, missed: u8) -> Seed {
        Seed { missed, ..Seed::at(square(x, y, 10.0)) }
    }

    /// A crop of the canvas' shape.
    fn crop(x: f32, y: f32, width: f32) -> BBox {
        BBox::new(x, y, x + width, y + width / 2.0).unwrap()
    }

    /// A crop of 100 pixels across, of which a seed's 10 are a fifth of the canvas' height.
    fn around(seed: &Seed) -> BBox {
        let (x, y) = seed.bbox.center();
        crop((x - 50.0).max(0.0), (y - 25.0).max(0.0), 100.0)
    }

    fn cover(seeds: &[Seed], wide: &[BBox], most: usize) -> Vec<BBox> {
        let crops: Vec<_> = seeds.iter().map(around).chain(wide.iter().copied()).collect();
        covering(seeds, &crops, most, SIGHT, PICTURE)
    }

    #[test]
    fn the_crop_that_shows_most_comes_first_and_those_that_waited_have_their_turn() {
        let crowd = [seed(500.0, 200.0, 0), seed(520.0, 210.0, 0), seed(530.0, 190.0, 0)];
        let seeds = [&[seed(100.0, 100.0, 0)], &crowd[..]].concat();
        assert_eq!(cover(&seeds, &[], 1), [around(&crowd[0])]);
        assert_eq!(cover(&seeds, &[], 5), [around(&crowd[0]), around(&seeds[0])]);
        let seeds = [seed(100.0, 100.0, 5), crowd[0]];
        assert_eq!(cover(&seeds, &[], 1), [around(&seeds[0])]);
        assert_eq!(seed(0.0, 0.0, 8).missed(), None);
    }

    #[test]
    fn a_wide_crop_is_taken_where_it_shows_more_and_a_narrow_one_besides_where_that_shows_it_better() {
        let seeds = [seed(100.0, 100.0, 0), seed(300.0, 100.0, 0)];
        // Ten pixels of 200 are 0.1 of the canvas' height: two thirds of what is seen well.
        let wide = crop(280.0, 50.0, 200.0);
        let both = crop(95.0, 50.0, 220.0);
        assert_eq!(cover(&seeds, &[wide, both], 1), [both]);
        assert_eq!(cover(&seeds[..1], &[both], 2), [around(&seeds[0])]);
        assert_eq!(cover(&seeds, &[both], 3), [both, around(&seeds[0]), around(&seeds[1])]);
        // What is as good as seen well is not looked at again.
        let nearly = crop(90.0, 80.0, 115.0);
        assert_eq!(cover(&[seeds[0], seed(185.0, 100.0, 0)], &[nearly], 9), [nearly]);
    }

    #[test]
    fn a_crop_of_another_shape_than_the_canvas_shows_no_more_than_its_longer_side_allows() {
        let (sight, picture) = (Sight { canvas: Size::new(512, 288), detail: 1.0 }, Size::new(1080, 1920));
        let clear = |crop: [f32; 4]| {
            let [x1, y1, x2, y2] = crop;
            let seed = Seed::at(square(500.0, 600.0, 90.0));
            clarity(&BBox::new(x1, y1, x2, y2).unwrap(), &seed, sight, picture)
        };
        let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
        // All of the picture's 1920 lines are on the canvas' 288: of 90 there are 13.5, which is 0.047 of them.
        assert!(near(clear([0.0, 0.0, 1080.0, 1920.0]), 13.5 / 288.0 / SMALL));
        // As wide, and of the canvas' shape: 42.7.
        assert!(near(clear([0.0, 300.0, 1080.0, 907.5]), 90.0 * 512.0 / 1080.0 / 288.0 / SMALL));
        // Wider than the canvas' shape: the width is what counts.
        assert!(near(clear([0.0, 550.0, 1080.0, 750.0]), 90.0 * 512.0 / 1080.0 / 288.0 / SMALL));
    }

    #[test]
    fn at_the_pictures_edge_nothing_has_to_be_around() {
        let corner = square(0.0, 0.0, 100.0);
        assert!(shows(&corner, &seed(0.0, 0.0, 0), PICTURE));
        assert!(!shows(&corner, &seed(89.0, 50.0, 0), PICTURE));
        assert!(!shows(&corner, &seed(50.0, 95.0, 0), PICTURE));
    }

    proptest! {
        #[test]
        fn no_crop_is_taken_that_adds_little_and_none_is_left_that_adds_much(
            seeds in proptest::collection::vec((0u16..990, 0u16..490, 0u8..9), 0..30),
            wide in proptest::collection::vec((0u16..800, 0u16..300, 100u16..400), 0..6),
            most in 0usize..8,
        ) {
            let seeds: Vec<_> = seeds.iter().map(|(x, y, missed)| seed((*x).into(), (*y).into(), *missed)).collect();
            let wide: Vec<_> = wide.iter().map(|(x, y, side)| square((*x).into(), (*y).into(), (*side).into())).collect();
            let shown = cover(&seeds, &wide, most);
            prop_assert!(shown.len() <= most);
            // What each adds to those before it falls from one to the next.
            let clear = |crop: &BBox, seed: &Seed| clarity(crop, seed, SIGHT, PICTURE);
            let best = |shown: &[BBox], seed: &Seed| shown.iter().map(|crop| clear(crop, seed)).fold(0.0, f32::max);
            let added = |shown: &[BBox], crop: &BBox| -> f32 {
                let worth = |seed: &Seed| if seed.missed > 0 { 2.0 } else { 1.0 };
                seeds.iter().map(|seed| (clear(crop, seed) - best(shown, seed)).max(0.0) * worth(seed)).sum()
            };
            let gains: Vec<_> = (0..shown.len()).map(|at| added(&shown[..at], &shown[at])).collect();
            prop_assert!(gains.is_sorted_by(|a, b| *a >= b - 1e-4) && gains.iter().all(|gain| *gain >= LEAST_GAIN - 1e-4));
            let crops = seeds.iter().map(around).chain(wide.iter().copied());
            let left = crops.map(|crop| added(&shown, &crop)).fold(0.0, f32::max);
            prop_assert!(shown.len() == most || left < LEAST_GAIN + 1e-4);
        }
    }
}
