//! Sizes, boxes, and the one mapping between model canvas and source pixels.

use serde::{Serialize, Serializer, ser::SerializeTuple};

/// A width and a height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Size {
    /// A size; zero in either direction is allowed and has no area.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Number of pixels.
    pub fn area(self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// A box in pixels: x right, y down, `x2`/`y2` exclusive. Always finite, with `x1 < x2` and `y1 < y2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BBox {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
}

impl BBox {
    /// A box from its corners; `None` if it is empty, reversed or not finite.
    pub fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Option<Self> {
        let finite = [x1, y1, x2, y2].iter().all(|v| v.is_finite());
        (finite && x1 < x2 && y1 < y2).then_some(Self { x1, y1, x2, y2 })
    }

    /// Corners `[x1, y1, x2, y2]`.
    pub fn corners(&self) -> [f32; 4] {
        [self.x1, self.y1, self.x2, self.y2]
    }

    /// Width in pixels, positive.
    pub fn width(&self) -> f32 {
        self.x2 - self.x1
    }

    /// Height in pixels, positive.
    pub fn height(&self) -> f32 {
        self.y2 - self.y1
    }

    /// Area in square pixels, positive.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Centre `(x, y)`.
    pub fn center(&self) -> (f32, f32) {
        (f32::midpoint(self.x1, self.x2), f32::midpoint(self.y1, self.y2))
    }

    /// The part inside `size`; `None` if nothing is left.
    pub fn clipped(&self, size: Size) -> Option<Self> {
        let (w, h) = (size.width as f32, size.height as f32);
        Self::new(self.x1.clamp(0.0, w), self.y1.clamp(0.0, h), self.x2.clamp(0.0, w), self.y2.clamp(0.0, h))
    }

    /// The same in other pixels, of which so many make one of these, across and down; itself if that is no box.
    #[must_use]
    pub fn scaled(&self, [across, down]: [f32; 2]) -> Self {
        let scaled = Self::new(self.x1 * across, self.y1 * down, self.x2 * across, self.y2 * down);
        scaled.unwrap_or(*self)
    }

    /// The smallest box that holds both.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        let (x1, y1) = (self.x1.min(other.x1), self.y1.min(other.y1));
        Self { x1, y1, x2: self.x2.max(other.x2), y2: self.y2.max(other.y2) }
    }

    /// Intersection over union, 0 to 1.
    pub fn iou(&self, other: &Self) -> f32 {
        overlap(&self.corners(), &other.corners())
    }
}

/// Intersection over union of two boxes, by their corners in any unit that both share; 0 for what is no box.
pub fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let (w, h) = (a[2].min(b[2]) - a[0].max(b[0]), a[3].min(b[3]) - a[1].max(b[1]));
    if w <= 0.0 || h <= 0.0 {
        return 0.0;
    }
    let area = |c: &[f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    w * h / (area(a) + area(b) - w * h)
}

impl Serialize for BBox {
    /// Four numbers, rounded to 1/100 pixel: more would pretend a precision no method has.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(4)?;
        for v in self.corners() {
            tuple.serialize_element(&((f64::from(v) * 100.0).round() / 100.0))?;
        }
        tuple.end()
    }
}

/// How a source picture lies inside a model canvas: scaled by one factor per axis and centred on black.
///
/// The factors differ only by the rounding of the scaled picture to whole pixels, or where the source's
/// pixels are not square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Letterbox {
    /// Size of the source picture.
    pub source: Size,
    /// Size of the canvas the model sees.
    pub canvas: Size,
    /// Left edge of the picture on the canvas, in canvas pixels.
    pub left: u32,
    /// Top edge of the picture on the canvas, in canvas pixels.
    pub top: u32,
    /// Size of the picture on the canvas.
    pub inner: Size,
}

