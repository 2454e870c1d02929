//! The sizes of canvas that a model takes, and which of them a picture is laid on.

use std::sync::Arc;

use super::{Letterbox, Size};

/// The sizes of canvas that a model takes: the usual one, and perhaps others that cost about as much. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvases {
    usual: Size,
    others: Arc<[Size]>,
}

impl Canvases {
    /// The usual one and others.
    pub fn new(usual: Size, others: impl IntoIterator<Item = Size>) -> Self {
        Self { usual, others: others.into_iter().collect() }
    }

    /// The one that most pictures are laid on.
    pub fn usual(&self) -> Size {
        self.usual
    }

    /// All of them, the usual one first.
    pub fn iter(&self) -> impl Iterator<Item = Size> {
        std::iter::once(self.usual).chain(self.others.iter().copied())
    }

    /// The same, each so large that a picture of its shape has about `detail` times as many pixels on it. Sides remain multiples
    /// of what divides all of them as they are: a model has reasons for that.
    #[must_use]
    pub fn with_detail(&self, detail: f32) -> Self {
        let step = self.iter().flat_map(|size| [size.width, size.height]).fold(0, gcd);
        let steps = |length: u32| length as f32 * detail.sqrt() / step as f32;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and at least one")]
        let sides = |length: u32| [f32::floor, f32::ceil].map(|whole| whole(steps(length)).max(1.0) as u32 * step);
        // By pixels that the picture gets, and, half as much, by those that are paid for.
        let off = |size: Size, canvas: Size| {
            let by = |area: usize| (area as f32 / size.area() as f32 / detail).ln().abs();
            2.0 * by(Letterbox::fit(size, 1.0, canvas).inner.area()) + by(canvas.area())
        };
        let scaled = |size: Size| {
            let [w, h] = [sides(size.width), sides(size.height)];
            let all = [(w[0], h[0]), (w[0], h[1]), (w[1], h[0]), (w[1], h[1])].map(|(w, h)| Size::new(w, h));
            all.into_iter().min_by(|a, b| off(size, *a).total_cmp(&off(size, *b))).unwrap_or(size)
        };
        Self::new(scaled(self.usual), self.others.iter().copied().map(scaled))
    }

    /// How a picture of `source` pixels that are `par` times as wide as high lies on the one that shows it largest: a
    /// tall picture on a wide canvas would be small between black bars. Of equals the first.
    pub fn view(&self, source: Size, par: f32) -> Letterbox {
        let usual = Letterbox::fit(source, par, self.usual);
        let others = self.others.iter().map(|canvas| Letterbox::fit(source, par, *canvas));
        others.fold(usual, |best, view| if view.inner.area() > best.inner.area() { view } else { best })
    }
}

/// The greatest common divisor.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl From<Size> for Canvases {
    fn from(usual: Size) -> Self {
        Self::new(usual, [])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shapes() -> Canvases {
        Canvases::new(Size::new(512, 288), [(448, 320), (384, 384), (288, 512)].map(|(w, h)| Size::new(w, h)))
    }

    #[test]
    fn a_picture_lies_where_it_is_largest() {
        for ((w, h), par, canvas) in [
            ((1920, 1080), 1.0, (512, 288)),
            ((640, 480), 1.0, (448, 320)),
            ((720, 576), 16.0 / 11.0, (512, 288)),
            ((900, 900), 1.0, (384, 384)),
            ((1080, 1920), 1.0, (288, 512)),
        ] {
            let view = shapes().view(Size::new(w, h), par);
            assert_eq!((view.canvas.width, view.canvas.height), canvas, "{w}x{h}");
        }
        let equal = Canvases::new(Size::new(40, 20), [Size::new(20, 40)]);
        assert_eq!(equal.view(Size::new(9, 9), 1.0).canvas, equal.usual());
    }

    #[test]
    fn detail_is_in_pixels_and_keeps_to_the_grid() {
        let sizes = |detail| shapes().with_detail(detail).iter().map(|s| (s.width, s.height)).collect::<Vec<_>>();
        assert_eq!(sizes(1.0), [(512, 288), (448, 320), (384, 384), (288, 512)]);
        assert_eq!(sizes(2.0), [(736, 416), (640, 448), (544, 544), (416, 736)]);
        assert_eq!(sizes(4.0), [(1024, 576), (896, 640), (768, 768), (576, 1024)]);
        assert_eq!(sizes(1e-6), [(32, 32); 4]);
        // A width without the height would be black at the sides.
        assert_eq!(sizes(1.1)[0], (544, 320));
    }

    proptest! {
        #[test]
        fn any_detail_is_nearly_had(detail in 0.25f32..4.0) {
            let (usual, scaled) = (shapes(), shapes().with_detail(detail));
            for (before, after) in usual.iter().zip(scaled.iter()) {
                let shown = Letterbox::fit(before, 1.0, after).inner.area();
                prop_assert_eq!((after.width % 32, after.height % 32), (0, 0));
                let by = shown as f32 / before.area() as f32 / detail;
                prop_assert!((0.75..1.3).contains(&by) && after.area() < shown * 5 / 4, "{:?} of {:?} for {}", after, before, detail);
            }
        }

        #[test]
        fn none_would_show_more(w in 16u32..4000, h in 16u32..4000, par in 0.5f32..2.0) {
            let (source, canvases) = (Size::new(w, h), shapes());
            let area = canvases.view(source, par).inner.area();
            prop_assert!(canvases.iter().all(|canvas| Letterbox::fit(source, par, canvas).inner.area() <= area));
        }
    }
}
