//! A frame's pixels as a JPEG for people: the whole picture, small enough for a phone. Pure but for the thread:
//! it is slow enough to belong on a blocking one.

use std::sync::Arc;

use bytes::Bytes;
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::types::{BBox, Frame, Rgb, Size};

/// Longest side of a picture sent to a viewer.
const LONGEST: u32 = 960;
/// Good enough to judge a box by, half the bytes of 90.
const QUALITY: u8 = 78;
/// Box colours drawn here, by a query's place in the message (Okabe and Ito's, safe for colour-blind eyes).
const COLOURS: [[u8; 3]; 7] =
    [[86, 180, 233], [230, 159, 0], [0, 158, 115], [240, 228, 66], [204, 121, 167], [213, 94, 0], [255, 255, 255]];

/// A compressed picture.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    pub(super) jpeg: Bytes,
    pub(super) size: Size,
    /// Width over height as it should be shown: the source's pixels need not be square.
    pub(super) aspect: f32,
}

impl Picture {
    /// Compresses the picture of `frame`; `detections` (a published message) asks for its boxes to be drawn in.
    pub(super) fn of(frame: &Frame, detections: Option<&Value>) -> Result<Self, String> {
        let rgb = pixels(frame)?;
        let rgb = match detections {
            Some(message) => with_boxes(&rgb, frame.source(), message),
            None => rgb,
        };
        let mut jpeg = Vec::with_capacity(rgb.size.area() / 6);
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(&rgb.data, rgb.size.width, rgb.size.height, ExtendedColorType::Rgb8)
            .map_err(|e| format!("frame {} of camera {} cannot be compressed: {e}", frame.seq, frame.camera))?;
        let inner = frame.view.inner;
        let aspect = inner.width.max(1) as f32 / inner.height.max(1) as f32;
        Ok(Self { jpeg: jpeg.into(), size: rgb.size, aspect })
    }
}

/// The same on a blocking thread. The permit stays with the work, which goes on when the asker has gone.
pub(super) async fn encoded(
    permit: OwnedSemaphorePermit,
    frame: Arc<Frame>,
    detections: Option<Value>,
) -> Result<Picture, String> {
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        Picture::of(&frame, detections.as_ref())
    });
    work.await.map_err(|e| format!("the encoder failed: {e}"))?
}

/// The whole picture, from the decoder's copy where there is one, else from the model's canvas without its borders.
fn pixels(frame: &Frame) -> Result<Rgb, String> {
    let source = frame.source();
    let whole = BBox::new(0.0, 0.0, source.width as f32, source.height as f32);
    if let (Some(full), Some(whole)) = (&frame.full, whole) {
        match full.crop(&whole, shown_size(source)) {
            Ok(rgb) if rgb.size.area() > 0 => return Ok(rgb),
            Ok(_) => tracing::debug!(camera = %frame.camera, "the full picture is empty, showing the canvas"),
            Err(why) => tracing::debug!(camera = %frame.camera, why, "no full picture, showing the canvas"),
        }
    }
    let shown = frame.canvas.cut(&frame.view);
    shown.ok_or_else(|| format!("frame {} of camera {} has no pixels", frame.seq, frame.camera))
}

/// `source` scaled down, never up, so that its longest side is at most [`LONGEST`].
fn shown_size(source: Size) -> Size {
    let longest = source.width.max(source.height).max(1);
    if longest <= LONGEST {
        return source;
    }
    let scaled = |side: u32| (side * LONGEST / longest).max(1);
    Size::new(scaled(source.width), scaled(source.height))
}

/// `rgb` with the boxes of a detections message drawn in. A message of another shape draws nothing.
fn with_boxes(rgb: &Rgb, source: Size, message: &Value) -> Rgb {
    let mut data = rgb.data.to_vec();
    let scale =
        [rgb.size.width as f32 / source.width.max(1) as f32, rgb.size.height as f32 / source.height.max(1) as f32];
    let queries = message["queries"].as_array().into_iter().flatten();
    for (query, colour) in queries.zip(COLOURS.iter().cycle()) {
        for found in query["matches"].as_array().into_iter().flatten() {
            if let Some(corners) = corners(&found["box"], scale, rgb.size) {
                outline(&mut data, rgb.size, corners, *colour);
            }
        }
    }
    Rgb { size: rgb.size, data: data.into() }
}

/// A message's box in whole pixels of the picture.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to the picture before")]
fn corners(numbers: &Value, scale: [f32; 2], size: Size) -> Option<[u32; 4]> {
    let at = |i: usize| Some(numbers.get(i)?.as_f64()? as f32 * scale[i % 2]);
    let clipped = BBox::new(at(0)?, at(1)?, at(2)?, at(3)?)?.clipped(size)?;
    Some(clipped.corners().map(|v| v.round() as u32))
}

/// Draws a frame of two pixels inside `[x1, y1, x2, y2]`.
fn outline(data: &mut [u8], size: Size, [x1, y1, x2, y2]: [u32; 4], colour: [u8; 3]) {
    let thick = 2;
    for y in y1..y2.min(size.height) {
        let edge_row = y < y1 + thick || y + thick >= y2;
        for x in x1..x2.min(size.width) {
            if edge_row || x < x1 + thick || x + thick >= x2 {
                let at = (y as usize * size.width as usize + x as usize) * 3;
                data[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pictures_shrink_to_the_longest_side_and_never_grow() {
        assert_eq!(shown_size(Size::new(1920, 1080)), Size::new(960, 540));
        assert_eq!(shown_size(Size::new(1080, 1920)), Size::new(540, 960));
        assert_eq!(shown_size(Size::new(320, 240)), Size::new(320, 240));
        assert_eq!(shown_size(Size::new(100_000, 1)), Size::new(960, 1));
    }

    proptest! {
        #[test]
        fn any_box_is_drawn_inside_its_corners_and_nowhere_else(numbers in any::<[i16; 4]>()) {
            let size = Size::new(40, 30);
            let grey = Rgb::new(size, vec![9; size.area() * 3]).unwrap();
            let message = serde_json::json!({"queries": [{"matches": [{"box": numbers}]}]});
            let drawn = with_boxes(&grey, size, &message);
            let [x1, y1, x2, y2] = numbers.map(i64::from);
            for (i, pixel) in drawn.data.chunks(3).enumerate() {
                let (x, y) = (i64::try_from(i % 40).unwrap(), i64::try_from(i / 40).unwrap());
                let inside = x1 <= x && x < x2 && y1 <= y && y < y2;
                prop_assert!(pixel == [9, 9, 9] || inside, "{numbers:?} reached {x},{y}");
                let corner = (x, y) == (x1, y1) && inside;
                prop_assert!(!corner || pixel == COLOURS[0], "{numbers:?} has no corner");
            }
        }
    }
}
