//! Qwen2.5-VL's window attention: which patches look at which.
//!
//! After `get_window_index` of `modeling_qwen2_5_vl.py` (transformers 4.57.1): a window's side in pixels comes from the
//! checkpoint's configuration; the published 112 are 4 by 4 merged units of 2 by 2 patches. With `s` units a side the grid is
//! padded by `s − n % s`, so **a side that is divisible gets a whole empty window more**; empty windows leave repeated bounds in
//! the cumulative lengths, which the model drops (`unique_consecutive`), as we do. The tower runs on patches in window order;
//! its output is put back by [`Windows::restore`].

use super::qwen::MERGE;

/// Merged units in a window, on a side: `window` pixels of patches of `patch` pixels. 0 if not even one fits.
pub fn units(window: u32, patch: u32) -> u32 {
    (window / MERGE).checked_div(patch).unwrap_or(0)
}

/// Patches in a merged unit.
const UNIT: usize = 4;

/// The windows of one or more images, in one numbering.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    /// `[units]`: the merged unit that goes to each place, in window order; the graph's `window_index`.
    pub index: Vec<i64>,
    /// `[windows + 1]`: where each window ends, in patches, from 0: `cu_window_seqlens` without repetitions.
    pub bounds: Vec<i64>,
    /// `[4 · units]`: for each patch in window order, the number of its window.
    pub window_of: Vec<i64>,
    /// `[4 · units]`: for each patch in window order, the number of its image, for the layers with full attention.
    pub image_of: Vec<i64>,
}

impl Windows {
    /// The windows, `side` merged units high and wide, of images whose grids are given in *patches*, `(grid_h, grid_w)`, both
    /// even. A side of 0 counts as 1.
    pub fn of(grids: &[(u32, u32)], side: u32) -> Self {
        let mut out = Self { bounds: vec![0], ..Self::default() };
        for (image, &(grid_h, grid_w)) in (0..).zip(grids) {
            let first = i64::try_from(out.index.len()).unwrap_or(i64::MAX);
            out.add(image, first, (grid_h / MERGE, grid_w / MERGE), side.max(1));
        }
        out
    }

    fn add(&mut self, image: i64, first: i64, (rows, columns): (u32, u32), side: u32) {
        // The extra empty window of a divisible side would add nothing but a repeated bound.
        for top in (0..rows).step_by(side as usize) {
            for left in (0..columns).step_by(side as usize) {
                let window = i64::try_from(self.bounds.len()).unwrap_or(i64::MAX) - 1;
                for row in top..rows.min(top.saturating_add(side)) {
                    let units = left..columns.min(left.saturating_add(side));
                    self.index
                        .extend(units.map(|column| first + i64::from(row) * i64::from(columns) + i64::from(column)));
                }
                let patches = self.index.len() * UNIT;
                self.window_of.resize(patches, window);
                self.image_of.resize(patches, image);
                self.bounds.push(i64::try_from(patches).unwrap_or(i64::MAX));
            }
        }
    }

    /// Where each merged unit went: `argsort(index)`, to put the tower's output back in picture order.
    pub fn restore(&self) -> Vec<i64> {
        let mut out = vec![0; self.index.len()];
        for (place, unit) in (0..).zip(&self.index) {
            if let Some(slot) = usize::try_from(*unit).ok().and_then(|unit| out.get_mut(unit)) {
                *slot = place;
            }
        }
        out
    }

    /// Bounds of the images in patches, from 0: `cu_seqlens` of the layers with full attention.
    pub fn image_bounds(grids: &[(u32, u32)]) -> Vec<i64> {
        let sizes = grids.iter().map(|(h, w)| i64::from(*h) * i64::from(*w));
        std::iter::once(0)
            .chain(sizes.scan(0, |sum, n| {
                *sum += n;
                Some(*sum)
            }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_divisible_side_has_no_empty_window_left() {
        let w = Windows::of(&[(16, 8)], 4);
        assert_eq!(w.bounds, [0, 64, 128]);
        assert_eq!(w.index, (0..32).collect::<Vec<_>>());
    }

    #[test]
    fn windows_at_the_edge_are_smaller() {
        let w = Windows::of(&[(2, 12)], 4);
        assert_eq!(w.index, [0, 1, 2, 3, 4, 5]);
        assert_eq!(w.bounds, [0, 16, 24]);
        assert_eq!(w.window_of, [[0; 16].as_slice(), &[1; 8]].concat());
    }

    #[test]
    fn a_window_is_as_large_as_the_configuration_says() {
        assert_eq!((units(112, 14), units(56, 14), units(64, 16), units(20, 14), units(112, 0)), (4, 2, 2, 0, 0));
        let w = Windows::of(&[(4, 8)], 2);
        assert_eq!((w.index, w.bounds), (vec![0, 1, 4, 5, 2, 3, 6, 7], vec![0, 16, 32]));
    }

    proptest! {
        #[test]
        fn every_unit_is_somewhere_once_and_finds_back(
            grids in prop::collection::vec((1u32..20, 1u32..20), 0..4), side in 0u32..9,
        ) {
            let grids: Vec<_> = grids.into_iter().map(|(h, w)| (h * 2, w * 2)).collect();
            let w = Windows::of(&grids, side);
            let most = i64::from(side.max(1).pow(2) * 4);
            let restore = w.restore();
            let units = i64::try_from(w.index.len()).unwrap();
            let back: Vec<_> = restore.iter().map(|&place| w.index[usize::try_from(place).unwrap()]).collect();
            prop_assert_eq!(back, (0..units).collect::<Vec<_>>());
            let ends = (*w.bounds.last().unwrap(), *Windows::image_bounds(&grids).last().unwrap());
            prop_assert_eq!(ends, (units * 4, units * 4));
            for (patch, (window, image)) in (0..).zip(w.window_of.iter().zip(&w.image_of)) {
                let at = usize::try_from(*window).unwrap();
                prop_assert!((w.bounds[at]..w.bounds[at + 1]).contains(&patch));
                let bounds = Windows::image_bounds(&grids);
                let at = usize::try_from(*image).unwrap();
                prop_assert!((bounds[at]..bounds[at + 1]).contains(&patch));
            }
            prop_assert!(w.bounds.windows(2).all(|b| b[0] < b[1] && b[1] - b[0] <= most));
        }
    }
}
