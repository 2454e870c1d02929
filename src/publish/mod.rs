//! Results -> wire.
//!
//! ```text
//! live (detections) --------------------------------------> sink   QoS 0, refused when the broker cannot take it now
//! state (retained)  -> states: the latest of each topic --> sink   QoS 1, all of them again after every connect
//! event             -> outbox: bounded, journal on disk --> sink   QoS 1, in order, at least once
//!                         `--> pending --> keeper: a thread that waits for the disk
//! ```
//!
//! A [`Publisher`] is a handle; one task behind it keeps the connection, and one thread the folder. The broker may be away
//! at any time, and a disk slow or full: nothing here waits for them, memory is bounded, and everything that is lost is
//! counted. `mqtt` alone knows rumqttc, `spool` and `kept` alone the disk; `outbox`, `pending` and `states` are pure.

mod config;
mod control;
pub mod discovery;
mod error;
mod inbox;
mod keeper;
mod kept;
#[cfg(test)]
mod logged;
mod message;
mod mqtt;
mod outbox;
pub mod payload;
mod pending;
mod settings;
mod shared;
mod sink;
mod spool;
mod states;
mod task;
pub mod topic;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{MqttConfig, Password},
    control::{ControlConfig, Order, Target},
    error::{PublishError, SpoolError},
    message::{Delivery, Message, Will},
    settings::default_client_id,
    sink::{Dial, Receipt, Refused, Session, Sink, Verdict},
    topic::{TopicError, Topics},
};
use self::{
    inbox::Inbox,
    keeper::Keeper,
    mqtt::Mqtt,
    outbox::Outbox,
    settings::Settings,
    shared::{Closing, Shared, Spooled},
    task::Task,
};
use crate::types::{Pulse, lock};

/// A filter for logs: what the MQTT client says of each message that is refused, [`Publisher`] says with more words, and not each time.
pub const LOGGED: &str = "rumqttc=error";

/// The connection to the broker, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Whether there is one.
    pub up: bool,
    /// Since when that is so.
    #[serde(serialize_with = "payload::serialize_time")]
    pub since: SystemTime,
    /// Why there is none.
    pub reason: Option<String>,
    /// How many times it was made again.
    pub reconnects: u64,
}

/// What became of the messages, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PublishStats {
    /// Whether there is a connection.
    pub up: bool,
    /// How many times it was made again.
    pub reconnects: u64,
    /// How many times it was made.
    pub connects: u64,
    /// Live messages handed to the connection.
    pub sent_live: u64,
    /// Live messages refused because there was no connection or it was backed up.
    pub dropped_live: u64,
    /// Retained values the broker acknowledged.
    pub states_acked: u64,
    /// Retained values the broker does not have yet.
    pub states_waiting: u64,
    /// Events the broker acknowledged.
    pub events_acked: u64,
    /// Events that wait, or wait for their acknowledgement.
    pub events_waiting: u64,
    /// Events dropped because too many waited.
    pub events_lost: u64,
    /// Events the broker does not accept.
    pub events_refused: u64,
    /// Events and values the broker does not accept.
    pub refused: u64,
    /// Failed writes to the spool.
    pub spool_errors: u64,
}

/// Sends messages. All clones are one publisher; when the last one goes without [`Publisher::close`], the connection is
/// cut and the broker sends the last will.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    control: ControlConfig,
    topics: Topics,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when the thread that writes to the folder has ended; none without a folder.
    kept: Option<CancellationToken>,
    /// Cancelled when that thread or the task has ended, however it ended.
    done: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.shared.end_writing();
    }
}

