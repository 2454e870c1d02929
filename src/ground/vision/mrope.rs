//! M-RoPE: three positions (time, row, column) for every token of a prompt with images.
//!
//! After `get_rope_index` of `modeling_qwen2_vl.py`, `…2_5_vl.py` and `…3_vl.py` (transformers 4.57.1), which agree for
//! images: text counts up by one in all three; an image that starts at `p` has `t = p`, `h = p + row`, `w = p + column`
//! over its grid of merged units; then counting goes on one above the largest position so far, which is
//! `p + max(rows, columns)`. `delta = largest + 1 − length`, and a decoded token at place `n` has `n + delta` in all
//! three. Videos are not needed here, each frame being an image of its own.

use super::{VisionError, qwen::MERGE};

/// Positions of a prompt's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions {
    /// `[3, 1, tokens]`: all times, all rows, all columns.
    pub ids: Vec<i64>,
    /// What to add to the place of a decoded token.
    pub delta: i64,
}

impl Positions {
    /// The positions of `tokens`, in which each run of `image_token` stands for one of the images in order, whose grids
    /// are given in *patches*, `(grid_h, grid_w)`. An image takes `grid_h / 2 · grid_w / 2` tokens; images that touch
    /// are told apart by that number.
    pub fn of(tokens: &[i64], image_token: i64, grids: &[(u32, u32)]) -> Result<Self, VisionError> {
        let mut axes: [Vec<i64>; 3] = std::array::from_fn(|_| Vec::with_capacity(tokens.len()));
        let mut grids = grids.iter();
        let (mut at, mut next) = (0, 0);
        while at < tokens.len() {
            if tokens[at] != image_token {
                for axis in &mut axes {
                    axis.push(next);
                }
                next += 1;
                at += 1;
                continue;
            }
            let &(grid_h, grid_w) = grids.next().ok_or_else(|| too_many(at))?;
            let (rows, columns) = (i64::from(grid_h / MERGE), i64::from(grid_w / MERGE));
            let count = usize::try_from(rows * columns).unwrap_or(usize::MAX);
            let run = tokens[at..].iter().take(count).take_while(|t| **t == image_token).count();
            if count == 0 || run < count {
                return Err(too_few(at, run, count));
            }
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                axes[0].push(next);
                axes[1].push(next + row);
                axes[2].push(next + column);
            }
            next += rows.max(columns);
            at += count;
        }
        if let Some((h, w)) = grids.next() {
            return Err(VisionError::Prompt(format!(
                "the prompt has no place for an image of {h}x{w} patches; put one run of image tokens in it for each image"
            )));
        }
        let delta = next - i64::try_from(tokens.len()).unwrap_or(i64::MAX);
        Ok(Self { ids: axes.concat(), delta })
    }

    /// The position of a token decoded at `place` (its index in the sequence), the same on all three axes.
    pub fn decoded(&self, place: usize) -> i64 {
        i64::try_from(place).unwrap_or(i64::MAX).saturating_add(self.delta)
    }
}

fn too_many(at: usize) -> VisionError {
    VisionError::Prompt(format!(
        "the prompt has an image token at {at} that no image is left for; add the image or cut the token"
    ))
}

fn too_few(at: usize, run: usize, count: usize) -> VisionError {
    VisionError::Prompt(format!(
        "the run of image tokens at {at} is {run} long, but the image takes {count}: a quarter of its patches"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: i64 = 9;

    #[test]
    fn the_grid_counts_once_along_its_longer_side() {
        let tokens = [vec![1, 2], vec![IMAGE; 6], vec![3]].concat();
        let got = Positions::of(&tokens, IMAGE, &[(4, 6)]).unwrap();
        assert_eq!(got.ids[..9], [0, 1, 2, 2, 2, 2, 2, 2, 5]);
        assert_eq!(got.ids[9..18], [0, 1, 2, 2, 2, 3, 3, 3, 5]);
        assert_eq!(got.ids[18..], [0, 1, 2, 3, 4, 2, 3, 4, 5]);
        assert_eq!((got.delta, got.decoded(9)), (-3, 6));
    }

    #[test]
    fn tokens_and_images_must_match() {
        let p = |n, grids: &[_]| Positions::of(&vec![IMAGE; n], IMAGE, grids);
        assert!(p(4, &[(4, 4)]).is_ok());
        for bad in [p(3, &[(4, 4)]), p(5, &[(4, 4)]), p(4, &[(4, 4), (2, 2)]), p(1, &[(0, 0)]), p(1, &[])] {
            assert!(matches!(bad, Err(VisionError::Prompt(_))));
        }
    }

    proptest! {
        #[test]
        fn decoding_goes_on_above_every_position(
            parts in prop::collection::vec((0usize..6, 1u32..8, 1u32..8), 0..4), tail in 0usize..5,
        ) {
            let mut tokens = Vec::new();
            for (text, h, w) in &parts {
                tokens.extend(vec![1; *text]);
                tokens.extend(vec![IMAGE; (h * w) as usize]);
            }
            tokens.extend(vec![1; tail]);
            let grids: Vec<_> = parts.iter().map(|(_, h, w)| (h * 2, w * 2)).collect();
            let got = Positions::of(&tokens, IMAGE, &grids).unwrap();
            prop_assert_eq!(got.ids.len(), 3 * tokens.len());
            let top = got.ids.iter().max().map_or(0, |m| m + 1);
            prop_assert_eq!(got.decoded(tokens.len()), top);
        }
    }
}
