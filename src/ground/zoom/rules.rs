//! The constants of a search, and the two formulas that use them.

use super::tree::Split;

/// How a model is shown an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// The area alone.
    Local,
    /// The whole picture with the area framed, and the area.
    GlobalLocal,
}

/// How a model is searched with. The presets are the original's (`eval/perform_zoom_eye`).
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// How an area is shown.
    pub views: Views,
    /// Areas whose longer side is below are not split, and no less is shown; in source pixels.
    pub patch: u32,
    /// Into how many areas one is split.
    pub split: Split,
    /// How much more than an area is shown, as a factor on each side.
    pub margin: f64,
    /// What "is it there" weighs against "might it be found" at the root, 0 to 1; at the bottom it is all.
    pub bias: f64,
    /// A view answers from this confidence on.
    pub upper: f64,
    /// Below it the search is given up.
    pub lower: f64,
    /// What `upper` falls by, step after step; the last repeats.
    pub steps: Vec<f64>,
    /// Views looked at before `upper` falls for the first time, for each level of the tree.
    pub patience: usize,
    /// Views looked at between one fall and the next.
    pub interval: usize,
    /// When all of a kind are collected: the least confidence of a view.
    pub existence: f64,
    /// When all of a kind are collected: how deep.
    pub collect_depth: usize,
}

impl Rules {
    fn new(views: Views, patch: u32) -> Self {
        Self {
            views,
            patch,
            split: Split::Four,
            margin: 1.2,
            bias: 0.6,
            upper: 0.6,
            lower: 0.0,
            steps: vec![0.1, 0.1, 0.2],
            patience: 3,
            interval: 2,
            existence: 0.6,
            collect_depth: 2,
        }
    }

    /// Qwen2.5-VL and its kin.
    pub fn qwen() -> Self {
        Self { upper: 0.95, steps: vec![0.05, 0.1, 0.2], ..Self::new(Views::GlobalLocal, 448) }
    }

    /// LLaVA-1.5 and others that see one small picture of side `patch`.
    pub fn llava_local(patch: u32) -> Self {
        Self { margin: 1.0, bias: 0.2, ..Self::new(Views::Local, patch) }
    }

    /// How well a node ranks: `w·existence + (1 - w)·latent` with `w = (1 - bias)/depth² · d² + bias`, `d` the node's
    /// depth and `depth` the deepest of the search.
    pub fn rank(&self, existence: f64, latent: f64, d: usize, depth: usize) -> f64 {
        let (d, depth) = (d as f64, depth.max(1) as f64);
        let w = (1.0 - self.bias) / (depth * depth) * (d * d) + self.bias;
        existence * w + latent * (1.0 - w)
    }

    /// What `upper` falls by the `nth` time, counting from 0.
    pub fn step(&self, nth: usize) -> f64 {
        // A search that is never content and never gives up would not end before the tree does.
        self.steps.get(nth).or(self.steps.last()).copied().unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_bottom_only_existence_counts() {
        let rules = Rules::qwen();
        assert!((rules.rank(0.25, -1.0, 3, 3) - 0.25).abs() < 1e-12);
        assert!((rules.rank(0.5, -0.5, 0, 3) - (0.5 * 0.6 - 0.5 * 0.4)).abs() < 1e-12);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "constants come back as they are")]
    fn the_last_step_repeats() {
        let rules = Rules::qwen();
        assert_eq!([0, 1, 2, 3, 99].map(|nth| rules.step(nth)), [0.05, 0.1, 0.2, 0.2, 0.2]);
        assert_eq!(Rules { steps: vec![], ..rules }.step(0), f64::INFINITY);
    }
}
