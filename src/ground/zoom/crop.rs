//! What is shown of an area, and the way back to the source.

use super::{Rules, tree::Area};
use crate::types::{BBox, Letterbox, Rgb, Size};

/// Crops closer than this are shown as one, in source pixels on each side (`intersect_bbox` in `utils`).
const NEAR: i64 = 50;

/// A crop, in whole source pixels: left, top, right, bottom.
pub type Corners = [u32; 4];

/// What the original shows of an area: at least a patch on each side, the margin added, about the area's middle. It is
/// cut off at the picture's edges, not moved (`get_patch` in `zoom_model`).
pub fn shown(area: &Area, picture: Size, rules: &Rules) -> Corners {
    let side = |length: u32| {
        let length = f64::from(length.max(rules.patch));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; margins are about 1")]
        let scaled = (length * rules.margin) as u32;
        scaled.max(1)
    };
    let span = |from: u32, length: u32, most: u32| {
        let side = side(length);
        let start = (from + length / 2).saturating_sub(side / 2);
        (start, start.saturating_add(side).min(most))
    };
    let (left, right) = span(area.x, area.width, picture.width);
    let (top, bottom) = span(area.y, area.height, picture.height);
    [left, top, right, bottom]
}

/// Crops that touch, or nearly, become one, until none do (`merge_bbox_list` in `utils`).
pub fn merged(crops: &[Corners]) -> Vec<Corners> {
    let mut crops = crops.to_vec();
    loop {
        let (mut next, mut used) = (Vec::new(), vec![false; crops.len()]);
        for i in 0..crops.len() {
            if used[i] {
                continue;
            }
            let other = (0..crops.len()).find(|j| *j != i && !used[*j] && near(&crops[i], &crops[*j]));
            used[i] = true;
            next.push(other.map_or(crops[i], |j| {
                used[j] = true;
                union(&crops[i], &crops[j])
            }));
        }
        if next.len() == crops.len() {
            return crops;
        }
        crops = next;
    }
}

fn near(a: &Corners, b: &Corners) -> bool {
    let overlap = |from: usize| {
        let (start, end) = (i64::from(a[from].max(b[from])) - NEAR, i64::from(a[from + 2].min(b[from + 2])) + NEAR);
        end > start
    };
    overlap(0) && overlap(1)
}

/// The smallest crop that holds both.
pub fn union(a: &Corners, b: &Corners) -> Corners {
    [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]
}

/// The part of the picture that a model with a canvas is shown of an area: the area with `margin` on each side,
/// at least `least` pixels wide where the picture is, and of the canvas' shape where the picture allows, so that none of
/// the canvas is wasted on borders. It is moved, not cut, at the picture's edges. `None` for an empty picture.
pub fn framed(area: &BBox, picture: Size, canvas: Size, margin: f32, least: f32) -> Option<BBox> {
    let (pw, ph) = (picture.width as f32, picture.height as f32);
    let shape = canvas.width as f32 / canvas.height.max(1) as f32;
    let width = (area.width() * margin).max(area.height() * margin * shape).max(least);
    let (width, height) = (width.min(pw), (width / shape).min(ph));
    let (cx, cy) = area.center();
    let start = |middle: f32, side: f32, most: f32| (middle - side / 2.0).clamp(0.0, (most - side).max(0.0));
    let (x, y) = (start(cx, width, pw), start(cy, height, ph));
    BBox::new(x, y, (x + width).min(pw), (y + height).min(ph))
}

/// How a crop lies on a canvas, once it was scaled to `inner`: the crop is the letterbox's source.
pub fn placed(crop: &BBox, inner: Size, canvas: Size) -> Option<Placed> {
    let fits = inner.width >= 1 && inner.height >= 1 && inner.width <= canvas.width && inner.height <= canvas.height;
    let (left, top) = (canvas.width.checked_sub(inner.width)? / 2, canvas.height.checked_sub(inner.height)? / 2);
    fits.then_some(Placed { crop: *crop, canvas, left, top, inner })
}

/// A crop on a canvas. Unlike a [`Letterbox`] its source need not begin or end at a whole pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// The part of the picture, in source pixels.
    pub crop: BBox,
    canvas: Size,
    left: u32,
    top: u32,
    inner: Size,
}

