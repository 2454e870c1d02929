//! Frames x queries -> batches. Decides what the model looks at next, and what it never will.
//!
//! A batch is cut as late as possible: first the model must be free, then the newest frames are taken. While
//! the model is busy the slots keep being overwritten with newer pixels and the batch grows; when it is idle, the
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

use crate::types::{Batch, DropReason, Job, Pulse, QuerySet, Reminder};

/// The `[schedule]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Detections about pixels older than this are never published, in milliseconds from their arrival. What came to be
    /// known late still counts for tracks: their events, and who is present.
    pub staleness_ms: u64,
    /// Most frames in one batch; 0 is the model's own limit.
    pub max_batch: usize,
}

impl ScheduleConfig {
    /// Says what cannot be meant; the text names the key.
    pub fn check(&self) -> Result<(), String> {
        match self.staleness_ms {
            0 => Err("[schedule] `staleness_ms` is 0: every picture would be too old; at least 1".to_owned()),
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
    /// inlet has ended. `turns` holds a permit when the worker is free, and each is good for one batch.
    pub async fn run(mut self, worker: mpsc::Sender<Batch>, turns: Arc<Semaphore>, shutdown: CancellationToken) {
        let (mut rotation, mut late) = (Rotation::default(), Reminder::default());
        loop {
            let turn = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                turn = turns.acquire() => match turn {
                    Ok(turn) => turn,
                    Err(_) => return,
                },
            };
            let batch = loop {
                let now = Instant::now();
                let batch = self.cut(&mut rotation, now);
                self.tell_late(&rotation, &mut late, now);
                if let Some(batch) = batch {
                    break batch;
                }
                if self.finish && self.is_over() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = self.ready.notified() => {}
                    changed = self.inlets.changed() => if changed.is_err() { return },
                }
            };
            turn.forget();
            if let Err(mpsc::error::SendError(unsent)) = worker.send(batch).await {
                unsent.jobs.iter().for_each(|job| job.frame.ticket.drop_for(DropReason::Shutdown));
                return;
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

    fn cut(&mut self, rotation: &mut Rotation, now: Instant) -> Option<Batch> {
        let _busy = self.pulse.busy();
        let frames = rotation.cut(&self.inlets.borrow(), self.max_batch, self.staleness, now);
        let queries = self.queries.borrow();
        let jobs: Vec<Job> = frames
            .into_iter()
            .map(|frame| Job { queries: queries.for_camera(&frame.camera), frame: Arc::new(frame) })
            .collect();
        (!jobs.is_empty()).then_some(Batch { jobs, cut_at: now })
    }
}
