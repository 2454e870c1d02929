//! The coloured frame around the focus on the main picture.

use super::crop::Corners;
use crate::types::{Rgb, Size};

/// Whose colour the frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// The usual one.
    Red,
    /// Where the question itself is about a red rectangle.
    Blue,
}

impl Colour {
    /// The colour for a question.
    pub fn of(question: &str) -> Self {
        if question.contains("red rectangle") { Self::Blue } else { Self::Red }
    }

    /// As in prompts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Blue => "blue",
        }
    }

    fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [255, 0, 0],
            Self::Blue => [0, 0, 255],
        }
    }
}

/// How thick the frame is: a 120th of the longer side, at least a pixel (`draw_bbox_arrow_in_square_image`).
pub fn thickness(picture: Size) -> u32 {
    (picture.width.max(picture.height) / 120).max(1)
}

/// A copy of `picture` with a frame of `thickness` pixels around `focus`, drawn outside it as far as the picture goes.
pub fn framed(picture: &Rgb, focus: Corners, thickness: u32, colour: Colour) -> Rgb {
    let Size { width, height } = picture.size;
    let [left, top, right, bottom] = focus;
    let outer = [
        left.saturating_sub(thickness),
        top.saturating_sub(thickness),
        right.saturating_add(thickness).min(width),
        bottom.saturating_add(thickness).min(height),
    ];
    // Inside the outer edge by its thickness, also where the picture ends before the frame does.
    let inner = [outer[0] + thickness, outer[1] + thickness];
    let ends = [outer[2].saturating_sub(thickness), outer[3].saturating_sub(thickness)];
    let mut data = picture.data.to_vec();
    for y in outer[1]..outer[3] {
        for x in outer[0]..outer[2] {
            let inside = (inner[0]..ends[0]).contains(&x) && (inner[1]..ends[1]).contains(&y);
            let at = (y as usize * width as usize + x as usize) * 3;
            if !inside && let Some(pixel) = data.get_mut(at..at + 3) {
                pixel.copy_from_slice(&colour.rgb());
            }
        }
    }
    Rgb { size: picture.size, data: data.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn red(picture: &Rgb) -> Vec<String> {
        let rows = picture.data.chunks(picture.size.width as usize * 3);
        let shown = |pixel: &[u8]| if pixel == [255, 0, 0] { '#' } else { '.' };
        rows.map(|row| row.chunks(3).map(shown).collect()).collect()
    }

    #[test]
    fn the_frame_lies_around_the_focus_and_inside_the_picture() {
        let size = Size::new(6, 5);
        let picture = Rgb::new(size, vec![9; size.area() * 3]).unwrap();
        let marked = framed(&picture, [2, 2, 4, 3], 1, Colour::Red);
        assert_eq!(red(&marked), ["......", ".####.", ".#..#.", ".####.", "......"]);
        assert_eq!(
            red(&framed(&picture, [0, 0, 6, 5], 1, Colour::Red)),
            ["######", "#....#", "#....#", "#....#", "######"]
        );
        assert_eq!(framed(&picture, [9, 9, 12, 12], 3, Colour::Blue).data.len(), size.area() * 3);
    }

    #[test]
    fn a_question_about_red_rectangles_gets_another_colour() {
        assert_eq!(Colour::of("What is in the red rectangle?").name(), "blue");
        assert_eq!(Colour::of("Where is the red car?").name(), "red");
    }
}