impl Placed {
    /// The whole picture, as a frame's own view has it.
    pub fn whole(view: &Letterbox) -> Option<Self> {
        let crop = Area::whole(view.source).bbox()?;
        Some(Self { crop, canvas: view.canvas, left: view.left, top: view.top, inner: view.inner })
    }

    /// Maps a box in fractions of the canvas to source pixels, clipped to the crop. `None` if it lies in the border
    /// altogether.
    pub fn to_source(&self, fractions: [f32; 4]) -> Option<BBox> {
        let [left, top, right, bottom] = self.crop.corners();
        let x = |f: f32| {
            left + (f * self.canvas.width as f32 - self.left as f32) * self.crop.width() / self.inner.width as f32
        };
        let y = |f: f32| {
            top + (f * self.canvas.height as f32 - self.top as f32) * self.crop.height() / self.inner.height as f32
        };
        let [x1, y1, x2, y2] = fractions;
        let within = |v: f32, from: f32, to: f32| v.clamp(from, to);
        let [x1, y1, x2, y2] = BBox::new(x(x1), y(y1), x(x2), y(y2))?.corners();
        BBox::new(within(x1, left, right), within(y1, top, bottom), within(x2, left, right), within(y2, top, bottom))
    }

    /// The crop's picture, scaled already, on a black canvas.
    pub fn laid(&self, picture: &Rgb) -> Rgb {
        if self.inner == self.canvas {
            return picture.clone();
        }
        picture.laid(self.canvas, [self.left, self.top])
    }

    /// Maps a box in source pixels to fractions of the canvas: the inverse of [`Placed::to_source`].
    pub fn to_canvas(&self, bbox: &BBox) -> [f32; 4] {
        let [left, top, ..] = self.crop.corners();
        let x = |v: f32| {
            ((v - left) * self.inner.width as f32 / self.crop.width() + self.left as f32) / self.canvas.width as f32
        };
        let y = |v: f32| {
            ((v - top) * self.inner.height as f32 / self.crop.height() + self.top as f32) / self.canvas.height as f32
        };
        let [x1, y1, x2, y2] = bbox.corners();
        [x(x1), y(y1), x(x2), y(y2)]
    }

    /// Where the scaled crop lies on the canvas.
    pub fn inner(&self) -> (u32, u32, Size) {
        (self.left, self.top, self.inner)
    }

