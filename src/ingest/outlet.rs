//! What a source offers pictures to: it turns them into numbered, accounted frames and puts them into the slot.
//!
//! An outlet outlives connections; each connection gets its own view of it ([`Outlet::next_run`]), so that a
//! connection that was given up cannot add pictures later.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time};

use super::{
    pace::{Due, Pace},
    slot::{Flow, Policy, Slot},
};
use crate::types::{CameraId, Canvas, Canvases, Capture, Frame, FullFrame, Ledger, Letterbox, lock};

/// What all cameras count from, and how many there have been: their beats are spread by it.
static SHARED_START: LazyLock<Instant> = LazyLock::new(Instant::now);
static CAMERAS: AtomicU32 = AtomicU32::new(0);

/// A frame before it has a number and an account.
pub struct Picture {
    /// Capture time and its clock.
    pub capture: Capture,
    /// Presentation time in the stream.
    pub pts: Duration,
    /// When the decoded picture was there.
    pub decoded_at: Instant,
    /// From the encoded data's arrival to then.
    pub decode_time: Duration,
    /// How the source lies on the canvas.
    pub view: Letterbox,
    /// What the model sees.
    pub canvas: Canvas,
    /// The full-size picture.
    pub full: Option<Arc<dyn FullFrame>>,
}

/// What a source offers its pictures to. Cheap to clone.
#[derive(Clone)]
pub struct Outlet {
    camera: Arc<CameraOutlet>,
    run: Arc<Run>,
}

/// What stays the same across connections.
#[derive(Clone)]
struct CameraOutlet {
    id: CameraId,
    /// See [`Frame::origin`].
    origin: u64,
    canvases: Canvases,
    policy: Policy,
    pace: Pace,
    /// Threads for a software decoder; 0 leaves it to the decoder.
    decoder_threads: u32,
    slot: Arc<Slot>,
    ledger: Arc<Ledger>,
    /// Held by every attempt to open the camera until nothing is left of it.
    attempts: Arc<()>,
}

/// What belongs to one connection.
struct Run {
    /// By the clock that tests stop.
    started: time::Instant,
    /// Milliseconds from `started` to the newest sign of life, plus one; 0 is none yet.
    last: AtomicU64,
    /// The producer is waiting for room, so the lack of pictures is our doing.
    waiting: AtomicBool,
    retired: AtomicBool,
    offered: AtomicBool,
    first: Notify,
    due: Mutex<Due>,
}

impl Outlet {
    /// The outlet of camera `id`, whose frames go to `slot` and are accounted in `ledger`.
    pub fn new(
        id: CameraId,
        canvases: impl Into<Canvases>,
        policy: Policy,
        fps: Option<f32>,
        slot: Arc<Slot>,
        ledger: Arc<Ledger>,
    ) -> Self {
        // Where every picture is wanted nothing is looked at by the clock, and the same file gives the same pictures.
        let live = !matches!(policy, Policy::Every { .. });
        let pace = Pace::new(fps, live.then(|| CAMERAS.fetch_add(1, SeqCst)));
        let attempts = Arc::default();
        let canvases = canvases.into();
        let camera = CameraOutlet { id, origin: 0, canvases, policy, pace, decoder_threads: 0, slot, ledger, attempts };
        Self { camera: Arc::new(camera), run: Arc::new(Run::new()) }
    }

    /// The same for a source whose software decoder shall have this many threads.
    #[must_use]
    pub fn with_decoder_threads(self, decoder_threads: u32) -> Self {
        self.with(|camera| camera.decoder_threads = decoder_threads)
    }

    /// The same for pictures that come from this address.
    #[must_use]
    pub fn of_address(self, uri: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        uri.hash(&mut hasher);
        self.with(|camera| camera.origin = hasher.finish())
    }

    fn with(self, change: impl FnOnce(&mut CameraOutlet)) -> Self {
        let mut camera = CameraOutlet { attempts: Arc::default(), ..CameraOutlet::clone(&self.camera) };
        change(&mut camera);
        Self { camera: Arc::new(camera), run: self.run }
    }

