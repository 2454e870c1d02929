//! The quick way from 8-bit planar YUV, which is what nearly every decoder gives, to packed RGB on a canvas: each plane is
//! scaled by itself, then the small picture is converted. GStreamer's own converter unpacks the large picture first,
//! which costs several times as much.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{CroppedImage, Image, ImageRef},
};
use gstreamer as gst;
use gstreamer_video::{self as gst_video, prelude::*};

use crate::types::{Letterbox, Size};

/// Fixed-point bits of the colour matrix: coefficients and samples both fit 16 bits, which plain SSE2 multiplies fast.
const BITS: i32 = 13;

/// Scales and converts pictures of one format into one place of a canvas.
pub(super) struct Planes {
    resizer: Resizer,
    options: ResizeOptions,
    /// Sizes of the source's planes: Y, U, V.
    sources: [Size; 3],
    /// The planes, scaled.
    scaled: [Image<'static>; 3],
    matrix: Matrix,
    view: Letterbox,
    /// One row of each colour.
    row: [Vec<u8>; 3],
}

impl Planes {
    /// `None` for formats that need the general converter.
    pub(super) fn new(info: &gst_video::VideoInfo, view: Letterbox) -> Option<Self> {
        use gst_video::VideoFormat::{I420, Y42b, Y444, Yv12};
        let (across, down) = match info.format() {
            I420 | Yv12 => (2, 2),
            Y42b => (2, 1),
            Y444 => (1, 1),
            _ => return None,
        };
        if info.interlace_mode() != gst_video::VideoInterlaceMode::Progressive {
            return None;
        }
        let luma = Size::new(info.width(), info.height());
        let chroma = Size::new(luma.width.div_ceil(across), luma.height.div_ceil(down));
        let scaled = [(); 3].map(|()| Image::new(view.inner.width, view.inner.height, PixelType::U8));
        Some(Self {
            resizer: Resizer::new(),
            // A triangle as wide as a target pixel, so that small things do not vanish between samples.
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)),
            sources: [luma, chroma, chroma],
            scaled,
            matrix: Matrix::of(&info.colorimetry()),
            view,
            row: [(); 3].map(|()| vec![0; view.inner.width as usize]),
        })
    }

    /// Paints a picture; the borders of `canvas` stay as they are. Errors are for people.
    pub(super) fn paint(
        &mut self,
        frame: &gst_video::VideoFrameRef<&gst::BufferRef>,
        canvas: &mut [u8],
    ) -> Result<(), String> {
        for (component, (source, scaled)) in (0u32..).zip(self.sources.iter().zip(&mut self.scaled)) {
            let bytes = frame.comp_data(component).map_err(|_| "the decoder's picture lacks a plane".to_owned())?;
            let stride = frame.comp_stride(component).unsigned_abs();
            let whole = ImageRef::new(stride, source.height, rows(bytes, stride, source.height)?, PixelType::U8)
                .map_err(|e| e.to_string())?;
            // A view, not the options' crop: there, what fills up the rows would shine into the last column.
            let picture =
                CroppedImage::new(&whole, 0, 0, source.width, source.height).map_err(|error| error.to_string())?;
            self.resizer
                .resize(&picture, scaled, &self.options)
                .map_err(|e| format!("the picture cannot be scaled: {e}"))?;
        }
        self.convert(canvas);
        Ok(())
    }

    fn convert(&mut self, canvas: &mut [u8]) {
        let width = self.view.inner.width as usize;
        let pitch = self.view.canvas.width as usize * 3;
        let start = self.view.left as usize * 3;
        let [luma, cb, cr] = self.scaled.each_ref().map(|plane| plane.buffer().chunks_exact(width));
        let targets = canvas.chunks_exact_mut(pitch).skip(self.view.top as usize);
        for (((luma, cb), cr), target) in luma.zip(cb).zip(cr).zip(targets) {
            self.matrix.row([luma, cb, cr], &mut self.row);
            let [red, green, blue] = &self.row;
            let pixels = target[start..start + width * 3].as_chunks_mut::<3>().0;
            for (((pixel, red), green), blue) in pixels.iter_mut().zip(red).zip(green).zip(blue) {
                *pixel = [*red, *green, *blue];
            }
        }
    }
}

/// Whole rows of a plane; the last row of some decoders ends where its pixels do.
fn rows(bytes: &[u8], stride: u32, height: u32) -> Result<&[u8], String> {
    let needed = stride as usize * height as usize;
    bytes.get(..needed).ok_or_else(|| format!("the decoder's plane has {} bytes instead of {needed}", bytes.len()))
}

/// YUV to RGB, as the stream's colorimetry says: ITU-R BT.601, BT.709, BT.2020 and their ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Matrix {
    /// What black is.
    floor: i16,
    /// Coefficients in [`BITS`] fixed point: Y, V to red, U to green, V to green, U to blue.
    luma: i16,
    red_v: i16,
    green_u: i16,
    green_v: i16,
    blue_u: i16,
}

impl Matrix {
    fn of(colorimetry: &gst_video::VideoColorimetry) -> Self {
        let (kr, kb) = match colorimetry.matrix() {
            gst_video::VideoColorMatrix::Bt709 => (0.2126, 0.0722),
            gst_video::VideoColorMatrix::Bt2020 => (0.2627, 0.0593),
            gst_video::VideoColorMatrix::Smpte240m => (0.212, 0.087),
            gst_video::VideoColorMatrix::Fcc => (0.30, 0.11),
            _ => (0.299, 0.114),
        };
        Self::new(kr, kb, colorimetry.range() == gst_video::VideoColorRange::Range0_255)
    }

