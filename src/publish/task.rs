//! The task that keeps a connection and moves what waits across it. Knows no MQTT, only the [`Sink`] seam.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    Dial, PublishError, Session, Sink, Verdict, Will,
    message::{Delivery, Message},
    shared::{Closing, Item, Shared},
    sink::Receipt,
};
use crate::{backoff::Backoff, types::Pulse};

/// First and longest wait between attempts. Short, because a broker that restarted must be found again soon, and an
/// attempt costs nobody anything.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Wait after an answer that will not change by itself: a wrong password, a certificate, a client id in use twice.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection that the broker closes so soon after accepting it, this often in a row, was taken over: two clients
/// with one id throw each other out for ever. (Brokers do say so, but rumqttc cannot read a `DISCONNECT` without
/// properties, which is what mosquitto sends.)
const SHORT: Duration = Duration::from_secs(2);
const EVICTIONS: u32 = 3;
/// Messages under suspicion, at most.
const SUSPECTS: usize = 16;
/// A message of so many bytes that breaks connections does so by its size: mosquitto's `message_size_limit` is not told to
/// clients, and its answer to what exceeds it is none that the protocol has.
const LARGE: usize = 4096;

/// See the module.
pub(super) struct Task<D> {
    pub(super) shared: Arc<Shared>,
    pub(super) dial: D,
    pub(super) will: Option<Will>,
    pub(super) pulse: Pulse,
    /// Host and port, for people.
    pub(super) broker: String,
    /// A connection without an acknowledgement for this long while one is due is given up.
    pub(super) ack_timeout: Duration,
    /// From so many bytes on messages are not sent: one of that size broke connections.
    pub(super) too_large: usize,
}

/// One message on its way.
struct Flying {
    item: Item,
    bytes: usize,
    receipt: Receipt,
    sent_at: Instant,
}

/// What a session begins with: the states the broker is to know, and `online`, which vouches for them. Told before, it would for
/// what the broker still has of the last session.
struct Greeting {
    states: usize,
    online: Option<Message>,
}

impl Greeting {
    fn next(&mut self, shared: &Shared) -> Option<(Item, Message)> {
        while self.states > 0 {
            self.states -= 1;
            if let Some(state) = shared.take_state() {
                return Some(state);
            }
        }
        self.online.take().map(|online| (Item::Status, online))
    }
}

/// How a session ended.
enum End {
    /// As it should: everything flushed, goodbye said.
    Closed,
    /// With the message that was to be acknowledged next, and its size in bytes.
    Lost { error: PublishError, next: Option<(Item, usize)>, acked: u64 },
}

/// What earlier connections taught.
struct History {
    backoff: Backoff,
    /// What was to be acknowledged next when a connection ended with a broken protocol.
    suspects: VecDeque<Item>,
    /// Connections in a row that the broker closed soon after it had accepted them.
    evictions: u32,
}

impl History {
    /// Whether `item` broke a connection for the second time: sent for ever, it would keep all others back for ever.
    fn convicts(&mut self, item: &Item) -> bool {
        if let Some(index) = self.suspects.iter().position(|suspect| suspect == item) {
            self.suspects.remove(index);
            return true;
        }
        if self.suspects.len() == SUSPECTS {
            self.suspects.pop_front();
        }
        self.suspects.push_back(item.clone());
        false
    }

    fn explain(&mut self, error: PublishError, lasted: Duration) -> PublishError {
        match error {
            PublishError::Closed { broker, client_id } if lasted < SHORT => {
                self.evictions += 1;
                if self.evictions >= EVICTIONS {
                    PublishError::TakenOver { broker, client_id }
                } else {
                    PublishError::Closed { broker, client_id }
                }
            }
            other => {
                self.evictions = 0;
                other
            }
        }
    }
}

