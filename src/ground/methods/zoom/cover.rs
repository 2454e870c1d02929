//! Which crops to look at, of all that might show something known, if there is no time for all. Pure.

use crate::{
    ground::zoom::memory::Seed,
    types::{BBox, Size},
};

/// A crop shows a thing with this much of the thing's size around it.
const SHOWN: f32 = 0.25;

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

/// At most `most` crops, of those around each seed and some `wide` ones, that together show as many seeds as they can,
/// those that show more first; and the seeds that none of them shows.
pub(super) fn covering(
    seeds: &[Seed],
    around: impl Fn(&Seed) -> Option<BBox>,
    wide: &[BBox],
    most: usize,
    picture: Size,
) -> (Vec<BBox>, Vec<Seed>) {
    let crops: Vec<BBox> = seeds.iter().filter_map(around).chain(wide.iter().copied()).collect();
    let (mut shown, mut unseen) = (Vec::new(), seeds.to_vec());
    while shown.len() < most && !unseen.is_empty() {
        // Those that had to wait count for more, so that each has its turn.
        let weight = |crop: &BBox| -> usize {
            let held = unseen.iter().filter(|seed| shows(crop, seed, picture));
            held.map(|seed| 1 + usize::from(seed.missed)).sum()
        };
        // Of equals the first.
        let best = crops.iter().map(|crop| (weight(crop), crop)).reduce(|a, b| if b.0 > a.0 { b } else { a });
        let Some((1.., crop)) = best else { break };
        shown.push(*crop);
        unseen.retain(|seed| !shows(crop, seed, picture));
    }
    (shown, unseen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PICTURE: Size = Size { width: 1000, height: 500 };

    fn square(x: f32, y: f32, side: f32) -> Option<BBox> {
        BBox::new(x, y, x + side, y + side)
    }

    fn seed(x: f32, y: f32, missed: u8) -> Seed {
        Seed { bbox: square(x, y, 10.0).unwrap(), crop: None, missed }
    }

    fn around(seed: &Seed) -> Option<BBox> {
        let (x, y) = seed.bbox.center();
        square((x - 50.0).max(0.0), (y - 50.0).max(0.0), 100.0)
    }

    #[test]
    fn the_crop_that_shows_most_comes_first_and_those_that_waited_have_their_turn() {
        let crowd = [seed(500.0, 200.0, 0), seed(520.0, 210.0, 0), seed(530.0, 190.0, 0)];
        let seeds = [&[seed(100.0, 100.0, 0)], &crowd[..]].concat();
        let (shown, unseen) = covering(&seeds, around, &[], 1, PICTURE);
        assert_eq!((shown, unseen), (vec![around(&crowd[0]).unwrap()], vec![seed(100.0, 100.0, 0)]));
        let seeds = [&[seed(100.0, 100.0, 5)], &crowd[..]].concat();
        assert_eq!(covering(&seeds, around, &[], 1, PICTURE).0, [around(&seed(100.0, 100.0, 0)).unwrap()]);
        assert_eq!(covering(&seeds, around, &[], 5, PICTURE).1, []);
        assert_eq!(seed(0.0, 0.0, 8).missed(), None);
    }

    #[test]
    fn a_wide_crop_is_taken_where_it_shows_more_than_one_of_their_own() {
        let seeds = [seed(100.0, 100.0, 0), seed(300.0, 100.0, 0)];
        let wide = [square(0.0, 0.0, 400.0).unwrap()];
        assert_eq!(covering(&seeds, around, &wide, 1, PICTURE), (wide.to_vec(), vec![]));
        assert_eq!(covering(&seeds[..1], around, &wide, 1, PICTURE).0, [around(&seeds[0]).unwrap()]);
    }

    #[test]
    fn at_the_pictures_edge_nothing_has_to_be_around() {
        let corner = square(0.0, 0.0, 100.0).unwrap();
        assert!(shows(&corner, &seed(0.0, 0.0, 0), PICTURE));
        assert!(!shows(&corner, &seed(89.0, 50.0, 0), PICTURE));
        assert!(!shows(&corner, &seed(50.0, 95.0, 0), PICTURE));
    }

    proptest! {
        #[test]
        fn every_seed_is_shown_or_named(
            seeds in proptest::collection::vec((0u16..990, 0u16..490, 0u8..9), 0..30), most in 0usize..8,
        ) {
            let seeds: Vec<_> = seeds.iter().map(|(x, y, missed)| seed((*x).into(), (*y).into(), *missed)).collect();
            let (shown, unseen) = covering(&seeds, around, &[], most, PICTURE);
            prop_assert!(shown.len() <= most);
            for seed in &seeds {
                let seen = shown.iter().any(|crop| shows(crop, seed, PICTURE));
                prop_assert!(seen != unseen.contains(seed));
            }
        }
    }
}
