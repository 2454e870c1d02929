//! The quick way from 8-bit planar YUV, which is what nearly every decoder gives, to packed RGB on a canvas: each plane is
//! scaled by itself, then the small picture is converted. GStreamer's own converter unpacks the large picture first,
//! which costs several times as much. What becomes less than half as large is halved first, which a tenth of the time is enough for.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{CroppedImage, Image, ImageRef},
};
use gstreamer_video::{self as gst_video, prelude::*, video_frame::Readable};

use crate::types::{Letterbox, Size};

/// Fixed-point bits of the colour matrix: coefficients and samples both fit 16 bits, which plain SSE2 multiplies fast.
const BITS: i32 = 13;

/// Scales and converts pictures of one format into one place of a canvas.
pub(super) struct Planes {
    resizer: Resizer,
    options: ResizeOptions,
    /// The source's planes: Y, U, V.
    sources: [Source; 3],
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
        let (across, down) = subsampling(info.format())?;
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
            sources: [luma, chroma, chroma].map(|size| Source::new(size, view.inner)),
            scaled,
            matrix: Matrix::of(&info.colorimetry()),
            view,
            row: [(); 3].map(|()| vec![0; view.inner.width as usize]),
        })
    }

    /// Whether the picture has all the bytes that [`Planes::paint`] would read. Errors are for people.
    pub(super) fn check(frame: &gst_video::VideoFrame<Readable>) -> Result<(), String> {
        if subsampling(frame.format()).is_none() {
            return Ok(());
        }
        [0, 1, 2].into_iter().try_for_each(|component| plane(frame, component).map(drop))
    }

    /// Paints a picture; the borders of `canvas` stay as they are. Errors are for people.
    pub(super) fn paint(&mut self, frame: &gst_video::VideoFrame<Readable>, canvas: &mut [u8]) -> Result<(), String> {
        for (component, (source, scaled)) in (0u32..).zip(self.sources.iter_mut().zip(&mut self.scaled)) {
            let (bytes, stride) = plane(frame, component)?;
            let (bytes, stride, size) = source.halved(bytes, stride);
            let whole = ImageRef::new(stride, size.height, bytes, PixelType::U8).map_err(|e| e.to_string())?;
            // A view, not the options' crop: there, what fills up the rows would shine into the last column.
            let picture =
                CroppedImage::new(&whole, 0, 0, size.width, size.height).map_err(|error| error.to_string())?;
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

/// How many pixels across and down share a sample of colour; `None` for formats that need the general converter.
fn subsampling(format: gst_video::VideoFormat) -> Option<(u32, u32)> {
    use gst_video::VideoFormat::{I420, Y42b, Y444, Yv12};
    match format {
        I420 | Yv12 => Some((2, 2)),
        Y42b => Some((2, 1)),
        Y444 => Some((1, 1)),
        _ => None,
    }
}

/// A plane of the picture, and room for it at half its size, at a quarter, and so on.
struct Source {
    size: Size,
    halves: Vec<(Size, Vec<u8>)>,
}

impl Source {
    /// Halves as often as the plane stays at least as large as `target`, and its sides are even: half a pixel more or less
    /// would move what it shows.
    fn new(size: Size, target: Size) -> Self {
        let (mut halves, mut half) = (Vec::new(), size);
        while half.width.is_multiple_of(2)
            && half.height.is_multiple_of(2)
            && half.width >= 2 * target.width
            && half.height >= 2 * target.height
        {
            half = Size::new(half.width / 2, half.height / 2);
            halves.push((half, vec![0; half.area()]));
        }
        Self { size, halves }
    }

    /// The plane in `bytes`, rows `pitch` apart, as small as it is worth: its bytes, what its rows are apart, its size.
    fn halved<'a>(&'a mut self, bytes: &'a [u8], pitch: u32) -> (&'a [u8], u32, Size) {
        let (mut bytes, mut pitch, mut size) = (bytes, pitch, self.size);
        for (half, pixels) in &mut self.halves {
            halve(bytes, pitch as usize, half.width as usize, pixels);
            (bytes, pitch, size) = (pixels, half.width, *half);
        }
        (bytes, pitch, size)
    }
}

/// Means of 2×2 pixels, into rows of `width`.
fn halve(bytes: &[u8], pitch: usize, width: usize, out: &mut [u8]) {
    // Two bytes as one word: compilers make five times as fast code of it as of four bytes.
    let pair = |bytes: &[u8; 2]| {
        let word = u16::from_le_bytes(*bytes);
        (word & 0xff) + (word >> 8)
    };
    for (rows, out) in bytes.chunks_exact(2 * pitch).zip(out.chunks_exact_mut(width)) {
        let (upper, lower) = rows.split_at(pitch);
        for (out, (upper, lower)) in out.iter_mut().zip(upper.as_chunks().0.iter().zip(lower.as_chunks().0)) {
            #[expect(clippy::cast_possible_truncation, reason = "a mean of bytes")]
            let mean = ((pair(upper) + pair(lower) + 2) >> 2) as u8;
            *out = mean;
        }
    }
}

/// The rows of a plane and what they are apart. Those of the picture, whole: the last row of some decoders ends where its
/// pixels do.
fn plane(frame: &gst_video::VideoFrame<Readable>, component: u32) -> Result<(&[u8], u32), String> {
    let bytes = frame.comp_data(component).map_err(|_| "the decoder's picture lacks a plane".to_owned())?;
    let stride = frame.comp_stride(component).unsigned_abs();
    let needed = stride as usize * frame.comp_height(component) as usize;
    match bytes.get(..needed) {
        Some(rows) => Ok((rows, stride)),
        None => Err(format!("the decoder's plane has {} bytes instead of {needed}", bytes.len())),
    }
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
    use gstreamer as gst;
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

    #[test]
    fn halves_are_means_of_four_pixels_and_never_smaller_than_what_is_wanted() {
        let mut source = Source::new(Size::new(4, 4), Size::new(1, 1));
        // Two bytes of each row are none of the picture's.
        let rows = [[10, 20, 0, 0, 255, 255], [30, 41, 0, 4, 255, 255], [1; 6], [3; 6]].concat();
        assert_eq!(source.halved(&rows, 6), (&[8u8][..], 1, Size::new(1, 1)));
        assert_eq!(source.halves[0].1, [25, 1, 2, 2]);
        let halves = |source: [u32; 2], target: [u32; 2]| {
            Source::new(Size::new(source[0], source[1]), Size::new(target[0], target[1])).halves.len()
        };
        assert_eq!(halves([1280, 720], [416, 234]), 1);
        assert_eq!(halves([3840, 2160], [416, 234]), 3);
        assert_eq!(halves([1280, 720], [640, 360]), 1);
        assert_eq!(halves([1280, 720], [641, 360]), 0);
        assert_eq!(halves([1282, 722], [300, 170]), 1, "641 is odd");
    }

    #[test]
    fn a_halved_picture_lies_where_it_would_lie_otherwise() {
        // A bright square in a large picture, and where its middle comes to lie.
        super::super::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 2048, 1152).build().unwrap();
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        {
            let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
            map[..2048 * 1152].fill(16);
            map[2048 * 1152..].fill(128);
            for row in map[..2048 * 1152].chunks_exact_mut(2048).skip(400).take(40) {
                row[1200..1240].fill(235);
            }
        }
        let view = Letterbox::fit(Size::new(2048, 1152), 1.0, Size::new(512, 288));
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &info).unwrap();
        let mut planes = Planes::new(&info, view).unwrap();
        assert_eq!(planes.sources[0].halves.len(), 2);
        let mut canvas = vec![0; 512 * 288 * 3];
        planes.paint(&frame, &mut canvas).unwrap();
        let bright = |at: usize| f64::from(canvas[at * 3 + 1]);
        let total: f64 = (0..512 * 288).map(bright).sum();
        let middle =
            |of: fn(usize) -> usize| (0..512 * 288).map(|at| bright(at) * (of(at) as f64 + 0.5)).sum::<f64>() / total;
        let (x, y) = (middle(|at| at % 512), middle(|at| at / 512));
        assert!((x - 305.0).abs() < 0.02 && (y - 105.0).abs() < 0.02, "{x}, {y}");
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
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &info).unwrap();
        let mut quick = vec![0; 512 * 288 * 3];
        Planes::new(&info, view).unwrap().paint(&frame, &mut quick).unwrap();
        let mut general = super::super::canvas::general(view, &frame).unwrap();
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
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &info).unwrap();
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
