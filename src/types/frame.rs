//! One decoded picture of one camera, on its way through the daemon.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use super::{BBox, CameraId, Letterbox, Size, Ticket};

/// Packed 8-bit RGB, rows from top to bottom without padding: `width * height * 3` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Width and height in pixels.
    pub size: Size,
    /// The bytes; shared, never changed.
    pub data: Arc<[u8]>,
}

impl Rgb {
    /// Wraps `data`; `None` unless it is exactly `width * height * 3` bytes.
    pub fn new(size: Size, data: impl Into<Arc<[u8]>>) -> Option<Self> {
        let data = data.into();
        (data.len() == size.area() * 3).then_some(Self { size, data })
    }

    /// The picture that lies on this canvas, without the black around it; `None` unless this is the canvas that `view` tells of.
    pub fn cut(&self, view: &Letterbox) -> Option<Self> {
        let mut bytes = Vec::with_capacity(view.inner.area() * 3);
        self.cut_into(view, &mut bytes);
        Self::new(view.inner, bytes)
    }

    /// The bytes of that picture, into `out`; fewer than there should be if `view` tells of another canvas.
    pub fn cut_into(&self, view: &Letterbox, out: &mut Vec<u8>) {
        let Letterbox { left, top, inner, .. } = *view;
        let rows = self.data.chunks_exact((self.size.width as usize * 3).max(1));
        let columns = left as usize * 3..(left + inner.width) as usize * 3;
        out.clear();
        for row in rows.skip(top as usize).take(inner.height as usize) {
            out.extend_from_slice(row.get(columns.clone()).unwrap_or_default());
        }
    }

    /// This picture on a black canvas, on which it has room; its upper left corner lies there.
    #[must_use]
    pub fn laid(&self, canvas: Size, [left, top]: [u32; 2]) -> Self {
        let mut data = vec![0; canvas.area() * 3];
        let (pitch, row, at) = (canvas.width as usize * 3, self.size.width as usize * 3, left as usize * 3);
        let rows = data.chunks_exact_mut(pitch.max(1)).skip(top as usize);
        for (to, from) in rows.zip(self.data.chunks_exact(row.max(1))) {
            to[at..at + row].copy_from_slice(from);
        }
        Self { size: canvas, data: data.into() }
    }
}

impl fmt::Debug for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rgb({}x{})", self.size.width, self.size.height)
    }
}

/// What the model sees of a picture. It is painted at the latest when somebody looks: where a camera is faster than the model,
/// most pictures make room for newer ones before anybody does. Cheap to clone.
#[derive(Clone)]
pub struct Canvas(Arc<LazyLock<Rgb, Paint>>);

type Paint = Box<dyn FnOnce() -> Rgb + Send>;

impl Canvas {
    /// A canvas that `paint` will paint.
    pub fn later(paint: impl FnOnce() -> Rgb + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(paint))))
    }

    /// Whether it is painted.
    pub fn is_painted(&self) -> bool {
        LazyLock::get(&self.0).is_some()
    }

    /// Has it painted, unless it is.
    pub fn paint(&self) {
        LazyLock::force(&self.0);
    }
}

impl From<Rgb> for Canvas {
    /// A canvas that is painted already.
    fn from(painted: Rgb) -> Self {
        Self::later(move || painted)
    }
}

impl Deref for Canvas {
    type Target = Rgb;

    fn deref(&self) -> &Rgb {
        &self.0
    }
}

impl fmt::Debug for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canvas")
    }
}

/// Whose clock stamped a capture time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The sender's, carried by RTCP sender reports.
    Ntp,
    /// Ours, when the data arrived: the sender gave none.
    Arrival,
}

/// When the picture was taken, as well as can be known.
#[derive(Debug, Clone, Copy)]
pub struct Capture {
    /// Wall-clock time of capture.
    pub at: SystemTime,
    /// Who says so.
    pub clock: Clock,
}

/// The decoder's full-size picture, kept by reference so that crops cost nothing until somebody asks for one.
pub trait FullFrame: Send + Sync {
    /// Cuts `area` (source pixels) out and scales it to fit `size`. Errors are for people.
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String>;
}

