//! The seam between the publisher and what carries its messages. Knows no broker.

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Message, PublishError};

/// Why a live message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no connection to the broker.
    #[error("no connection to the broker")]
    Offline,
    /// The broker does not keep up.
    #[error("the broker does not keep up")]
    Backlogged,
    /// The broker does not take messages of this size.
    #[error("it has {size} bytes, {limit} are allowed; raise the broker's limit (`max_packet_size` of mosquitto)")]
    TooLarge {
        /// Bytes of its packet, at most.
        size: usize,
        /// Bytes of the largest packet that the broker takes.
        limit: usize,
    },
    /// No such topic exists.
    #[error("its topic cannot be published to")]
    Topic,
}

/// What the broker said about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has it.
    Acknowledged,
    /// It does not want it, and will not want it later.
    Refused(String),
}

/// Resolves when the broker has spoken about one message; an error means that the connection ended first.
#[derive(Debug)]
pub struct Receipt(pub oneshot::Receiver<Verdict>);

impl Receipt {
    /// Of a message that is not sent at all.
    pub fn refused(why: String) -> Self {
        let (verdict, receipt) = oneshot::channel();
        drop(verdict.send(Verdict::Refused(why)));
        Self(receipt)
    }
}

/// One connection to a broker.
pub trait Sink: Send + Sync {
    /// Hands a live message over. Never waits; `Ok` means that it is about to be written.
    fn offer(&self, message: &Message) -> Result<(), Refused>;
    /// Queues a message behind those before it, waiting for room. Messages arrive in this order, and only the receipt
    /// says that one has arrived.
    fn send(&self, message: Message) -> BoxFuture<'_, Receipt>;
    /// How many messages may wait for their receipts at a time; at least one.
    fn window(&self) -> usize;
    /// Says goodbye after all that was sent before; the connection ends then.
    fn disconnect(&self) -> BoxFuture<'_, ()>;
}

/// A connection with the news of its end.
pub struct Session<S> {
    /// The connection.
    pub sink: S,
    /// How it ended.
    pub ended: oneshot::Receiver<PublishError>,
}

/// Makes connections.
pub trait Dial: Send {
    /// What it makes.
    type Sink: Sink + 'static;
    /// Makes one, or says why there is none. Takes a bounded time.
    fn dial(&mut self) -> impl Future<Output = Result<Session<Self::Sink>, PublishError>> + Send;
}