/// Checks `config`, reads its files, takes over what the spool holds, and starts connecting. The broker need not be
/// there: a wrong password or a missing broker shows in [`Publisher::connection`]. Without a `will` the broker is told
/// nothing about the daemon itself.
pub fn connect(config: &MqttConfig, will: Option<Will>, pulse: Pulse) -> Result<Publisher, PublishError> {
    let settings = Settings::new(config)?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| PublishError::NoRuntime)?;
    let topics = config.topics()?;
    let (outbox, pending, keeper) = match &config.spool_dir {
        None => (Outbox::new(config.spool_events), None, None),
        Some(dir) => {
            let (keeper, outbox, pending) = Keeper::open(dir, config.spool_events)?;
            (outbox, Some(pending), Some(keeper))
        }
    };
    if outbox.waiting() > 0 {
        tracing::info!(events = outbox.waiting(), "events from before the start wait in the spool");
    }
    let shared = Arc::new(Shared::new(outbox, pending));
    let done = CancellationToken::new();
    let start = |keeper: Keeper| keeper.start(Arc::clone(&shared), done.clone().drop_guard());
    let kept = keeper.map(start).transpose().map_err(PublishError::Thread)?;
    let (ack_timeout, broker) = (settings.keep_alive, settings.broker());
    let inbox = Arc::<Inbox>::default();
    let listen = config.control.filters(&topics);
    let dial = Mqtt { settings, will: will.clone(), listen, inbox: Arc::clone(&inbox) };
    let task = Task { shared: Arc::clone(&shared), dial, will, pulse, broker, ack_timeout, too_large: usize::MAX };
    let ended = done.clone().drop_guard();
    let task = runtime.spawn(async move {
        let _done = ended;
        task.run().await;
    });
    let task = Mutex::new(Some(task));
    let control = config.control.clone();
    Ok(Publisher { inner: Arc::new(Inner { shared, inbox, control, topics, task, kept, done }) })
}

impl Publisher {
    /// The topics below the configured base.
    pub fn topics(&self) -> &Topics {
        &self.inner.topics
    }

    /// Sends what is worth something only now (`QoS` 0, with the configured expiry). Never waits; on `Err` the message is
    /// dropped, and the frame behind it must be settled as dropped.
    pub fn live(&self, topic: String, payload: Bytes) -> Result<(), Refused> {
        self.inner.shared.live(&Message { topic, payload, delivery: Delivery::Live })
    }

    /// Sends what must not be dropped, as soon as there is a connection that takes it, however long that is. On `Err` the
    /// broker does not take such messages.
    pub async fn live_in_time(&self, topic: String, payload: Bytes) -> Result<(), Refused> {
        self.inner.shared.live_in_time(&Message { topic, payload, delivery: Delivery::Live }).await
    }

    /// Sets a retained value: the broker gets the latest, now or when it is back, and again whenever it comes back. An
    /// empty payload clears the topic.
    pub fn state(&self, topic: String, payload: Bytes) {
        self.inner.shared.state(topic, payload);
    }

    /// Clears the retained values that earlier starts set and this one has not set by now, but for the topics that stay. Does
    /// nothing without a spool folder, where they are remembered.
    pub fn take_back(&self, stays: impl Fn(&str) -> bool) {
        self.inner.shared.take_back(stays);
    }

    /// Sends an event at least once, after all before it. Never waits; with a spool folder it survives the end of the process
    /// once the disk has taken it, as [`Publisher::is_spooled`] says.
    pub fn event(&self, topic: String, payload: Bytes) {
        self.inner.shared.event(topic, payload, SystemTime::now());
    }

    /// The next messages on set topics, of each topic the latest. Pends for ever unless the configuration names who may
    /// write them; dropping the future loses nothing.
    pub async fn orders(&self) -> Vec<Order> {
        let Inner { inbox, control, topics, .. } = &*self.inner;
        let letters = inbox.take().await;
        let read = letters.iter().filter_map(|letter| {
            let order = control.read(topics, &letter.topic, &letter.payload, &letter.properties);
            if order.is_none() {
                tracing::warn!(
                    "a message on {:?} was not obeyed: no camera and no query can have this id",
                    letter.topic
                );
            }
            order
        });
        read.collect()
    }

    /// Whether all events that wait are in the spool folder, so that they would survive the end of the process now.
    pub fn is_spooled(&self) -> bool {
        self.inner.shared.spooled() == Spooled::Whole
    }