/// One picture to analyse. It is shared by `Arc`, settled exactly once through its [`Ticket`].
pub struct Frame {
    /// Which camera took it.
    pub camera: CameraId,
    /// The address it came from, as a number: of what a camera showed at one nothing holds at another.
    pub origin: u64,
    /// Counts the camera's frames from 0 since the daemon started, across reconnects; gaps are dropped frames.
    pub seq: u64,
    /// Capture time and its clock.
    pub capture: Capture,
    /// Presentation time in the stream.
    pub pts: Duration,
    /// When the decoded picture reached us: staleness is measured from `decoded_at - decode_time`.
    pub decoded_at: Instant,
    /// From the encoded data's arrival to the decoded picture.
    pub decode_time: Duration,
    /// How the source lies on the canvas.
    pub view: Letterbox,
    /// The canvas the model sees.
    pub canvas: Canvas,
    /// The full-size picture for crops; `None` where the source cannot keep one.
    pub full: Option<Arc<dyn FullFrame>>,
    /// The account this frame must be settled with.
    pub ticket: Ticket,
}

impl Frame {
    /// When the encoded data arrived here: what deadlines count from.
    pub fn arrived_at(&self) -> Instant {
        self.decoded_at.checked_sub(self.decode_time).unwrap_or(self.decoded_at)
    }

    /// Size of the source picture: what boxes are given in.
    pub fn source(&self) -> Size {
        self.view.source
    }
}

#[cfg(test)]
impl Frame {
    /// A frame of a `source`, black on a canvas of `canvas`: what tests change of it they say.
    pub(crate) fn black(camera: &str, ledger: &Arc<super::Ledger>, source: Size, canvas: Size) -> Self {
        Self {
            camera: CameraId::new(camera).unwrap(),
            origin: 0,
            seq: 0,
            capture: Capture { at: SystemTime::UNIX_EPOCH, clock: Clock::Arrival },
            pts: Duration::ZERO,
            decoded_at: Instant::now(),
            decode_time: Duration::ZERO,
            view: Letterbox::fit(source, 1.0, canvas),
            canvas: Rgb { size: canvas, data: vec![0; canvas.area() * 3].into() }.into(),
            full: None,
            ticket: ledger.open(),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} #{} {}x{})", self.camera, self.seq, self.source().width, self.source().height)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn a_canvas_loses_its_borders_and_gets_them_again() {
        let size = Size::new(6, 2);
        let data: Vec<u8> = (0..12u8).flat_map(|i| [i; 3]).collect();
        let canvas = Rgb::new(size, data).unwrap();
        let view = Letterbox::fit(Size::new(20, 20), 1.0, size);
        let got = canvas.cut(&view).unwrap();
        assert_eq!((got.size, &*got.data), (Size::new(2, 2), &[[2; 3], [3; 3], [8; 3], [9; 3]].concat()[..]));
        let again = got.laid(size, [view.left, view.top]);
        assert_eq!(
            (again.size, &*again.data),
            (size, &[0, 0, 2, 3, 0, 0, 0, 0, 8, 9, 0, 0].map(|v| [v; 3]).concat()[..])
        );
        assert_eq!(Rgb::new(Size::new(3, 1), vec![0; 9]).unwrap().cut(&view), None);
    }

    #[test]
    fn a_canvas_is_painted_once_and_only_if_somebody_looks() {
        let painted = Arc::new(AtomicU32::new(0));
        let canvas = || {
            let painted = Arc::clone(&painted);
            Canvas::later(move || {
                painted.fetch_add(1, Relaxed);
                Rgb { size: Size::new(1, 1), data: vec![7; 3].into() }
            })
        };
        drop(canvas());
        assert_eq!(painted.load(Relaxed), 0);
        let seen = canvas();
        let other = seen.clone();
        assert!(!other.is_painted());
        seen.paint();
        assert!(other.is_painted());
        assert_eq!((seen.data[0], other.data[2], painted.load(Relaxed)), (7, 7, 1));
    }
}
