//! Frames x queries -> batches. Decides what the model looks at next, and what it never will.
//!
//! A batch is cut as late as possible: first a model must be free, then the newest frames are taken. While
//! all are busy the slots keep being overwritten with newer pixels and the batch grows; when one is idle, the
//! first frame starts a batch of one at once. There is no linger timer.

mod rotation;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use rotation::{Inlet, Rotation};
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::types::{Batch, CameraId, DropReason, Job, Pulse, QuerySet, Reminder, Underway, WrongSetting};

/// The `[schedule]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Detections about pixels older than this are never published, in milliseconds from their arrival. What came to be
    /// known late still counts for tracks: their events, and who is present.
    pub staleness_ms: u64,
    /// Most frames that are looked at at once, in one batch or in several; 0 is as many as are worth it.
    pub max_batch: usize,
}

/// The most frames at once that a [`ScheduleConfig::max_batch`] means.
pub fn at_once(max_batch: usize) -> usize {
    if max_batch == 0 { usize::MAX } else { max_batch }
}

impl ScheduleConfig {
    /// Says what cannot be meant; the text names the key.
    pub fn check(&self) -> Result<(), WrongSetting> {
        match self.staleness_ms {
            0 => Err(WrongSetting::new("staleness_ms", "is 0: every picture would be too old; at least 1")),
            _ => Ok(()),
        }
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { staleness_ms: 1000, max_batch: 0 }
    }
}

/// What one scheduler works on. Cameras and queries may change under it at any time.
pub struct Scheduler {
    /// The cameras' outlets, in a fixed order.
    pub inlets: watch::Receiver<Vec<Arc<dyn Inlet>>>,
    /// The queries in force.
    pub queries: watch::Receiver<Arc<QuerySet>>,
    /// Rings when any inlet has something new: a frame, or its end.
    pub ready: Arc<Notify>,
    /// Frames older than this at the cut are dropped; `None` keeps every frame.
    pub staleness: Option<Duration>,
    /// Most frames in one batch, at least 1.
    pub max_batch: usize,
    /// Return once every inlet has ended, rather than waiting for new cameras.
    pub finish: bool,
    /// Busy while a batch is being cut.
    pub pulse: Pulse,
}

impl Scheduler {
    /// Cuts batches for `worker` until `shutdown`, until the worker is gone, or, if [`Scheduler::finish`], until every
    /// inlet has ended. `turns` holds a permit for each model that is free, and each is good for one batch. Cameras that are
    /// `underway` have a picture with a model, and no other until that is answered.
    pub async fn run(
        mut self,
        worker: mpsc::Sender<Batch>,
        turns: Arc<Semaphore>,
        underway: Arc<Underway>,
        shutdown: CancellationToken,
    ) {
        let (mut rotation, mut late, mut free) = (Rotation::default(), Reminder::default(), 0_usize);
        loop {
            if free > 0 {
                let now = Instant::now();
                let batch = self.cut(&mut rotation, &underway, now);
                self.tell_late(&rotation, &mut late, now);
                if let Some(batch) = batch {
                    free -= 1;
                    if let Err(mpsc::error::SendError(unsent)) = worker.send(batch).await {
                        unsent.jobs.iter().for_each(|job| job.frame.ticket.drop_for(DropReason::Shutdown));
                        return;
                    }
                    continue;
                }
                if self.finish && self.is_over() {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // Whoever is free again has answered, and a camera that was underway may be cut.
                turn = turns.acquire() => {
                    let Ok(turn) = turn else { return };
                    turn.forget();
                    free += 1;
                }
                () = self.ready.notified(), if free > 0 => {}
                changed = self.inlets.changed(), if free > 0 => if changed.is_err() { return },
            }
        }
    }

    /// Whether there were cameras and all of them have ended.
    fn is_over(&self) -> bool {
        let inlets = self.inlets.borrow();
        !inlets.is_empty() && inlets.iter().all(|inlet| inlet.is_drained())
    }

    /// Says now and then that a camera's pictures come too late: nothing is published, and nothing else would say why.
    fn tell_late(&self, rotation: &Rotation, late: &mut Reminder, now: Instant) {
        if let (Some((camera, age)), Some(limit)) = (rotation.late(), self.staleness)
            && late.is_due(now)
        {
            tracing::warn!(
                %camera,
                "a picture was {} ms old before the model could look at it, like those before it, and is not published: {} ms are \
                 allowed; watch fewer cameras, smaller or slower streams, or allow more (`staleness_ms` in [schedule], \
                 --staleness-ms of watch)",
                age.as_millis(),
                limit.as_millis()
            );
        }
    }

    fn cut(&mut self, rotation: &mut Rotation, underway: &Underway, now: Instant) -> Option<Batch> {
        let _busy = self.pulse.busy();
        let may = |camera: &CameraId| !underway.has(camera);
        let frames = rotation.cut(&self.inlets.borrow(), may, self.max_batch, self.staleness, now);
        for frame in &frames {
            underway.begin(&frame.camera);
        }
        let queries = self.queries.borrow();
        let jobs: Vec<Job> = frames
            .into_iter()
            .map(|frame| Job { queries: queries.for_camera(&frame.camera), frame: Arc::new(frame) })
            .collect();
        (!jobs.is_empty()).then_some(Batch { jobs })
    }
}