    /// The connection's state, as it changes.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.shared.connection.subscribe()
    }

    /// Waits for the end of the publisher, which only comes unasked if something in it failed: nothing is sent, or kept, any more.
    pub async fn finished(&self) {
        self.inner.done.cancelled().await;
    }

    /// The counters.
    pub fn stats(&self) -> PublishStats {
        self.inner.shared.stats()
    }

    /// Sends what waits, says `offline` and goodbye, and leaves the rest in the spool, if there is one; at most `limit`. Without
    /// a connection it only does the last. What did not go out is logged; the counters say it too.
    pub async fn close(self, limit: Duration) -> PublishStats {
        let until = Instant::now() + limit;
        // The farewell needs its part of the time, and so does the disk.
        let part = (limit / 4).min(Duration::from_secs(1));
        let for_disk = if self.inner.kept.is_some() { part / 2 } else { Duration::ZERO };
        let gone_by = until - for_disk;
        let closing = Closing { flush_until: gone_by - part, until: gone_by };
        self.inner.shared.closing.send_replace(Some(closing));
        let task = lock(&self.inner.task).take();
        if let Some(mut task) = task
            && timeout_at(gone_by, &mut task).await.is_err()
        {
            task.abort();
        }
        self.inner.shared.end_writing();
        if let Some(kept) = &self.inner.kept {
            // In vain is told below.
            timeout_at(until, kept.cancelled()).await.ok();
        }
        let stats = self.stats();
        self.tell_rest(stats.events_waiting);
        stats
    }

    fn tell_rest(&self, events: u64) {
        match self.inner.shared.spooled() {
            _ if events == 0 => {}
            Spooled::Whole => tracing::info!(events, "events wait in the spool for the next start"),
            Spooled::InPart => tracing::warn!(
                events,
                "events never reached the broker, and the spool could not be written: those that are not in it are lost; make room \
                 in mqtt.spool_dir"
            ),
            Spooled::Nowhere => tracing::warn!(
                events,
                "events never reached the broker and are lost; a service keeps them in mqtt.spool_dir"
            ),
        }
    }
}

/// Checks `config`, reads its files and tries its folder, without a connection; says which broker it means.
pub fn check(config: &MqttConfig) -> Result<String, PublishError> {
    if let Some(dir) = &config.spool_dir {
        spool::check(dir)?;
    }
    Settings::new(config).map(|settings| settings.broker())
}

/// Connects to the configured broker and leaves again: what it says goes to a person. Uses a client id of its own, so
/// that a running daemon is not thrown out.
pub async fn probe(config: &MqttConfig, limit: Duration) -> Result<String, PublishError> {
    check(config)?;
    let mut settings = Settings::new(config)?;
    settings.client_id = format!("{}-check-{}", settings.client_id, std::process::id());
    let (broker, encrypted, user) =
        (settings.broker(), settings.tls.is_some(), settings.login.as_ref().map(|(name, _)| name.clone()));
    let started = Instant::now();
    let mut dial = Mqtt { settings, will: None, listen: Vec::new(), inbox: Arc::default() };
    let visit = async {
        let session = dial.dial().await?;
        let took = started.elapsed();
        session.sink.disconnect().await;
        drop(session.ended.await);
        Ok::<_, PublishError>(took)
    };
    let Ok(took) = tokio::time::timeout(limit, visit).await else {
        return Err(PublishError::Silent { broker, waited: limit });
    };
    let tls = if encrypted { ", over TLS" } else { "" };
    let user = user.map_or(String::new(), |name| format!(", as user `{name}`"));
    Ok(format!("the broker at {broker} answered in {} ms{tls}{user}", took?.as_millis()))
}

#[cfg(test)]
impl Publisher {
    /// Its task is gone, as after a panic.
    pub(crate) fn break_down(&self) {
        self.inner.task.lock().unwrap().as_ref().unwrap().abort();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn nowhere(spool_dir: Option<PathBuf>) -> Publisher {
        let config = MqttConfig { url: "mqtt://127.0.0.1:1".into(), spool_dir, ..MqttConfig::default() };
        connect(&config, None, Pulse::new("publish")).unwrap()
    }

    async fn is_finished(publisher: &Publisher) -> bool {
        tokio::time::timeout(Duration::from_millis(300), publisher.finished()).await.is_ok()
    }

    #[tokio::test]
    async fn a_task_or_a_thread_that_ends_unasked_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let publisher = nowhere(Some(dir.path().into()));
        assert!(!is_finished(&publisher).await);
        publisher.break_down();
        assert!(is_finished(&publisher).await);
        let other = tempfile::tempdir().unwrap();
        let publisher = nowhere(Some(other.path().into()));
        publisher.inner.shared.end_writing();
        assert!(is_finished(&publisher).await);
        // All the same it can be closed.
        publisher.close(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn what_is_closed_leaves_its_folder_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        for before in 0..3 {
            let publisher = nowhere(Some(dir.path().into()));
            assert_eq!(publisher.stats().events_waiting, before);
            publisher.event("t".into(), Bytes::from_static(b"{}"));
            publisher.close(Duration::from_secs(5)).await;
        }
    }
}
