//! One message on its way to the broker: serialised once, never changed.

use bytes::Bytes;

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