    /// Threads that a software decoder shall have; 0 leaves it to the decoder.
    pub fn decoder_threads(&self) -> u32 {
        self.camera.decoder_threads
    }

    /// The outlet for the next connection; the present one is retired.
    #[must_use]
    pub fn next_run(&self) -> Self {
        self.retire();
        Self { camera: Arc::clone(&self.camera), run: Arc::new(Run::new()) }
    }

    /// Refuses whatever this connection still has to offer.
    pub fn retire(&self) {
        self.run.retired.store(true, SeqCst);
    }

    /// The camera's name.
    pub fn camera(&self) -> &CameraId {
        &self.camera.id
    }

    /// What the pictures to offer are laid on.
    pub fn canvases(&self) -> &Canvases {
        &self.camera.canvases
    }

    /// Whether no picture may be lost, so that the source must wait for us rather than for the clock.
    pub fn wants_every(&self) -> bool {
        matches!(self.camera.policy, Policy::Every { .. })
    }

    /// An attempt to open the camera; it counts until what is returned is dropped.
    pub(super) fn attempt(&self) -> Arc<()> {
        Arc::clone(&self.camera.attempts)
    }

    /// Attempts of which something is left: at most one, unless some hang.
    pub(super) fn attempts(&self) -> usize {
        Arc::strong_count(&self.camera.attempts) - 1
    }

    /// How long this connection has been.
    pub(super) fn running(&self) -> Duration {
        self.run.started.elapsed()
    }

    /// A picture has come that is not worth offering: the camera is there.
    pub(super) fn touch(&self) {
        self.run.touch();
    }

    /// A picture with this presentation time has come. `false` if it need not be offered: the camera is faster than
    /// its configured rate, or the connection is retired. Call it before spending time on the picture.
    pub fn wants(&self, pts: Duration) -> bool {
        self.run.touch();
        let mut due = lock(&self.run.due);
        !self.run.retired.load(SeqCst) && due.admits(pts, SHARED_START.elapsed(), &self.camera.pace)
    }

    /// Hands a picture over; waits for room where no frame may be lost.
    pub fn offer(&self, picture: Picture) -> Flow {
        if self.run.retired.load(SeqCst) {
            return Flow::Closed;
        }
        let Picture { capture, pts, decoded_at, decode_time, view, canvas, full } = picture;
        let ticket = self.camera.ledger.open();
        let frame = Frame {
            camera: self.camera.id.clone(),
            origin: self.camera.origin,
            seq: ticket.number(),
            capture,
            pts,
            decoded_at,
            decode_time,
            view,
            canvas,
            full,
            ticket,
        };
        // Told before the frame can wait for room: the camera is live however slow the model is.
        self.run.touch();
        if !self.run.offered.swap(true, SeqCst) {
            self.run.first.notify_one();
        }
        if self.camera.slot.expects(Instant::now()) {
            frame.canvas.paint();
        }
        self.run.waiting.store(true, SeqCst);
        let flow = self.camera.slot.offer(frame);
        self.run.touch();
        self.run.waiting.store(false, SeqCst);
        flow
    }

    /// Resolves when this connection has offered its first picture.
    pub(super) async fn first(&self) {
        self.run.first.notified().await;
    }

    /// Whether this connection has offered a picture.
    pub(super) fn has_offered(&self) -> bool {
        self.run.offered.load(SeqCst)
    }

    /// How long nothing has come from the camera; zero while it waits for us.
    pub(super) fn idle(&self) -> Duration {
        if self.run.waiting.load(SeqCst) {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.run.last.load(SeqCst).saturating_sub(1));
        self.run.started.elapsed().saturating_sub(last)
    }
}

impl Run {
    fn new() -> Self {
        Self {
            started: time::Instant::now(),
            last: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            offered: AtomicBool::new(false),
            first: Notify::new(),
            due: Mutex::default(),
        }
    }

    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(now + 1, SeqCst);
    }
}