impl Letterbox {
    /// Fits `source`, whose pixels are `par` times as wide as high, into the middle of `canvas`.
    pub fn fit(source: Size, par: f32, canvas: Size) -> Self {
        let (sw, sh) = (source.width.max(1) as f32 * par, source.height.max(1) as f32);
        let scale = (canvas.width as f32 / sw).min(canvas.height as f32 / sh);
        let whole = |v: f32, max: u32| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=max")]
            let v = v.round().clamp(1.0, max as f32) as u32;
            v
        };
        let inner = Size::new(whole(sw * scale, canvas.width), whole(sh * scale, canvas.height));
        Self { source, canvas, left: (canvas.width - inner.width) / 2, top: (canvas.height - inner.height) / 2, inner }
    }

    /// Maps a box given in fractions of the canvas to source pixels, clipped to the picture.
    /// `None` if it lies in the border altogether.
    pub fn to_source(&self, fractions: [f32; 4]) -> Option<BBox> {
        let x = |f: f32| {
            (f * self.canvas.width as f32 - self.left as f32) * self.source.width as f32 / self.inner.width as f32
        };
        let y = |f: f32| {
            (f * self.canvas.height as f32 - self.top as f32) * self.source.height as f32 / self.inner.height as f32
        };
        let [x1, y1, x2, y2] = fractions;
        BBox::new(x(x1), y(y1), x(x2), y(y2))?.clipped(self.source)
    }

    /// Maps a box in source pixels to fractions of the canvas: the inverse of [`Letterbox::to_source`].
    pub fn to_canvas(&self, bbox: &BBox) -> [f32; 4] {
        let x = |v: f32| {
            (v * self.inner.width as f32 / self.source.width as f32 + self.left as f32) / self.canvas.width as f32
        };
        let y = |v: f32| {
            (v * self.inner.height as f32 / self.source.height as f32 + self.top as f32) / self.canvas.height as f32
        };
        let [x1, y1, x2, y2] = bbox.corners();
        [x(x1), y(y1), x(x2), y(y2)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reversed_empty_and_non_finite_boxes_do_not_exist() {
        assert_eq!(BBox::new(5.0, 0.0, 4.0, 1.0), None);
        assert_eq!(BBox::new(5.0, 0.0, 5.0, 1.0), None);
        assert_eq!(BBox::new(f32::NAN, 0.0, 5.0, 1.0), None);
    }

    #[test]
    fn a_tall_source_is_centred_between_black_bars() {
        let map = Letterbox::fit(Size::new(720, 1280), 1.0, Size::new(512, 288));
        assert_eq!((map.inner, map.left, map.top), (Size::new(162, 288), 175, 0));
    }

    proptest! {
        #[test]
        fn source_boxes_survive_the_round_trip(
            (w, h) in (16u32..4000, 16u32..4000),
            (x, y) in (0.0f32..0.8, 0.0f32..0.8),
            (bw, bh) in (0.05f32..0.2, 0.05f32..0.2),
            par in 0.5f32..2.0,
        ) {
            let source = Size::new(w, h);
            let map = Letterbox::fit(source, par, Size::new(512, 288));
            let (sw, sh) = (w as f32, h as f32);
            let bbox = BBox::new(x * sw, y * sh, (x + bw) * sw, (y + bh) * sh).unwrap();
            let back = map.to_source(map.to_canvas(&bbox)).unwrap();
            for (a, b) in bbox.corners().iter().zip(back.corners()) {
                prop_assert!((a - b).abs() < 1e-2 * sw.max(sh).max(100.0) / 100.0, "{bbox:?} {back:?}");
            }
        }

        #[test]
        fn iou_is_symmetric_and_bounded(a in any::<[i8; 4]>(), b in any::<[i8; 4]>()) {
            let make = |v: [i8; 4]| BBox::new(v[0].into(), v[1].into(), v[2].into(), v[3].into());
            if let (Some(a), Some(b)) = (make(a), make(b)) {
                let iou = a.iou(&b);
                prop_assert!((0.0..=1.0).contains(&iou));
                prop_assert!((iou - b.iou(&a)).abs() < 1e-6);
            }
        }
    }
}