impl<D: Dial> Task<D> {
    /// Runs until the publisher is closed.
    pub(super) async fn run(mut self) {
        let mut history = History { backoff: Backoff::new(RETRY.0, RETRY.1), suspects: VecDeque::new(), evictions: 0 };
        while let Some(error) = self.once(&mut history).await {
            self.shared.down(&error);
            let wait = if error.needs_patience() { PATIENCE } else { history.backoff.next(rand::random()) };
            tokio::select! {
                biased;
                () = close_news(&self.shared, None) => break,
                () = sleep(wait) => {}
            }
        }
        self.shared.gone();
    }

    /// Connects and serves; `None` when the publisher was closed.
    async fn once(&mut self, history: &mut History) -> Option<PublishError> {
        let shared = Arc::clone(&self.shared);
        let session = tokio::select! {
            biased;
            () = close_news(&shared, None) => return None,
            session = self.dial.dial() => session,
        };
        let Session { sink, ended } = match session {
            Ok(session) => session,
            Err(error) => {
                history.evictions = 0;
                return Some(error);
            }
        };
        let sink: Arc<dyn Sink> = Arc::new(sink);
        let states = self.shared.up(Arc::clone(&sink));
        tracing::info!(broker = self.broker, "connected to the broker");
        let since = Instant::now();
        let greeting = Greeting { states, online: self.status(true) };
        match self.serve(&*sink, ended, greeting).await {
            End::Closed => None,
            End::Lost { error, next, acked } => {
                if acked > 0 {
                    history.backoff.reset();
                }
                if !error.blames_a_message() {
                    // It may have been started anew, with another limit.
                    self.too_large = usize::MAX;
                }
                if let Some((item, bytes)) = next.filter(|_| error.blames_a_message())
                    && history.convicts(&item)
                {
                    self.shared.give_up(&item, &error.to_string());
                    if bytes >= LARGE {
                        tracing::warn!(
                            bytes,
                            "the broker ends the connection over a message of this size: none as large is sent any more; raise its limit"
                        );
                        self.too_large = bytes;
                    }
                }
                Some(history.explain(error, since.elapsed()))
            }
        }
    }

    async fn serve(&self, sink: &dyn Sink, mut ended: oneshot::Receiver<PublishError>, mut greeting: Greeting) -> End {
        let mut flying = VecDeque::new();
        let (mut acked, mut heard) = (0, Instant::now());
        loop {
            self.fill(sink, &mut flying, &mut greeting).await;
            let closing = *self.shared.closing.borrow();
            if let Some(closing) = closing
                && ((flying.is_empty() && self.shared.is_idle()) || Instant::now() >= closing.flush_until)
            {
                self.farewell(sink, flying, ended, closing.until).await;
                return End::Closed;
            }
            let error = tokio::select! {
                biased;
                error = &mut ended => Some(error.unwrap_or_else(|_| self.lost("its task died"))),
                verdict = next_verdict(&mut flying, heard, self.ack_timeout) => match verdict {
                    Ok(verdict) => {
                        (acked, heard) = (acked + 1, Instant::now());
                        if let Some(done) = flying.pop_front() {
                            self.settle(&done.item, &verdict);
                        }
                        None
                    }
                    Err(Missed::Overdue) => {
                        Some(self.lost(&format!("nothing was acknowledged for {:?}", self.ack_timeout)))
                    }
                    // The verdict's sender went with the connection, which says the rest.
                    Err(Missed::Gone) => Some((&mut ended).await.unwrap_or_else(|_| self.lost("its task died"))),
                },
                () = self.shared.wake.notified() => None,
                () = close_news(&self.shared, closing) => None,
            };
            if let Some(error) = error {
                return End::Lost { error, next: self.pass_verdicts(flying), acked };
            }
        }
    }