    fn new(kr: f64, kb: f64, full: bool) -> Self {
        let kg = 1.0 - kr - kb;
        let (y, c) = if full { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        #[expect(clippy::cast_possible_truncation, reason = "all are below 4 in 13 bits")]
        let fixed = |v: f64| (v * f64::from(1 << BITS)).round() as i16;
        Self {
            floor: if full { 0 } else { 16 },
            luma: fixed(y),
            red_v: fixed(2.0 * (1.0 - kr) * c),
            green_u: fixed(2.0 * (1.0 - kb) * kb / kg * c),
            green_v: fixed(2.0 * (1.0 - kr) * kr / kg * c),
            blue_u: fixed(2.0 * (1.0 - kb) * c),
        }
    }

    /// Converts a row of Y, U and V to red, green and blue; all have its length.
    fn row(&self, [luma, cb, cr]: [&[u8]; 3], [red, green, blue]: &mut [Vec<u8>; 3]) {
        let times = |sample: i16, factor: i16| i32::from(sample) * i32::from(factor);
        let byte = |sum: i32| {
            #[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
            let byte = ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8;
            byte
        };
        let targets = red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut());
        for (((luma, cb), cr), ((red, green), blue)) in luma.iter().zip(cb).zip(cr).zip(targets) {
            let (cb, cr) = (i16::from(*cb) - 128, i16::from(*cr) - 128);
            let luma = times(i16::from(*luma) - self.floor, self.luma);
            *red = byte(luma + times(cr, self.red_v));
            *green = byte(luma - times(cb, self.green_u) - times(cr, self.green_v));
            *blue = byte(luma + times(cb, self.blue_u));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn black_white_and_the_primaries_come_out_as_they_should() {
        // BT.709, studio range: values from the standard's own equations.
        let matrix = Matrix::new(0.2126, 0.0722, false);
        for (yuv, rgb) in [
            ([16, 128, 128], [0, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([63, 102, 240], [255, 0, 0]),
            ([173, 42, 26], [0, 255, 0]),
            ([32, 240, 118], [0, 0, 255]),
        ] {
            let mut out = [vec![0], vec![0], vec![0]];
            let [y, u, v] = yuv.map(|b: u8| [b]);
            matrix.row([&y, &u, &v], &mut out);
            for (got, wanted) in out.iter().zip(rgb) {
                assert!(got[0].abs_diff(wanted) <= 2, "{yuv:?}: {out:?}, not {rgb:?}");
            }
        }
    }

    /// A random I420 picture, as the general converter and as this one paint it.
    fn both(width: u32, height: u32, seed: u64) -> (Letterbox, Vec<u8>, Vec<u8>) {
        super::super::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).build().unwrap();
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        {
            let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
            // Smooth, as pictures are: the two differ in how they treat chroma between its samples.
            let wave = |at: usize, of: usize, turns: f64| (at as f64 / of as f64 * turns + seed as f64).sin() * 30.0;
            for plane in 0..3 {
                let pitch = usize::try_from(info.stride()[plane]).unwrap();
                let rows = info.comp_height(u8::try_from(plane).unwrap()) as usize;
                let pixels = &mut map[info.offset()[plane]..][..pitch * rows];
                for (y, row) in pixels.chunks_exact_mut(pitch).enumerate() {
                    for (x, byte) in row.iter_mut().enumerate() {
                        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "68 to 188")]
                        let value = (128.0 + wave(x, pitch, 9.0 + plane as f64) + wave(y, rows, 7.0)) as u8;
                        *byte = value;
                    }
                }
            }
        }
        let view = Letterbox::fit(Size::new(width, height), 1.0, Size::new(512, 288));
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).unwrap();
        let mut quick = vec![0; 512 * 288 * 3];
        Planes::new(&info, view).unwrap().paint(&frame, &mut quick).unwrap();
        let mut general = super::super::canvas::general(&info, view, &buffer).unwrap();
        general.truncate(quick.len());
        (view, quick, general)
    }

    #[test]
    fn what_fills_up_the_rows_is_not_seen() {
        super::super::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 854, 482).build().unwrap();
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        {
            let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
            for (plane, black) in [(0u8, 16), (1, 128), (2, 128)] {
                let pitch = usize::try_from(info.stride()[usize::from(plane)]).unwrap();
                let (width, rows) = (info.comp_width(plane) as usize, info.comp_height(plane) as usize);
                assert!(width < pitch, "nothing fills up the rows of plane {plane}");
                for row in map[info.offset()[usize::from(plane)]..][..pitch * rows].chunks_exact_mut(pitch) {
                    row[..width].fill(black);
                    row[width..].fill(255);
                }
            }
        }
        let view = Letterbox::fit(Size::new(854, 482), 1.0, Size::new(512, 288));
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).unwrap();
        let mut canvas = vec![0; 512 * 288 * 3];
        Planes::new(&info, view).unwrap().paint(&frame, &mut canvas).unwrap();
        assert_eq!(canvas.iter().max(), Some(&0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn it_paints_what_gstreamer_paints(width in 16u32..900, height in 16u32..900, seed in 0u64..50) {
            let (view, quick, general) = both(width * 2, height * 2, seed);
            let error: f64 =
                quick.iter().zip(&general).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / quick.len() as f64;
            // Of 60 pictures 2.4 was the most.
            prop_assert!(error < 4.0, "{error} levels apart on average, {view:?}");
            let Letterbox { left, top, inner, .. } = view;
            let border = |pixels: &[u8]| {
                (0u32..).zip(pixels.chunks_exact(3)).all(|(at, pixel)| {
                    let (x, y) = (at % 512, at / 512);
                    let is_inside = (left..left + inner.width).contains(&x) && (top..top + inner.height).contains(&y);
                    is_inside || pixel == [0; 3]
                })
            };
            prop_assert!(border(&quick) && border(&general), "something lies beside the picture, {view:?}");
        }
    }
}
