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

    /// How a picture of `source` pixels that are `par` times as wide as high lies on the one that shows it largest: a
    /// tall picture on a wide canvas would be small between black bars. Of equals the first.
    pub fn view(&self, source: Size, par: f32) -> Letterbox {
        let usual = Letterbox::fit(source, par, self.usual);
        let others = self.others.iter().map(|canvas| Letterbox::fit(source, par, *canvas));
        others.fold(usual, |best, view| if view.inner.area() > best.inner.area() { view } else { best })
    }
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

    proptest! {
        #[test]
        fn none_would_show_more(w in 16u32..4000, h in 16u32..4000, par in 0.5f32..2.0) {
            let (source, canvases) = (Size::new(w, h), shapes());
            let area = canvases.view(source, par).inner.area();
            prop_assert!(canvases.iter().all(|canvas| Letterbox::fit(source, par, canvas).inner.area() <= area));
        }
    }
}