    /// Sends what waits until the window is full, `greeting` first.
    async fn fill(&self, sink: &dyn Sink, flying: &mut VecDeque<Flying>, greeting: &mut Greeting) {
        while flying.len() < sink.window() {
            let taken = {
                let _busy = self.pulse.busy();
                greeting.next(&self.shared).or_else(|| self.shared.take())
            };
            let Some((item, message)) = taken else { break };
            self.send(sink, flying, item, message).await;
        }
    }

    async fn send(&self, sink: &dyn Sink, flying: &mut VecDeque<Flying>, item: Item, message: Message) {
        let bytes = message.payload.len();
        let receipt = if bytes < self.too_large {
            sink.send(message).await
        } else {
            let why = "broke the connection; raise the broker's limit (`max_packet_size` of mosquitto)";
            Receipt::refused(format!("it has {bytes} bytes, and one of {} {why}", self.too_large))
        };
        flying.push_back(Flying { item, bytes, receipt, sent_at: Instant::now() });
    }

    fn settle(&self, item: &Item, verdict: &Verdict) {
        let _busy = self.pulse.busy();
        match verdict {
            Verdict::Acknowledged => self.shared.done(item, None),
            Verdict::Refused(why) => self.shared.done(item, Some(why)),
        }
    }

    /// The connection is gone. Verdicts that came before its end count; the first message without one is returned.
    fn pass_verdicts(&self, flying: VecDeque<Flying>) -> Option<(Item, usize)> {
        for mut flown in flying {
            match flown.receipt.0.try_recv() {
                Ok(verdict) => self.settle(&flown.item, &verdict),
                Err(_) => return Some((flown.item, flown.bytes)),
            }
        }
        None
    }

    /// Says `offline`, and goodbye, by `deadline`.
    async fn farewell(
        &self,
        sink: &dyn Sink,
        mut flying: VecDeque<Flying>,
        ended: oneshot::Receiver<PublishError>,
        deadline: Instant,
    ) {
        let goodbye = async {
            if let Some(offline) = self.status(false) {
                self.send(sink, &mut flying, Item::Status, offline).await;
            }
            while let Some(flown) = flying.pop_front() {
                match flown.receipt.0.await {
                    Ok(verdict) => self.settle(&flown.item, &verdict),
                    Err(_) => return,
                }
            }
            sink.disconnect().await;
            drop(ended.await);
        };
        if timeout_at(deadline, goodbye).await.is_err() {
            tracing::warn!("the broker did not let us say goodbye in time; it will send our last will");
        }
    }

    /// What the broker is told about the daemon itself, if anything.
    fn status(&self, online: bool) -> Option<Message> {
        let will = self.will.as_ref()?;
        let payload = if online { &will.online } else { &will.offline };
        Some(Message { topic: will.topic.clone(), payload: payload.clone(), delivery: Delivery::State })
    }

    fn lost(&self, problem: &str) -> PublishError {
        PublishError::Lost { broker: self.broker.clone(), problem: problem.to_owned() }
    }
}

/// Why there is no verdict.
enum Missed {
    /// The broker takes too long.
    Overdue,
    /// The connection went first.
    Gone,
}

/// The verdict on the oldest message on its way; pending while there is none. It may take `limit` from when the one
/// before it was `heard`: on a slow connection they all wait for one another.
async fn next_verdict(flying: &mut VecDeque<Flying>, heard: Instant, limit: Duration) -> Result<Verdict, Missed> {
    let Some(first) = flying.front_mut() else { return std::future::pending().await };
    match timeout_at(first.sent_at.max(heard) + limit, &mut first.receipt.0).await {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(_)) => Err(Missed::Gone),
        Err(_) => Err(Missed::Overdue),
    }
}

/// Resolves when closing begins, or, if it has, when flushing must stop.
async fn close_news(shared: &Shared, known: Option<Closing>) {
    match known {
        Some(closing) => sleep_until(closing.flush_until).await,
        // The sender lives in `shared`, so waiting cannot fail.
        None => drop(shared.closing.subscribe().wait_for(Option::is_some).await),
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
