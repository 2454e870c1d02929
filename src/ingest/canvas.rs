//! Decoded picture -> model canvas, and crops from the full-size picture.
//!
//! The converters are told where the picture goes (`Canvases::view`) instead of leaving the borders to an element: the
//! stock scaler rounds borders its own way, and then boxes would be off by a pixel.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer_video::{self as gst_video, VideoFrameExt as _, video_frame::Readable};

use super::planes::Planes;
use crate::types::{BBox, Canvas, Canvases, FullFrame, Letterbox, Rgb, Size, lock};

/// How a picture lies on its canvas, the canvas, and the picture itself.
pub(super) type Placed = (Letterbox, Canvas, Arc<dyn FullFrame>);

/// Canvases that are kept to be painted again: one in a batch, one with the subscribers, some to spare.
const POOL: usize = 6;

/// Puts one stream's pictures on canvases, to be painted when somebody looks; follows changes of size and format. Once it
/// has warmed up no picture costs memory that was not there before.
pub(super) struct Painter {
    canvases: Canvases,
    stream: Option<Arc<Stream>>,
}

/// What stays the same while the stream's caps do.
struct Stream {
    caps: gst::Caps,
    info: gst_video::VideoInfo,
    view: Letterbox,
    brush: Mutex<Brush>,
}

/// What paints, and canvases that may be painted again: the borders on them are of this stream.
struct Brush {
    way: Way,
    pool: Vec<Arc<[u8]>>,
}

/// How pictures get onto the canvas.
enum Way {
    /// Planar YUV of 8 bits.
    Quick(Box<Planes>),
    /// Everything else.
    General(General),
}

/// GStreamer's converter, told where the picture goes.
struct General {
    converter: gst_video::VideoConverter,
    target: gst_video::VideoInfo,
    /// What it converts into; kept, so that pictures allocate nothing.
    out: Option<gst::Buffer>,
}

impl Painter {
    pub(super) fn new(canvases: impl Into<Canvases>) -> Self {
        Self { canvases: canvases.into(), stream: None }
    }

    /// Puts `sample` on a canvas. What could go wrong when it is painted goes wrong now; errors are for people.
    pub(super) fn place(&mut self, sample: &gst::Sample) -> Result<Placed, String> {
        let (Some(caps), Some(buffer)) = (sample.caps(), sample.buffer_owned()) else {
            return Err("the decoder gave a picture without data or format".to_owned());
        };
        let stream = match &self.stream {
            Some(stream) if stream.caps.as_ref() == caps => stream,
            _ => self.stream.insert(Arc::new(Stream::new(caps, &self.canvases)?)),
        };
        let picture = Arc::new(Full(readable(buffer, &stream.info)?));
        Planes::check(&picture.0)?;
        let (painted, by) = (Arc::clone(&picture), Arc::clone(stream));
        Ok((stream.view, Canvas::later(move || by.paint(&painted.0)), picture))
    }
}

fn readable(buffer: gst::Buffer, info: &gst_video::VideoInfo) -> Result<gst_video::VideoFrame<Readable>, String> {
    gst_video::VideoFrame::from_buffer_readable(buffer, info)
        .map_err(|_| "the decoder's picture cannot be read".to_owned())
}

/// A canvas nobody else holds: one of the pool that has come back, with the picture it showed, else a new black one.
fn spare(pool: &mut Vec<Arc<[u8]>>, size: Size) -> Arc<[u8]> {
    match pool.iter_mut().position(|canvas| Arc::get_mut(canvas).is_some()) {
        Some(free) => pool.swap_remove(free),
        None => vec![0; size.area() * 3].into(),
    }
}

impl Stream {
    fn new(caps: &gst::CapsRef, canvases: &Canvases) -> Result<Self, String> {
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|_| format!("the decoder gave {caps}, which is not raw video in system memory"))?;
        let source = Size::new(info.width(), info.height());
        let view = canvases.view(source, pixel_aspect(&info));
        let way = match Planes::new(&info, view) {
            Some(planes) => Way::Quick(Box::new(planes)),
            None => Way::General(General::new(&info, view)?),
        };
        Ok(Self { caps: caps.to_owned(), info, view, brush: Mutex::new(Brush { way, pool: Vec::new() }) })
    }

    fn paint(&self, frame: &gst_video::VideoFrame<Readable>) -> Rgb {
        let mut brush = lock(&self.brush);
        let Brush { way, pool } = &mut *brush;
        let mut pixels = spare(pool, self.view.canvas);
        if let Some(bytes) = Arc::get_mut(&mut pixels)
            && let Err(reason) = way.paint(frame, bytes)
        {
            // All that can be wrong with a picture was looked for before; what is left is a lack of memory. Nothing is to be found
            // then: what the canvas showed before is not this picture.
            bytes.fill(0);
            tracing::error!(reason, "a picture could not be put on its canvas");
        }
        if pool.len() < POOL {
            pool.push(Arc::clone(&pixels));
        }
        Rgb { size: self.view.canvas, data: pixels }
    }
}

