//! The thread that owns the model: batches in, groundings out. Knows no method and no family.

use std::{
    any::Any,
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{GroundError, Grounder, error::chain};
use crate::types::{Answer, Batch, DropReason, Grounding, Job, Pulse, Status, Timings};

/// Groundings that may wait for tracking before the model does: some, so that a hiccup there does not idle the device.
const WAITING: usize = 32;

/// Different errors that are logged; a model that words each failure differently must not fill the log or memory.
const DISTINCT_ERRORS: usize = 32;

/// The model's thread, as seen from outside. It ends when `batches` is dropped, or when `groundings` is.
#[derive(Debug)]
pub struct Worker {
    /// Where batches go, one for each of the model's turns.
    pub batches: mpsc::Sender<Batch>,
    /// The model's turns: it gives one when it has nothing to do. Take it, then cut, so that a batch is cut as late as
    /// possible; room in the channel would come a whole batch too early. Closed when the thread has ended.
    pub turns: Arc<Semaphore>,
    /// What comes back, a grounding a frame, in the batches' order. When nobody takes them the model waits.
    pub groundings: mpsc::Receiver<Grounding>,
    /// The thread itself.
    pub handle: Handle,
}

/// The model's thread: how often it failed, and how it ended.
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

    /// Waits for the thread's end: `Ok` if it was wanted, the fatal error otherwise. Cancel-safe; once it has returned
    /// an error, it returns `Ok`.
    pub async fn join(&mut self) -> Result<(), GroundError> {
        // An end without a word is the wanted one: the sender goes with the thread.
        (&mut self.ended).await.map_or(Ok(()), Err)
    }
}

/// Starts the thread `ground`. `pulse` is busy while the model works, and beats with its passes.
pub fn spawn(mut grounder: Box<dyn Grounder>, pulse: Pulse) -> Worker {
    grounder.beat(pulse.clone());
    let (batches, inbox) = mpsc::channel(1);
    let (outbox, groundings) = mpsc::channel(WAITING);
    let (fatal, ended) = oneshot::channel();
    let turns = Arc::new(Semaphore::new(0));
    let failed = Arc::new(AtomicU64::new(0));
    let given = Turns(Arc::clone(&turns));
    let thread = Thread { grounder, pulse, outbox, turns: given, failed: Arc::clone(&failed), told: HashSet::new() };
    // The thread gets `fatal` only once it runs, so that a thread that cannot start can be reported the same way.
    let (hand_over, fatal_for_thread) = oneshot::channel::<oneshot::Sender<GroundError>>();
    let started = thread::Builder::new().name("ground".into()).spawn(move || {
        if let Ok(fatal) = fatal_for_thread.blocking_recv()
            && let Err(error) = thread.run(inbox)
        {
            // Nobody left to tell is fine: the daemon is going down already.
            fatal.send(error).ok();
        }
    });
    match started {
        Ok(_) => hand_over.send(fatal).ok(),
        Err(error) => fatal.send(GroundError::Thread(error)).ok(),
    };
    Worker { batches, turns, groundings, handle: Handle { failed, ended } }
}

/// What the thread's turns come out of; nobody waits for one that will not come.
struct Turns(Arc<Semaphore>);

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Thread {
    grounder: Box<dyn Grounder>,
    pulse: Pulse,
    outbox: mpsc::Sender<Grounding>,
    turns: Turns,
    failed: Arc<AtomicU64>,
    told: HashSet<String>,
}

impl Thread {
    fn run(mut self, mut inbox: mpsc::Receiver<Batch>) -> Result<(), GroundError> {
        loop {
            self.turns.0.add_permits(1);
            let Some(batch) = inbox.blocking_recv() else { break };
            let began = Instant::now();
            let answers = self.ground(&batch)?;
            let done_at = Instant::now();
            let frames = batch.jobs.len();
            for (job, answers) in batch.jobs.into_iter().zip(answers) {
                let queued = began.saturating_duration_since(job.frame.decoded_at);
                let timings = Timings { queued, inferred: done_at - began, done_at, batch: frames };
                let grounding = Grounding { frame: job.frame, answers, timings };
                if let Err(mpsc::error::SendError(unsent)) = self.outbox.blocking_send(grounding) {
                    unsent.frame.ticket.drop_for(DropReason::Shutdown);
                }
            }
            if self.outbox.is_closed() {
                break;
            }
        }
        // What was sent and never looked at ends here, accounted for.
        inbox.close();
        while let Some(batch) = inbox.blocking_recv() {
            batch.jobs.iter().for_each(|job| job.frame.ticket.drop_for(DropReason::Shutdown));
        }
        Ok(())
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
        self.failed.fetch_add(1, Relaxed);
        let reason = chain(&error);
        if self.told.len() < DISTINCT_ERRORS && self.told.insert(reason.clone()) {
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
