//! Where each patch lies: rotary (row, column), and Qwen3-VL's learned grid, sampled between its points.

use super::qwen::merge_order;

/// `(row, column)` of every patch of an image, flat `[grid_h · grid_w, 2]`, in the order of
/// [`Patches::values`](super::qwen::Patches::values) (`rot_pos_emb` of `modeling_qwen2_vl.py`, `…2_5_vl.py`,
/// `…3_vl.py`, transformers 4.57.1). For several images, one after the other.
pub fn rotary(grid_h: u32, grid_w: u32) -> Vec<i64> {
    merge_order(grid_h, grid_w).flat_map(|(row, column)| [i64::from(row), i64::from(column)]).collect()
}

/// For every patch four points of a learned grid and how much each counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Bilinear {
    /// `[4, grid_h · grid_w]`: rows of the embedding table, `row · side + column`. The four are (top, left), (top,
    /// right), (bottom, left), (bottom, right).
    pub indices: Vec<i64>,
    /// `[4, grid_h · grid_w]`, in the same order; the four of a patch sum to 1.
    pub weights: Vec<f32>,
}

/// Samples a learned grid of `side · side` points for an image of `grid_h · grid_w` patches
/// (`fast_pos_embed_interpolate` of `modeling_qwen3_vl.py`; `side` is 48 in published checkpoints).
///
/// Patch `i` of `n` lies at `linspace(0, side − 1, n)[i]`, computed as torch does, in `f32` and from the nearer end.
/// Unlike the original, which sorts the *sums* into 2×2 blocks afterwards, indices and weights already come in patch
/// order.
pub fn bilinear(side: u32, grid_h: u32, grid_w: u32) -> Bilinear {
    let (rows, columns) = (points(side, grid_h), points(side, grid_w));
    let patches = grid_h as usize * grid_w as usize;
    let mut out = Bilinear { indices: vec![0; 4 * patches], weights: vec![0.0; 4 * patches] };
    for (i, (row, column)) in merge_order(grid_h, grid_w).enumerate() {
        let (y, x) = (&rows[row as usize], &columns[column as usize]);
        let corners = [
            (y.low, x.low, (1.0 - y.share) * (1.0 - x.share)),
            (y.low, x.high, (1.0 - y.share) * x.share),
            (y.high, x.low, y.share * (1.0 - x.share)),
            (y.high, x.high, y.share * x.share),
        ];
        for (corner, (row, column, weight)) in corners.into_iter().enumerate() {
            out.indices[corner * patches + i] = i64::from(row) * i64::from(side) + i64::from(column);
            out.weights[corner * patches + i] = weight;
        }
    }
    out
}

/// A position between two points of the grid.
struct Point {
    low: u32,
    high: u32,
    /// How much of it is `high`'s.
    share: f32,
}

fn points(side: u32, count: u32) -> Vec<Point> {
    let end = side.saturating_sub(1);
    let step = if count > 1 { end as f32 / (count - 1) as f32 } else { 0.0 };
    let point = |i: u32| {
        let at = if i < count / 2 { step * i as f32 } else { end as f32 - step * (count - 1 - i) as f32 };
        // One position is the start, not the end.
        let at = if count > 1 { at.max(0.0) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=end, floor is meant")]
        let low = (at as u32).min(end);
        Point { low, high: (low + 1).min(end), share: at - low as f32 }
    };
    (0..count).map(point).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_of_four_come_together() {
        let order: Vec<_> = rotary(2, 4).chunks(2).map(|p| (p[0], p[1])).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_indices_stay_in_the_table(h in 1u32..40, w in 1u32..40, side in 1u32..60) {
            let (h, w) = (h * 2, w * 2);
            let got = bilinear(side, h, w);
            let patches = (h * w) as usize;
            for i in 0..patches {
                let sum: f32 = (0..4).map(|c| got.weights[c * patches + i]).sum();
                prop_assert!((sum - 1.0).abs() < 1e-5);
            }
            prop_assert!(got.weights.iter().all(|v| (-1e-6..=1.000_001).contains(v)));
            prop_assert!(got.indices.iter().all(|i| (0..i64::from(side * side)).contains(i)));
        }
    }
}