impl Way {
    fn paint(&mut self, frame: &gst_video::VideoFrame<Readable>, canvas: &mut [u8]) -> Result<(), String> {
        match self {
            Self::Quick(planes) => planes.paint(frame, canvas),
            Self::General(general) => {
                let out = convert(&general.converter, frame, &general.target, general.out.take())?;
                for (to, from) in canvas.chunks_exact_mut(row(&general.target)).zip(rows(&out)?) {
                    to.copy_from_slice(from);
                }
                general.out = Some(out.into_buffer());
                Ok(())
            }
        }
    }
}

impl General {
    fn new(info: &gst_video::VideoInfo, view: Letterbox) -> Result<Self, String> {
        let target = rgb_like(info, view.canvas)?;
        let mut config = config();
        config.set_dest_x(view.left.cast_signed());
        config.set_dest_y(view.top.cast_signed());
        config.set_dest_width(Some(view.inner.width.cast_signed()));
        config.set_dest_height(Some(view.inner.height.cast_signed()));
        config.set_fill_border(true);
        config.set_border_argb(0xff00_0000);
        Ok(Self { converter: converter(info, &target, config)?, target, out: None })
    }
}

/// A picture on its canvas by the general way: what the quick one is compared with.
#[cfg(test)]
pub(super) fn general(view: Letterbox, frame: &gst_video::VideoFrame<Readable>) -> Result<Vec<u8>, String> {
    let general = General::new(frame.info(), view)?;
    let out = convert(&general.converter, frame, &general.target, None)?;
    Ok(rows(&out)?.flatten().copied().collect())
}

/// The decoder's picture. It keeps one of the decoder's buffers alive.
struct Full(gst_video::VideoFrame<Readable>);

impl FullFrame for Full {
    /// Cuts `area` out exactly, to fractions of a pixel, and scales it to the largest picture of its shape (as seen:
    /// non-square pixels are put right) that fits `size`. There are no borders, so the result may be smaller than
    /// `size` in one direction.
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        let source = Size::new(self.0.width(), self.0.height());
        let area = area.clipped(source).ok_or_else(|| {
            format!("the crop {:?} lies outside the picture of {}x{}", area.corners(), source.width, source.height)
        })?;
        let window = Window::around(&area, source);
        let pixels = self.cut(&window)?;
        let [x1, y1, x2, y2] = area.corners();
        let (left, top) = (window.x as f32, window.y as f32);
        let (width, height) = (area.width() * pixel_aspect(self.0.info()), area.height());
        let scale = (size.width.max(1) as f32 / width).min(size.height.max(1) as f32 / height);
        let out = Size::new(whole(width * scale, size.width.max(1)), whole(height * scale, size.height.max(1)));
        let within = [x1 - left, y1 - top, x2 - left, y2 - top];
        // Whole pixels one to one, as of the whole picture in its own size: resampling would change nothing.
        let all = BBox::new(0.0, 0.0, out.width as f32, out.height as f32);
        let as_it_is = window.size == out && BBox::new(within[0], within[1], within[2], within[3]) == all;
        Ok(if as_it_is { pixels } else { resample(&pixels, within, out) })
    }
}

impl Full {
    /// The window as RGB, pixel for pixel.
    fn cut(&self, window: &Window) -> Result<Rgb, String> {
        let target = rgb_like(self.0.info(), window.size)?;
        let mut config = config();
        config.set_src_x(window.x.cast_signed());
        config.set_src_y(window.y.cast_signed());
        config.set_src_width(Some(window.size.width.cast_signed()));
        config.set_src_height(Some(window.size.height.cast_signed()));
        let converter = converter(self.0.info(), &target, config)?;
        let out = convert(&converter, &self.0, &target, None)?;
        let pixels: Vec<u8> = rows(&out)?.flatten().copied().collect();
        Rgb::new(window.size, pixels).ok_or_else(|| "the converter gave too few pixels".to_owned())
    }
}

/// Whole pixels around an area.
struct Window {
    x: u32,
    y: u32,
    size: Size,
}

impl Window {
    /// The smallest window that holds `area` and starts where chroma samples do, with a pixel to interpolate with.
    fn around(area: &BBox, source: Size) -> Self {
        let [x1, y1, x2, y2] = area.corners();
        let start = |v: f32, max: u32| whole(v.floor() - 1.0, max.saturating_sub(1)).saturating_sub(1) & !3;
        let (x, y) = (start(x1, source.width), start(y1, source.height));
        let end = |v: f32, from: u32, max: u32| whole(v.ceil() + 2.0, max).max(from + 1);
        let size = Size::new(end(x2, x, source.width) - x, end(y2, y, source.height) - y);
        Self { x, y, size }
    }
}

/// `v` as a whole number in `1..=max`.
fn whole(v: f32, max: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=max")]
    let v = v.round().clamp(1.0, max.max(1) as f32) as u32;
    v
}

