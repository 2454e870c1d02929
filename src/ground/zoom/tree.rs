//! A picture as a tree of areas.

use std::ops::Range;

use crate::types::{BBox, Size};

/// No search goes deeper (`depth_limit` in `zoom_eye`).
pub const DEEPEST: usize = 5;

/// Nodes that a tree may have: areas of a few pixels in a huge picture are not worth the memory. What would be beyond
/// is not split. With areas of 448 pixels no picture below 14,000 pixels comes near.
pub const MAX_NODES: usize = 1 << 14;

/// A part of a picture, in whole source pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Area {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Area {
    /// The whole of a picture.
    pub fn whole(size: Size) -> Self {
        Self { x: 0, y: 0, width: size.width, height: size.height }
    }

    /// The longer side.
    pub fn longest(&self) -> u32 {
        self.width.max(self.height)
    }

    /// The area as a box; `None` if it is empty.
    pub fn bbox(&self) -> Option<BBox> {
        let (x, y) = (self.x as f32, self.y as f32);
        BBox::new(x, y, x + self.width as f32, y + self.height as f32)
    }

    /// Whether a point lies inside; right and bottom edges do not belong to it.
    pub fn holds(&self, (x, y): (f32, f32)) -> bool {
        let inside = |v: f32, from: u32, length: u32| v >= from as f32 && v < from as f32 + length as f32;
        inside(x, self.x, self.width) && inside(y, self.y, self.height)
    }
}

/// Into how many areas one is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// 2×2; four bands across the longer side of an area at least twice as long as wide.
    #[default]
    Four,
    /// 3×3; 2×4 of a long one.
    Nine,
    /// 4×4; 2×8 of a long one.
    Sixteen,
}

impl Split {
    /// Columns and rows for an area (`split_*_subpatches` in `tree`).
    fn grid(self, area: &Area) -> (u32, u32) {
        let (square, long, across) = match self {
            Self::Four => (2, 4, 1),
            Self::Nine => (3, 4, 2),
            Self::Sixteen => (4, 8, 2),
        };
        if u64::from(area.height) >= 2 * u64::from(area.width) {
            (across, long)
        } else if 2 * u64::from(area.height) <= u64::from(area.width) {
            (long, across)
        } else {
            (square, square)
        }
    }

    /// The areas, row by row. All but the last of a row or column have one size; the last takes what is left. None if
    /// one of them would be empty.
    pub fn parts(self, area: &Area) -> Vec<Area> {
        let (columns, rows) = self.grid(area);
        let (across, down) = (area.width / columns, area.height / rows);
        if across == 0 || down == 0 {
            return Vec::new();
        }
        let length = |at: u32, of: u32, stride: u32, whole: u32| {
            if at + 1 == of { whole - at * stride } else { stride }
        };
        let part = |row: u32, column: u32| Area {
            x: area.x + column * across,
            y: area.y + row * down,
            width: length(column, columns, across, area.width),
            height: length(row, rows, down, area.height),
        };
        (0..rows).flat_map(|row| (0..columns).map(move |column| part(row, column))).collect()
    }
}

/// An area with its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Which part of the picture.
    pub area: Area,
    /// Steps from the root.
    pub depth: usize,
    /// Its parts, among the tree's nodes; empty where it is not split.
    pub children: Range<usize>,
}

/// A picture, split down to areas whose longer side is below a patch, at most [`DEEPEST`] times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The root first, then level by level.
    nodes: Vec<Node>,
    depth: usize,
}

impl Tree {
    /// The root: the whole picture.
    pub const ROOT: usize = 0;

    /// Splits a picture.
    pub fn of(picture: Size, patch: u32, split: Split) -> Self {
        let mut nodes = vec![Node { area: Area::whole(picture), depth: 0, children: 0..0 }];
        let mut at = 0;
        while at < nodes.len() {
            let Node { area, depth, .. } = nodes[at];
            let whole = area.longest() < patch || depth == DEEPEST;
            let parts = if whole { Vec::new() } else { split.parts(&area) };
            if nodes.len() + parts.len() <= MAX_NODES {
                nodes[at].children = nodes.len()..nodes.len() + parts.len();
                nodes.extend(parts.into_iter().map(|area| Node { area, depth: depth + 1, children: 0..0 }));
            }
            at += 1;
        }
        // Level by level: the last is the deepest.
        let depth = nodes.last().map_or(0, |node| node.depth);
        Self { nodes, depth }
    }

    /// A node; the root where there is no such node.
    pub fn node(&self, at: usize) -> &Node {
        self.nodes.get(at).unwrap_or(&self.nodes[Self::ROOT])
    }

    /// How many nodes there are; never none.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The deepest node's depth.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(width: u32, height: u32) -> Area {
        Area { x: 7, y: 11, width, height }
    }

    #[test]
    fn long_areas_become_bands() {
        let bands = Split::Four.parts(&area(100, 203));
        assert_eq!(
            bands.iter().map(|a| (a.y, a.height)).collect::<Vec<_>>(),
            [(11, 50), (61, 50), (111, 50), (161, 53)]
        );
        assert!(bands.iter().all(|a| a.x == 7 && a.width == 100));
        // Exactly twice as long is long; a pixel less is not.
        assert_eq!(Split::Four.parts(&area(200, 100)).len(), 4);
        assert_eq!(Split::Four.parts(&area(200, 100))[1], Area { x: 57, y: 11, width: 50, height: 100 });
        assert_eq!(Split::Four.parts(&area(199, 100))[3], Area { x: 106, y: 61, width: 100, height: 50 });
        assert_eq!(Split::Nine.parts(&area(10, 40)).len(), 8);
        assert_eq!(Split::Sixteen.parts(&area(40, 10)).len(), 16);
    }

    #[test]
    fn what_is_small_enough_is_not_split() {
        assert_eq!(Tree::of(Size::new(447, 300), 448, Split::Four).count(), 1);
        let once = Tree::of(Size::new(448, 300), 448, Split::Four);
        assert_eq!((once.count(), once.depth()), (5, 1));
        let hd = Tree::of(Size::new(1920, 1080), 512, Split::Four);
        assert_eq!((hd.count(), hd.depth()), (1 + 4 + 16, 2));
    }

    proptest! {
        #[test]
        fn trees_end_and_parts_tile(
            (w, h) in (0u32..9000, 0u32..9000), patch in 0u32..3000,
            split in prop::sample::select(vec![Split::Four, Split::Nine, Split::Sixteen]),
        ) {
            let tree = Tree::of(Size::new(w, h), patch, split);
            prop_assert!(tree.count() <= MAX_NODES && tree.depth() <= DEEPEST);
            for at in 0..tree.count() {
                let Node { area, depth, children } = tree.node(at).clone();
                let parts: Vec<_> = children.clone().map(|c| tree.node(c).area).collect();
                for part in &parts {
                    prop_assert!(part.width > 0 && part.height > 0);
                    prop_assert!(part.x >= area.x && part.x + part.width <= area.x + area.width);
                    prop_assert!(part.y >= area.y && part.y + part.height <= area.y + area.height);
                }
                let pixels = |a: &Area| u64::from(a.width) * u64::from(a.height);
                if !parts.is_empty() {
                    prop_assert!(area.longest() >= patch);
                    prop_assert_eq!(parts.iter().map(pixels).sum::<u64>(), pixels(&area));
                }
                prop_assert!(children.clone().all(|c| tree.node(c).depth == depth + 1));
            }
        }
    }
}
