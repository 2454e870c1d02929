//! Drawing on pictures: lines, letters, and what plotters asks of a canvas.
//!
//! The letters are the public-domain fixed fonts that embedded-graphics carries, so no font need be installed. What is not in
//! ISO 8859-1 becomes a question mark.

use std::{convert::Infallible, path::Path};

use embedded_graphics::{
    Drawable, Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Point, Size},
    mono_font::{MonoTextStyle, iso_8859_1::FONT_10X20},
    pixelcolor::BinaryColor,
    text::{Baseline, Text},
};
use image::{Rgb, RgbImage};
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    text_anchor::{HPos, VPos},
};

/// Pixels between the left edges of two letters.
pub(super) const LETTER: u32 = 10;
/// Pixels between two lines.
pub(super) const LINE: u32 = 20;

/// Red, green, blue.
pub(super) type Color = [u8; 3];

/// A picture to draw on; what falls outside is not drawn.
pub(super) struct Ink(RgbImage);

impl Ink {
    /// A picture of one colour.
    pub(super) fn blank(width: u32, height: u32, color: Color) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb(color)))
    }

    /// Puts `picture` with its upper left corner at (`x`, `y`).
    pub(super) fn place(&mut self, picture: &RgbImage, x: u32, y: u32) {
        image::imageops::replace(&mut self.0, picture, x.into(), y.into());
    }

    /// Writes it; the file's name says as what.
    pub(super) fn save(&self, path: &Path) -> Result<(), image::ImageError> {
        self.0.save(path)
    }

    fn dot(&mut self, x: i32, y: i32, color: Color, opacity: f64) {
        let Some(pixel) = u32::try_from(x).ok().zip(u32::try_from(y).ok()) else { return };
        if let Some(old) = self.0.get_pixel_mut_checked(pixel.0, pixel.1) {
            for (old, new) in old.0.iter_mut().zip(color) {
                let mixed = f64::from(*old) + (f64::from(new) - f64::from(*old)) * opacity;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
                let mixed = mixed.round().clamp(0.0, 255.0) as u8;
                *old = mixed;
            }
        }
    }

    /// Fills `width` by `height` pixels from (`x`, `y`).
    pub(super) fn fill(&mut self, (x, y): (i32, i32), (width, height): (i32, i32), color: Color) {
        for row in y..y.saturating_add(height) {
            for column in x..x.saturating_add(width) {
                self.dot(column, row, color, 1.0);
            }
        }
    }

    /// The outline of a box, `thick` pixels wide, drawn inwards.
    pub(super) fn frame(&mut self, corners: [f64; 4], thick: i32, color: Color) {
        #[expect(clippy::cast_possible_truncation, reason = "pixels of a picture; what is outside is not drawn")]
        let [x1, y1, x2, y2] = corners.map(|v| v.round().clamp(-1e5, 1e5) as i32);
        let (width, height) = (x2 - x1, y2 - y1);
        for (at, size) in [
            ((x1, y1), (width, thick)),
            ((x1, y2 - thick), (width, thick)),
            ((x1, y1), (thick, height)),
            ((x2 - thick, y1), (thick, height)),
        ] {
            self.fill(at, size, color);
        }
    }

    /// Writes a line of text, its upper left corner at (`x`, `y`).
    pub(super) fn text(&mut self, text: &str, (x, y): (i32, i32), color: Color) {
        letters(text, |dx, dy| self.dot(x + dx, y + dy, color, 1.0));
    }
}

/// How wide a line of text is.
pub(super) fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX).saturating_mul(LETTER)
}

/// Calls `dot` for each pixel of a line of text.
fn letters(text: &str, dot: impl FnMut(i32, i32)) {
    struct Dots<F>(F);

    impl<F> OriginDimensions for Dots<F> {
        fn size(&self) -> Size {
            Size::new(u32::MAX >> 1, u32::MAX >> 1)
        }
    }

    impl<F: FnMut(i32, i32)> DrawTarget for Dots<F> {
        type Color = BinaryColor;
        type Error = Infallible;

        fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
            for Pixel(at, color) in pixels {
                if color.is_on() {
                    (self.0)(at.x, at.y);
                }
            }
            Ok(())
        }
    }

    let style = MonoTextStyle::new(&FONT_10X20, BinaryColor::On);
    let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut Dots(dot));
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for &mut Ink {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.dot(x, y, color.rgb.into(), color.alpha);
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Drawn {
        let (width, height) = (width(text).cast_signed(), LINE.cast_signed());
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let color = style.color();
        let turn = style.transform();
        letters(text, |dx, dy| {
            let (dx, dy) = turn.transform(left + dx, top + dy);
            self.dot(x + dx, y + dy, color.rgb.into(), color.alpha);
        });
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        Ok((width(text), LINE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inked(ink: &Ink) -> usize {
        ink.0.pixels().filter(|p| p.0 == [0; 3]).count()
    }

    #[test]
    fn letters_need_no_font_of_the_system_and_differ() {
        let drawn = |text: &str| {
            let mut ink = Ink::blank(100, LINE, [255; 3]);
            ink.text(text, (0, 0), [0; 3]);
            ink.0.into_raw()
        };
        let all = ["I", "M", "é", "%", ""].map(drawn);
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one));
        }
        assert_eq!(drawn("猫"), drawn("?"));
    }

    #[test]
    fn what_falls_outside_is_not_drawn() {
        let mut ink = Ink::blank(10, 10, [255; 3]);
        ink.frame([-5.0, -5.0, 50.0, 50.0], 2, [0; 3]);
        ink.text("far", (1000, -3000), [0; 3]);
        assert_eq!(inked(&ink), 0);
        ink.frame([2.0, 2.0, 6.0, 6.0], 1, [0; 3]);
        assert_eq!(inked(&ink), 12);
    }
}