fn pixel_aspect(info: &gst_video::VideoInfo) -> f32 {
    let par = info.par();
    if par.numer() > 0 && par.denom() > 0 { par.numer() as f32 / par.denom() as f32 } else { 1.0 }
}

/// Packed RGB of `size`, alike in what the converter cannot change.
fn rgb_like(info: &gst_video::VideoInfo, size: Size) -> Result<gst_video::VideoInfo, String> {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, size.width, size.height)
        .fps(info.fps())
        .interlace_mode(info.interlace_mode())
        .build()
        .map_err(|e| format!("no RGB picture of {}x{}: {e}", size.width, size.height))
}

/// Bilinear over all the pixels that fall into one, so that small things do not vanish between samples.
fn config() -> gst_video::VideoConverterConfig {
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    config
}

fn converter(
    from: &gst_video::VideoInfo,
    to: &gst_video::VideoInfo,
    config: gst_video::VideoConverterConfig,
) -> Result<gst_video::VideoConverter, String> {
    gst_video::VideoConverter::new(from, to, Some(config))
        .map_err(|e| format!("cannot convert {} {}x{}: {e}", from.name(), from.width(), from.height()))
}

/// Converts into `out` if there is one, else into new memory.
fn convert(
    converter: &gst_video::VideoConverter,
    from: &gst_video::VideoFrame<Readable>,
    target: &gst_video::VideoInfo,
    out: Option<gst::Buffer>,
) -> Result<gst_video::VideoFrame<gst_video::video_frame::Writable>, String> {
    let memory = || "no memory for a picture".to_owned();
    let out = out.map_or_else(|| gst::Buffer::with_size(target.size()), Ok).map_err(|_| memory())?;
    let mut out = gst_video::VideoFrame::from_buffer_writable(out, target).map_err(|_| memory())?;
    converter.frame_ref(&from.as_video_frame_ref(), &mut out.as_mut_video_frame_ref());
    Ok(out)
}

/// Bytes of a row of packed RGB.
fn row(info: &gst_video::VideoInfo) -> usize {
    info.width() as usize * 3
}

/// The rows of an RGB picture: GStreamer pads them to four bytes, ours are packed.
fn rows(
    frame: &gst_video::VideoFrame<gst_video::video_frame::Writable>,
) -> Result<impl Iterator<Item = &[u8]>, String> {
    let unread = || "the converted picture cannot be read".to_owned();
    let (info, bytes) = (frame.info(), frame.plane_data(0).map_err(|_| unread())?);
    let (stride, row) = (usize::try_from(info.stride()[0]).map_err(|_| unread())?, row(info));
    Ok(bytes.chunks(stride.max(1)).take(info.height() as usize).filter_map(move |line| line.get(..row)))
}

/// Scales the part `[x1, y1, x2, y2]` of `from` (fractions of pixels count) to `out`, with a triangle filter as wide
/// as a target pixel.
fn resample(from: &Rgb, [x1, y1, x2, y2]: [f32; 4], out: Size) -> Rgb {
    let (fw, fh) = (from.size.width as usize, from.size.height as usize);
    let columns = taps(x1, x2, out.width, fw);
    let rows = taps(y1, y2, out.height, fh);
    let mut wide = Vec::with_capacity(fh * columns.len() * 3);
    for row in from.data.chunks_exact(fw * 3) {
        for (start, weights) in &columns {
            let mut sum = [0.0f32; 3];
            for (pixel, w) in row[start * 3..].as_chunks::<3>().0.iter().zip(weights) {
                for (s, v) in sum.iter_mut().zip(pixel) {
                    *s += f32::from(*v) * w;
                }
            }
            wide.extend(sum);
        }
    }
    let pitch = columns.len() * 3;
    let mut data = Vec::with_capacity(rows.len() * pitch);
    for (start, weights) in &rows {
        let mut line = vec![0.0f32; pitch];
        for (row, w) in wide[start * pitch..].chunks_exact(pitch).zip(weights) {
            for (s, v) in line.iter_mut().zip(row) {
                *s += v * w;
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
        data.extend(line.iter().map(|v| v.round().clamp(0.0, 255.0) as u8));
    }
    Rgb { size: out, data: data.into() }
}

/// For each of `count` target pixels over `from..to`: the first source pixel and the weights from there on.
fn taps(from: f32, to: f32, count: u32, len: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = (to - from) / count as f32;
    let reach = scale.max(1.0);
    let tap = |i: u32| {
        let center = from + (i as f32 + 0.5) * scale;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the source")]
        let at = |v: f32| v.clamp(0.0, len as f32 - 1.0) as usize;
        let (first, last) = (at((center - reach).floor()), at((center + reach).ceil()));
        let mut weights: Vec<f32> =
            (first..=last).map(|p| (1.0 - (p as f32 + 0.5 - center).abs() / reach).max(0.0)).collect();
        let sum: f32 = weights.iter().sum();
        if sum > 0.0 {
            for w in &mut weights {
                *w /= sum;
            }
        } else {
            weights = vec![1.0];
        }
        (first, weights)
    };
    (0..count).map(tap).collect()
}
