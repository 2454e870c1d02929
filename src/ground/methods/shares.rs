//! Regions for models that are shown only so many at a time: which ones together, and in what order.

use super::propose::Region;
use crate::ground::manifest::Order;

/// The regions in shares of at most `most`, each of those of one part of the picture, none left out: the regions are
/// halved across the longer spread of their middles until they are few enough. Within a share they keep their order.
pub fn shares(regions: &[Region], most: usize) -> Vec<Vec<Region>> {
    let mut found = Vec::new();
    split(regions, (0..regions.len()).collect(), most.max(1), &mut found);
    found
}

fn split(regions: &[Region], mut own: Vec<usize>, most: usize, found: &mut Vec<Vec<Region>>) {
    let parts = own.len().div_ceil(most);
    if parts <= 1 {
        own.sort_unstable();
        found.extend((parts == 1).then(|| own.iter().map(|at| regions[*at]).collect()));
        return;
    }
    let middle = |at: usize| regions[at].bbox.center();
    let spread = |of: &dyn Fn(usize) -> f32| {
        let (low, high) = own
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), at| (low.min(of(*at)), high.max(of(*at))));
        high - low
    };
    let (x, y) = (|at: usize| middle(at).0, |at: usize| middle(at).1);
    let across = spread(&x) >= spread(&y);
    own.sort_by(|a, b| if across { x(*a).total_cmp(&x(*b)) } else { y(*a).total_cmp(&y(*b)) });
    // Half of the parts, and as many regions as fill them evenly.
    let rest = own.split_off(own.len() * (parts / 2) / parts);
    split(regions, own, most, found);
    split(regions, rest, most, found);
}

/// Puts regions in the order they are shown in; of equals the earlier stays first.
pub fn arrange(regions: &mut [Region], order: Order) {
    let by = |of: &dyn Fn(&Region) -> (f32, f32), a: &Region, b: &Region| {
        let (a, b) = (of(a), of(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    };
    let area = |region: &Region| (region.bbox.area(), 0.0);
    match order {
        Order::None => {}
        Order::Raster => {
            let corner = |region: &Region| (region.bbox.corners()[0], region.bbox.corners()[1]);
            regions.sort_by(|a, b| by(&corner, a, b));
        }
        Order::AreaAsc => regions.sort_by(|a, b| by(&area, a, b)),
        Order::AreaDesc => regions.sort_by(|a, b| by(&area, b, a)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::BBox;

    fn region(x: f32, y: f32, side: f32, objectness: f32) -> Region {
        Region { bbox: BBox::new(x, y, x + side, y + side).unwrap(), objectness }
    }

    fn marks(regions: &[Region]) -> Vec<f32> {
        regions.iter().map(|region| region.objectness).collect()
    }

    #[test]
    fn a_share_is_a_part_of_the_picture() {
        let wide: Vec<_> = [90.0, 10.0, 80.0, 20.0, 70.0].iter().zip([9.0, 8.0, 7.0, 6.0, 5.0]).collect();
        let wide: Vec<_> = wide.into_iter().map(|(x, mark)| region(*x, *x / 10.0, 5.0, mark)).collect();
        let got: Vec<_> = shares(&wide, 3).iter().map(|share| marks(share)).collect();
        assert_eq!(got, [vec![8.0, 6.0], vec![9.0, 7.0, 5.0]]);
        assert_eq!(shares(&wide, 5), vec![wide.clone()]);
        assert_eq!(shares(&[], 5), Vec::<Vec<Region>>::new());
    }

    #[test]
    fn regions_are_shown_in_the_order_asked_for() {
        let places = [(5.0, 9.0, 3.0), (7.0, 2.0, 8.0), (1.0, 9.0, 5.0), (5.0, 4.0, 6.0)];
        let marked = |(mark, (x, y, side)): (f32, &(f32, f32, f32))| region(*x, *y, *side, mark);
        let all: Vec<_> = [0.0, 1.0, 2.0, 3.0].into_iter().zip(&places).map(marked).collect();
        let shown = |order| {
            let mut regions = all.clone();
            arrange(&mut regions, order);
            marks(&regions)
        };
        assert_eq!(shown(Order::None), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(shown(Order::Raster), [2.0, 3.0, 0.0, 1.0]);
        assert_eq!(shown(Order::AreaAsc), [0.0, 2.0, 3.0, 1.0]);
        assert_eq!(shown(Order::AreaDesc), [1.0, 3.0, 2.0, 0.0]);
    }

    proptest! {
        #[test]
        fn every_region_is_in_one_share_and_none_is_too_large(
            places in prop::collection::vec((0.0f32..100.0, 0.0f32..100.0), 0..300), most in 1usize..120,
        ) {
            let mark = |i: usize| i as f32;
            let all: Vec<_> = places.iter().enumerate().map(|(i, (x, y))| region(*x, *y, 5.0, mark(i))).collect();
            let got = shares(&all, most);
            prop_assert!(got.iter().all(|share| (1..=most).contains(&share.len())));
            prop_assert_eq!(got.len(), all.len().div_ceil(most));
            prop_assert!(got.iter().all(|share| marks(share).is_sorted()));
            let mut every: Vec<_> = got.iter().flat_map(|share| marks(share)).collect();
            every.sort_by(f32::total_cmp);
            prop_assert_eq!(every, marks(&all));
        }

        #[test]
        fn no_order_loses_a_region(places in prop::collection::vec((0.0f32..50.0, 0.0f32..50.0, 1.0f32..50.0), 0..40)) {
            let all: Vec<_> = places.iter().map(|(x, y, side)| region(*x, *y, *side, *side)).collect();
            for order in [Order::None, Order::Raster, Order::AreaAsc, Order::AreaDesc] {
                let mut shown = all.clone();
                arrange(&mut shown, order);
                let sorted = |regions: &[Region]| {
                    let mut marks = marks(regions);
                    marks.sort_by(f32::total_cmp);
                    marks
                };
                prop_assert_eq!(sorted(&shown), sorted(&all));
            }
        }
    }
}