    /// Whether a box in source pixels is cut off by an edge of the crop that is not the picture's: what it shows goes on
    /// beyond. `reach` is how near to the edge counts, in fractions of the crop's side.
    pub fn cuts(&self, bbox: &BBox, picture: Size, reach: f32) -> bool {
        let [left, top, right, bottom] = self.crop.corners();
        let [x1, y1, x2, y2] = bbox.corners();
        let (dx, dy) = (self.crop.width() * reach, self.crop.height() * reach);
        (left > 0.0 && x1 - left < dx)
            || (top > 0.0 && y1 - top < dy)
            || (right < picture.width as f32 && right - x2 < dx)
            || (bottom < picture.height as f32 && bottom - y2 < dy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_area_is_shown_with_its_surroundings() {
        let rules = Rules::qwen();
        let picture = Size::new(1920, 1080);
        // 448·1.2 = 537.6: the area is smaller than a patch.
        let area = Area { x: 960, y: 540, width: 240, height: 135 };
        assert_eq!(shown(&area, picture, &rules), [1080 - 268, 607 - 268, 1080 - 268 + 537, 607 - 268 + 537]);
        // At the edge it is cut, not moved.
        assert_eq!(shown(&Area { x: 0, y: 0, width: 960, height: 540 }, picture, &rules), [0, 0, 1152, 648]);
        assert_eq!(shown(&Area::whole(picture), picture, &rules), [0, 0, 1920, 1080]);
    }

    #[test]
    fn crops_that_nearly_touch_are_one() {
        let (a, b, c) = ([0, 0, 100, 100], [199, 0, 300, 100], [500, 500, 600, 600]);
        assert_eq!(merged(&[a, c, b]), [[0, 0, 300, 100], c]);
        assert_eq!(merged(&[a, [200, 0, 300, 100]]).len(), 2);
        assert_eq!(merged(&[]), Vec::<Corners>::new());
    }

    #[test]
    fn what_the_crop_cuts_is_told_from_what_the_picture_ends() {
        let picture = Size::new(400, 200);
        let crop = BBox::new(0.0, 0.0, 200.0, 100.0).unwrap();
        let placed = placed(&crop, Size::new(64, 32), Size::new(64, 32)).unwrap();
        let cuts = |x1, y1, x2, y2| placed.cuts(&BBox::new(x1, y1, x2, y2).unwrap(), picture, 0.02);
        assert!(!cuts(0.0, 0.0, 50.0, 50.0) && !cuts(50.0, 20.0, 150.0, 90.0));
        assert!(cuts(50.0, 20.0, 199.0, 90.0) && cuts(50.0, 20.0, 90.0, 100.0));
    }

    proptest! {
        #[test]
        fn crops_lie_in_the_picture_and_hold_the_area(
            (w, h) in (1u32..5000, 1u32..5000), (x, y, aw, ah) in (0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0, 0.0f64..1.0),
            (cw, ch) in (1u32..800, 1u32..800), margin in 1.0f32..2.0, least in 0.0f32..900.0,
        ) {
            let at = |f: f64, n: u32| clamped(f * f64::from(n), n);
            let (left, top) = (at(x, w - 1), at(y, h - 1));
            let area = Area { x: left, y: top, width: 1 + at(aw, w - left - 1), height: 1 + at(ah, h - top - 1) };
            let picture = Size::new(w, h);
            let bbox = area.bbox().unwrap();
            let crop = framed(&bbox, picture, Size::new(cw, ch), margin, least).unwrap();
            let [x1, y1, x2, y2] = crop.corners();
            prop_assert!(x1 >= 0.0 && y1 >= 0.0 && x2 <= w as f32 && y2 <= h as f32);
            let [ax1, ay1, ax2, ay2] = bbox.corners();
            prop_assert!(x1 <= ax1 + 0.01 && y1 <= ay1 + 0.01 && x2 >= ax2 - 0.01 && y2 >= ay2 - 0.01, "{area:?} {crop:?}");
            for rules in [Rules::qwen(), Rules::llava_local(336)] {
                let [l, t, r, b] = shown(&area, picture, &rules);
                prop_assert!(l <= area.x && t <= area.y && r >= area.x + area.width && b >= area.y + area.height);
                prop_assert!(r <= w && b <= h);
            }
        }

        #[test]
        fn boxes_survive_the_round_trip(
            (cx, cy, cw, ch) in (0.0f32..3000.0, 0.0f32..3000.0, 20.0f32..2000.0, 20.0f32..2000.0),
            (iw, ih) in (8u32..512, 8u32..288), (x, y, bw, bh) in (0.0f32..0.8, 0.0f32..0.8, 0.05f32..0.2, 0.05f32..0.2),
        ) {
            let crop = BBox::new(cx, cy, cx + cw, cy + ch).unwrap();
            let placed = placed(&crop, Size::new(iw, ih), Size::new(512, 288)).unwrap();
            let bbox = BBox::new(cx + x * cw, cy + y * ch, cx + (x + bw) * cw, cy + (y + bh) * ch).unwrap();
            let back = placed.to_source(placed.to_canvas(&bbox)).unwrap();
            for (a, b) in bbox.corners().iter().zip(back.corners()) {
                prop_assert!((a - b).abs() < 2e-3 * (cx + cy + cw + ch).max(100.0) / 10.0, "{bbox:?} {back:?}");
            }
        }

        #[test]
        fn merging_loses_nothing(crops in proptest::collection::vec((0u32..900, 0u32..900, 1u32..200, 1u32..200), 0..12)) {
            let crops: Vec<Corners> = crops.iter().map(|(x, y, w, h)| [*x, *y, x + w, y + h]).collect();
            let merged = merged(&crops);
            prop_assert!(merged.len() <= crops.len());
            let inside = |a: &Corners, b: &Corners| a[0] >= b[0] && a[1] >= b[1] && a[2] <= b[2] && a[3] <= b[3];
            prop_assert!(crops.iter().all(|a| merged.iter().any(|b| inside(a, b))));
        }
    }

    fn clamped(value: f64, most: u32) -> u32 {
        crate::ground::codec::clamped(value, most)
    }
}
