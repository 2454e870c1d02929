//! What goes to the broker: serialised once, never changed.

use bytes::Bytes;

use super::{MqttConfig, PublishError};

/// How hard the broker must try, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Worth something only now: `QoS` 0, gone after the configured expiry.
    Live,
    /// The latest value counts: `QoS` 1, retained.
    State,
    /// Every one counts, in order: `QoS` 1.
    Event,
}

/// A topic, a payload and how to deliver it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// How it goes.
    pub delivery: Delivery,
}

/// What the broker is told about the daemon itself, retained on one topic: `online` after every connect, as soon as it has the
/// retained values, `offline` at a proper end, and by the broker when the connection just ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// The topic.
    pub topic: String,
    /// Published after every connect, behind the retained values.
    pub online: Bytes,
    /// Published at the end, by us or as our last will.
    pub offline: Bytes,
}

impl Will {
    /// `online` and `offline` on the status topic.
    pub fn status(config: &MqttConfig) -> Result<Self, PublishError> {
        let [online, offline] = [b"online".as_slice(), b"offline"].map(Bytes::from_static);
        Ok(Self { topic: config.topics()?.status(), online, offline })
    }
}
