//! How a picture lies in the image a model sees, and the way back.
//!
//! [`Letterbox`](crate::types::Letterbox) is the daemon's own fit, centred on black. Real checkpoints were trained with
//! others: stretched to a square ("squash"), resized to whole patches
//! ([`smart_resize`](crate::ground::vision::smart_resize)), or set in the top left corner of a larger image. All of them
//! are one scale per axis, which is what a [`Placement`] holds.

use crate::types::{BBox, Size};

/// Where a picture lies in the model's input image: its top left corner is the image's, the rest is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Size of the picture before scaling, in pixels.
    pub picture: Size,
    /// Size of the scaled picture inside the image, in pixels.
    pub inner: Size,
    /// Size of the model's input image, padding included, in pixels.
    pub image: Size,
}

impl Placement {
    /// The picture stretched over the whole image: Florence-2, `PaliGemma`, OFA, and Qwen with the size that
    /// [`smart_resize`](crate::ground::vision::smart_resize) gives.
    pub fn squash(picture: Size, image: Size) -> Self {
        Self { picture, inner: image, image }
    }

    /// The picture scaled to `inner`, in the top left corner of `image`: Grounding DINO, `OWLv2`.
    pub fn top_left(picture: Size, inner: Size, image: Size) -> Self {
        Self { picture, inner, image }
    }

    /// Maps `[x1, y1, x2, y2]` in fractions of the model's image to pixels of the picture, clipped to it. `None` if the
    /// box lies in the padding altogether, or if a size is zero.
    pub fn to_picture(&self, fractions: [f32; 4]) -> Option<BBox> {
        let (x, y) = self.picture_per_fraction();
        let [x1, y1, x2, y2] = fractions;
        BBox::new(x1 * x, y1 * y, x2 * x, y2 * y)?.clipped(self.picture)
    }

    fn picture_per_fraction(&self) -> (f32, f32) {
        (
            self.image.width as f32 * self.picture.width as f32 / self.inner.width as f32,
            self.image.height as f32 * self.picture.height as f32 / self.inner.height as f32,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn padding_is_no_part_of_the_picture() {
        // A 400x300 picture at 2/3 in the corner of a 800x800 image.
        let p = Placement::top_left(Size::new(1200, 900), Size::new(800, 600), Size::new(800, 800));
        assert_eq!(p.to_picture([0.5, 0.0, 1.0, 0.75]).unwrap().corners(), [600.0, 0.0, 1200.0, 900.0]);
        assert_eq!(p.to_picture([0.0, 0.8, 1.0, 1.0]), None);
    }

    #[test]
    fn a_picture_or_image_without_area_gives_no_box() {
        for (picture, image) in [((0, 5), (8, 8)), ((5, 5), (0, 8)), ((0, 0), (0, 0))] {
            let p = Placement::squash(Size::new(picture.0, picture.1), Size::new(image.0, image.1));
            assert_eq!(p.to_picture([0.1, 0.1, 0.9, 0.9]), None);
        }
    }

    proptest! {
        #[test]
        fn boxes_are_found_where_they_were_laid(
            (w, h) in (8u32..4000, 8u32..4000),
            (iw, ih) in (8u32..2000, 8u32..2000),
            (pad_w, pad_h) in (0u32..500, 0u32..500),
            (x, y, bw, bh) in (0.0f32..0.8, 0.0f32..0.8, 0.05f32..0.2, 0.05f32..0.2),
        ) {
            let p = Placement::top_left(Size::new(w, h), Size::new(iw, ih), Size::new(iw + pad_w, ih + pad_h));
            let (w, h) = (w as f32, h as f32);
            let bbox = BBox::new(x * w, y * h, (x + bw) * w, (y + bh) * h).unwrap();
            let [x1, y1, x2, y2] = bbox.corners();
            let (whole_w, whole_h) = ((iw + pad_w) as f32, (ih + pad_h) as f32);
            let x = |x: f32| x / w * iw as f32 / whole_w;
            let y = |y: f32| y / h * ih as f32 / whole_h;
            let back = p.to_picture([x(x1), y(y1), x(x2), y(y2)]).unwrap();
            for (a, b) in bbox.corners().iter().zip(back.corners()) {
                prop_assert!((a - b).abs() < 1e-5 * w.max(h), "{bbox:?} {back:?}");
            }
        }
    }
}
