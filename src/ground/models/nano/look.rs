//! What a look at one picture leaves, to be kept beside others and asked about later; and where on its canvas that is.

use std::sync::Arc;

use crate::{ground::Keep, types::Size};

/// What is carried from the pixels to the words: of some canvases, one after the other.
#[derive(Debug)]
pub struct Seen {
    /// What is known of each region.
    pub(super) regions: Vec<f32>,
    /// What is known of each canvas.
    pub(super) canvases: Vec<Looked>,
}

/// What is known of one canvas.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) place: OnFrame,
    pub(super) cells: Arc<Grid>,
}

/// The cells of a canvas, for `detector`; nothing where the model cannot do that.
#[derive(Debug, Default)]
pub(super) struct Grid {
    /// What is known of each, `[C,N]`.
    pub(super) features: Vec<f32>,
    /// The box each would have, `[4,N]`.
    pub(super) places: Vec<f32>,
}

/// Where a canvas lies on the model's frame, in whose fractions its graphs give and take boxes. The frame has the shape of the
/// usual canvas as the manifest has it; a canvas of another shape lies in the middle of it, as large as it can. So places,
/// shapes and distances mean to the words what they meant in training, whatever canvas a picture is laid on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OnFrame {
    /// The canvas.
    pub(super) size: Size,
    /// Its sides in fractions of the frame's.
    share: [f32; 2],
}

impl OnFrame {
    pub(super) fn new(size: Size, frame: Size) -> Self {
        let [across, down] = [size.width as f32 / frame.width as f32, size.height as f32 / frame.height as f32];
        let longer = across.max(down);
        Self { size, share: [across / longer, down / longer] }
    }

    /// Corners in fractions of the frame, of a box in fractions of the canvas.
    pub(super) fn to_frame(self, corners: [f32; 4]) -> [f32; 4] {
        self.each(corners, |at, share| (at - 0.5) * share + 0.5)
    }

    /// Corners in fractions of the canvas, of a box in fractions of the frame.
    pub(super) fn to_canvas(self, corners: [f32; 4]) -> [f32; 4] {
        self.each(corners, |at, share| (at - 0.5) / share + 0.5)
    }

    /// Sides that the frame and the canvas share are left as they are, to the last bit.
    #[expect(clippy::float_cmp, reason = "exact for the longer side")]
    fn each(self, corners: [f32; 4], map: fn(f32, f32) -> f32) -> [f32; 4] {
        let [across, down] = self.share.map(|share| move |at| if share == 1.0 { at } else { map(at, share) });
        let [x1, y1, x2, y2] = corners;
        [across(x1), down(y1), across(x2), down(y2)]
    }
}

impl Keep for Seen {
    fn region(&self, index: usize, of: usize) -> &[f32] {
        share(&self.regions, index, index + 1, of)
    }

    fn part(&self, from: usize, to: usize, of: usize) -> Self {
        Self {
            regions: share(&self.regions, from, to, of).to_vec(),
            canvases: share(&self.canvases, from, to, of).to_vec(),
        }
    }

    fn join(parts: &[&Self]) -> Self {
        Self {
            regions: parts.iter().flat_map(|part| &part.regions).copied().collect(),
            canvases: parts.iter().flat_map(|part| &part.canvases).cloned().collect(),
        }
    }
}

/// The part of `all` that belongs to the regions `from..to` of `of`; canvases have equally many.
fn share<T>(all: &[T], from: usize, to: usize, of: usize) -> &[T] {
    let at = |region: usize| all.len() * region / of.max(1);
    all.get(at(from)..at(to)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: Size = Size { width: 512, height: 288 };

    #[test]
    fn looks_come_apart_and_together_again() {
        // Two canvases of two regions with three features each.
        let looked = |side: u32| Looked { place: OnFrame::new(Size::new(side, side), USUAL), cells: Arc::default() };
        let both = Seen { regions: (0..12u8).map(f32::from).collect(), canvases: vec![looked(32), looked(64)] };
        let parts = [both.part(0, 2, 4), both.part(2, 4, 4)];
        assert_eq!(parts[1].regions, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!(parts.each_ref().map(|part| part.canvases.len()), [1, 1]);
        assert_eq!(parts[1].canvases[0].place, both.canvases[1].place);
        assert_eq!(both.region(2, 4), [6.0, 7.0, 8.0]);
        let again = Seen::join(&[&parts[0], &parts[1]]);
        assert_eq!((again.regions, again.canvases.len()), (both.regions, 2));
        let empty = Seen { regions: vec![], canvases: vec![] };
        assert!(empty.region(0, 0).is_empty() && empty.part(0, 1, 1).canvases.is_empty());
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn another_canvas_lies_in_the_middle_of_the_frame() {
        let square = OnFrame::new(Size::new(384, 384), USUAL);
        assert_eq!(square.to_frame([0.0, 0.0, 1.0, 1.0]), [0.21875, 0.0, 0.78125, 1.0]);
        let flat = OnFrame::new(Size::new(1024, 288), USUAL);
        assert_eq!(flat.to_frame([0.0, 0.0, 1.0, 0.5]), [0.0, 0.25, 1.0, 0.5]);
        let usual = OnFrame::new(USUAL, USUAL);
        assert_eq!(usual.to_canvas([0.1, 0.2, 0.3, 0.7]), [0.1, 0.2, 0.3, 0.7]);
    }

    proptest! {
        #[test]
        fn places_survive_the_round_trip(w in 32u32..2000, h in 32u32..2000, corners in prop::array::uniform4(0.0f32..1.0)) {
            let place = OnFrame::new(Size::new(w, h), USUAL);
            for (was, is) in corners.iter().zip(place.to_canvas(place.to_frame(corners))) {
                prop_assert!((was - is).abs() < 1e-4);
            }
            prop_assert!(place.to_frame(corners).iter().all(|at| (0.0..=1.0).contains(at)));
        }
    }
}
