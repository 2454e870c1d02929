//! Pictures that come from files rather than cameras, put on the canvas by the very converter that cameras' pictures go
//! through, so that a model sees the same.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::canvas::{Painter, Placed};
use crate::types::{Canvases, Rgb, Size};

/// Paints pictures on canvases. GStreamer must have been started, by [`super::init`].
pub struct Stills(Painter);

impl Stills {
    /// For the canvases of a model.
    pub fn new(canvases: impl Into<Canvases>) -> Self {
        Self(Painter::new(canvases))
    }

    /// How `picture` lies on its canvas, the canvas, and the picture for crops. Errors are for people.
    pub fn place(&mut self, picture: &Rgb) -> Result<Placed, String> {
        self.0.place(&sample(picture)?)
    }
}

/// The picture as a decoder would give it.
fn sample(picture: &Rgb) -> Result<gst::Sample, String> {
    let Size { width, height } = picture.size;
    let impossible = || format!("a picture of {width}x{height} cannot be put on a canvas");
    let info =
        gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height).build().map_err(|_| impossible())?;
    let stride = usize::try_from(info.stride()[0]).map_err(|_| impossible())?;
    let row = width as usize * 3;
    // GStreamer pads rows to four bytes; ours are packed.
    let mut padded = vec![0; stride * height as usize];
    for (to, from) in padded.chunks_exact_mut(stride).zip(picture.data.chunks_exact(row)) {
        to[..row].copy_from_slice(from);
    }
    let caps = info.to_caps().map_err(|_| impossible())?;
    Ok(gst::Sample::builder().buffer(&gst::Buffer::from_mut_slice(padded)).caps(&caps).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BBox, Letterbox};

    /// Left half red, right half blue.
    fn halves(width: u32, height: u32) -> Rgb {
        let pixel = |i: u32| if i % width < width / 2 { [255, 0, 0] } else { [0, 0, 255] };
        let data: Vec<u8> = (0..width * height).flat_map(pixel).collect();
        Rgb::new(Size::new(width, height), data).unwrap()
    }

    fn at(picture: &Rgb, x: u32, y: u32) -> [u8; 3] {
        let i = ((y * picture.size.width + x) * 3) as usize;
        [picture.data[i], picture.data[i + 1], picture.data[i + 2]]
    }

    #[test]
    fn a_picture_lies_in_the_middle_of_its_canvas_and_can_be_cropped() {
        crate::ingest::init().unwrap();
        let mut stills = Stills::new(Size::new(64, 32));
        // Widths that are no multiple of four need padding; sizes change from picture to picture.
        for (width, height) in [(101, 99), (30, 30), (333, 333)] {
            let (view, canvas, full) = stills.place(&halves(width, height)).unwrap();
            assert_eq!(view, Letterbox::fit(Size::new(width, height), 1.0, Size::new(64, 32)));
            assert_eq!(
                [at(&canvas, 2, 16), at(&canvas, 20, 16), at(&canvas, 44, 16), at(&canvas, 62, 16)],
                [[0; 3], [255, 0, 0], [0, 0, 255], [0; 3]]
            );
            let right = BBox::new(width as f32 * 0.6, 0.0, width as f32, height as f32).unwrap();
            let crop = full.crop(&right, Size::new(10, 10)).unwrap();
            assert_eq!(at(&crop, 1, 5), [0, 0, 255]);
        }
    }
}
