//! The threads that own a model each: batches in, groundings out. They know no method and no family.

use std::{
    any::Any,
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{GroundError, Grounder};
use crate::types::{Answer, Batch, DropReason, Grounding, Job, Pulse, Status, Timings, Underway, chain};

/// Groundings that may wait for tracking before the model does: some, so that a hiccup there does not idle the device.
const WAITING: usize = 32;

/// Different errors that are logged; a model that words each failure differently must not fill the log or memory.
const DISTINCT_ERRORS: usize = 32;

/// The models' threads, as seen from outside. They end when `batches` is dropped, or when `groundings` is.
#[derive(Debug)]
pub struct Worker {
    /// Where batches go, one for each turn.
    pub batches: mpsc::Sender<Batch>,
    /// The models' turns: each gives one when it has nothing to do. Take it, then cut, so that a batch is cut as late as
    /// possible; room in the channel would come a whole batch too early. Closed when a thread has ended.
    pub turns: Arc<Semaphore>,
    /// Cameras whose pictures are with a model. Whoever cuts a batch enters its cameras here, and cuts none that is there: a
    /// camera's groundings come in the order of its pictures.
    pub underway: Arc<Underway>,
    /// What comes back, a grounding a frame. When nobody takes them the models wait.
    pub groundings: mpsc::Receiver<Grounding>,
    /// The threads themselves.
    pub handle: Handle,
}

/// The models' threads: how often they failed, and how they ended.
#[derive(Debug)]
pub struct Handle {
    failed: Arc<AtomicU64>,
    ended: oneshot::Receiver<GroundError>,
}

impl Handle {
    /// Batches that failed so far.
    pub fn failed_batches(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Waits for the threads' end: `Ok` if it was wanted, the first fatal error otherwise. Cancel-safe; once it has returned
    /// an error, it returns `Ok`.
    pub async fn join(&mut self) -> Result<(), GroundError> {
        // An end without a word is the wanted one: the sender goes with the last thread.
        (&mut self.ended).await.map_or(Ok(()), Err)
    }
}

/// Starts a thread `ground` for each model: any of them may be given any batch. Each has a pulse, busy while it works; it
/// beats with the model's passes.
pub fn spawn(grounders: Vec<(Box<dyn Grounder>, Pulse)>) -> Worker {
    let (batches, inbox) = mpsc::channel(grounders.len().max(1));
    let (outbox, groundings) = mpsc::channel(WAITING);
    let (fatal, ended) = oneshot::channel();
    let shared = Shared {
        inbox: Arc::new(Mutex::new(inbox)),
        outbox,
        turns: Arc::new(Semaphore::new(0)),
        underway: Arc::default(),
        failed: Arc::default(),
        told: Arc::default(),
        fatal: Arc::new(Mutex::new(Some(fatal))),
    };
    for (mut grounder, pulse) in grounders {
        grounder.beat(pulse.clone());
        let thread = Thread { grounder, pulse, shared: shared.clone() };
        let started = thread::Builder::new().name("ground".into()).spawn(move || thread.work());
        if let Err(error) = started {
            shared.end(Some(GroundError::Thread(error)));
        }
    }
    let Shared { turns, underway, failed, .. } = shared;
    Worker { batches, turns, underway, groundings, handle: Handle { failed, ended } }
}

/// What the threads have in common.
#[derive(Clone)]
struct Shared {
    inbox: Arc<Mutex<mpsc::Receiver<Batch>>>,
    outbox: mpsc::Sender<Grounding>,
    turns: Arc<Semaphore>,
    underway: Arc<Underway>,
    failed: Arc<AtomicU64>,
    told: Arc<Mutex<HashSet<String>>>,
    fatal: Arc<Mutex<Option<oneshot::Sender<GroundError>>>>,
}

impl Shared {
    /// A thread has ended, perhaps badly: nobody waits for turns that will not come.
    fn end(&self, error: Option<GroundError>) {
        self.turns.close();
        let fatal = error.and_then(|error| Some((lock(&self.fatal).take()?, error)));
        if let Some((fatal, error)) = fatal {
            // Nobody left to tell is fine: the daemon is going down already.
            fatal.send(error).ok();
        }
    }

    /// The next batch; `None` when there will be none. Whoever waits holds the others off, who would wait as well.
    fn next(&self) -> Option<Batch> {
        lock(&self.inbox).blocking_recv()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Thread {
    grounder: Box<dyn Grounder>,
    pulse: Pulse,
    shared: Shared,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.turns.close();
    }
}

impl Thread {
    fn work(mut self) {
        let error = self.run().err();
        self.shared.end(error);
        // What was sent and never looked at ends here, accounted for.
        let mut inbox = lock(&self.shared.inbox);
        inbox.close();
        while let Some(batch) = inbox.blocking_recv() {
            batch.jobs.iter().for_each(|job| job.frame.ticket.drop_for(DropReason::Shutdown));
        }
    }

    fn run(&mut self) -> Result<(), GroundError> {
        loop {
            self.shared.turns.add_permits(1);
            let Some(batch) = self.shared.next() else { return Ok(()) };
            let began = Instant::now();
            let answers = self.ground(&batch)?;
            let done_at = Instant::now();
            let frames = batch.jobs.len();
            for (job, answers) in batch.jobs.into_iter().zip(answers) {
                let queued = began.saturating_duration_since(job.frame.decoded_at);
                let timings = Timings { queued, inferred: done_at - began, done_at, batch: frames };
                let camera = job.frame.camera.clone();
                let grounding = Grounding { frame: job.frame, answers, timings };
                if let Err(mpsc::error::SendError(unsent)) = self.shared.outbox.blocking_send(grounding) {
                    unsent.frame.ticket.drop_for(DropReason::Shutdown);
                }
                self.shared.underway.end(&camera);
            }
            if self.shared.outbox.is_closed() {
                return Ok(());
            }
        }
    }

    /// The batch's answers; a failure answers every query with an error. Only a panic is the thread's end.
    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        let busy = self.pulse.busy();
        let result = catch_unwind(AssertUnwindSafe(|| {
            batch.paint();
            self.grounder.ground(batch)
        }));
        drop(busy);
        let (asked, error) = match result {
            Ok(Ok(answers)) if answers.len() == batch.jobs.len() => return Ok(answers),
            Ok(Ok(answers)) => {
                (batch.jobs.len(), GroundError::Answers { asked: batch.jobs.len(), answered: answers.len() })
            }
            Ok(Err(error)) => (batch.jobs.len(), error),
            Err(panic) => {
                batch.jobs.iter().for_each(|job| job.frame.ticket.drop_for(DropReason::ModelError));
                return Err(GroundError::Panicked(message(panic.as_ref())));
            }
        };
        self.shared.failed.fetch_add(1, Relaxed);
        let reason = chain(&error);
        let mut told = lock(&self.shared.told);
        if told.len() < DISTINCT_ERRORS && told.insert(reason.clone()) {
            tracing::error!(frames = asked, "the model failed on a batch: {reason}; told once, counted each time");
        }
        Ok(batch.jobs.iter().map(|job| refused(job, &reason)).collect())
    }
}

fn refused(job: &Job, reason: &str) -> Vec<Answer> {
    let answer =
        |query| Answer { query, status: Status::Error(reason.to_owned()), matches: Vec::new(), complete: true };
    job.queries.iter().cloned().map(answer).collect()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
