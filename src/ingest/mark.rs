//! A number drawn into every picture of a served clip, so that whoever sees the picture, through whatever program and
//! however late, can say which one it was. For measurements.
//!
//! Along the top edge, from the left, lie [`BITS`] squares of [`SQUARE`] pixels, the lowest bit first and white for 1;
//! then the same squares inverted, so that a picture without a number is not mistaken for one with it.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use gstreamer as gst;
use gstreamer_video::{self as gst_video, prelude::*};

use super::{IngestError, launched::Launched};
use crate::types::Rgb;

/// Decodes a clip and encodes it again, as cameras do: no reordering, one slice, a keyframe every 15 pictures.
const NUMBERED: &str = "filesrc name=source ! \
    decodebin force-sw-decoders=true expose-all-streams=false caps=video/x-raw(ANY) ! videoconvert ! \
    video/x-raw,format=I420 ! identity name=mark ! \
    x264enc tune=zerolatency speed-preset=veryfast threads=1 pass=qual quantizer=23 key-int-max=15 ! \
    video/x-h264,profile=main ! h264parse ! matroskamux ! filesink name=sink";

/// Bits of a number: numbers count from 0 and wrap at [`NUMBERS`].
pub const BITS: u32 = 10;
/// How many pictures can be told apart.
pub const NUMBERS: u64 = 1 << BITS;
/// Side of a square in pixels: whole macroblocks, which survive any compression worth the name.
pub const SQUARE: u32 = 16;

const WHITE: u8 = 235;
const BLACK: u8 = 16;
const GREY: u8 = 128;

/// A clip that is not through by then is too long to be played as a camera.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(600);

/// Width of the whole mark in pixels.
const WIDTH: u32 = 2 * BITS * SQUARE;

/// Writes a copy of the clip at `from`, H.264 in Matroska, with a number in every picture that is large enough.
pub fn number(from: &Path, into: &Path) -> Result<(), IngestError> {
    super::init()?;
    let wrong = |what| IngestError::Server(format!("number the pictures of {}: {what}", from.display()));
    write(from, into).map_err(wrong)
}

fn write(from: &Path, into: &Path) -> Result<(), String> {
    let launched = Launched::new(NUMBERED)?;
    let element = |name| launched.element::<gst::Element>(name);
    element("source")?.set_property("location", from.to_string_lossy().as_ref());
    element("sink")?.set_property("location", into.to_string_lossy().as_ref());
    let pad = element("mark")?.static_pad("src").ok_or("no pictures")?;
    let count = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let video = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        if let (Some(buffer), Some(video)) = (info.buffer_mut(), video) {
            draw(buffer.make_mut(), &video, count.fetch_add(1, Ordering::Relaxed));
        }
        gst::PadProbeReturn::Ok
    });
    launched.play("it cannot be read")?;
    let bus = launched.pipeline().bus().ok_or("no bus")?;
    let end = bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Eos, gst::MessageType::Error]);
    match end.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(e)) => Err(e.error().message().to_owned()),
        _ => Err("it takes too long; use a shorter clip".to_owned()),
    }
}

/// Draws `number` into an I420 picture; `false` if it is too small for it.
fn draw(buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo, number: u64) -> bool {
    let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info) else { return false };
    if frame.width() < WIDTH || frame.height() < SQUARE {
        return false;
    }
    let strides = [0, 1, 2].map(|plane: usize| usize::try_from(frame.plane_stride()[plane]).unwrap_or(0));
    for square in 0..2 * BITS {
        let luma = if bit(number, square) { WHITE } else { BLACK };
        fill(&mut frame, strides, square, luma);
    }
    true
}

/// Whether a square of `number`'s mark is white.
fn bit(number: u64, square: u32) -> bool {
    let set = number >> (square % BITS) & 1 == 1;
    set == (square < BITS)
}

fn fill(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>, strides: [usize; 3], square: u32, luma: u8) {
    for (plane, value) in [(0u32, luma), (1, GREY), (2, GREY)] {
        let side = if plane == 0 { SQUARE } else { SQUARE / 2 } as usize;
        let left = square as usize * side;
        let stride = strides[plane as usize];
        let Ok(bytes) = frame.plane_data_mut(plane) else { return };
        for row in bytes.chunks_mut(stride.max(1)).take(side) {
            if let Some(part) = row.get_mut(left..left + side) {
                part.fill(value);
            }
        }
    }
}

/// The number in a full-size picture; `None` if it carries none.
pub fn read(picture: &Rgb) -> Option<u64> {
    let (width, height) = (picture.size.width, picture.size.height);
    if width < WIDTH || height < SQUARE {
        return None;
    }
    let centre = |square: u32| {
        let (x, y) = ((square * SQUARE + SQUARE / 2) as usize, (SQUARE / 2) as usize);
        picture.data.get((y * width as usize + x) * 3 + 1).is_some_and(|green| *green >= GREY)
    };
    let number = (0..BITS).filter(|square| centre(*square)).map(|square| 1 << square).sum();
    (0..2 * BITS).all(|square| centre(square) == bit(number, square)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Size;

    #[test]
    fn what_is_drawn_is_read_and_a_bare_picture_has_no_number() {
        super::super::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 640, 360).build().unwrap();
        let size = Size::new(640, 360);
        for number in [0, 1, 5, 299, 1023] {
            let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
            assert!(draw(buffer.get_mut().unwrap(), &info, number));
            let map = buffer.map_readable().unwrap();
            let grey: Vec<u8> = map[..640 * 360].iter().flat_map(|luma| [*luma; 3]).collect();
            assert_eq!(read(&Rgb::new(size, grey).unwrap()), Some(number));
        }
        assert_eq!(read(&Rgb::new(size, vec![200; size.area() * 3]).unwrap()), None);
        let small = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 160, 120).build().unwrap();
        let mut buffer = gst::Buffer::with_size(small.size()).unwrap();
        assert!(!draw(buffer.get_mut().unwrap(), &small, 1));
    }
}
