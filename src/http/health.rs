//! Whether the process lives and whether it is of use, with the reasons when not. Pure but for the lock.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serde::Serialize;

use crate::types::{Pulse, lock};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    /// The stage or thing.
    pub(super) what: String,
    /// What is wrong with it, for people.
    pub(super) why: String,
}

impl Reason {
    pub(super) fn new(what: &str, why: impl Into<String>) -> Self {
        Self { what: what.to_owned(), why: why.into() }
    }
}

/// What the daemon has said of itself. A stage that ends ends the daemon; one that hangs is seen by its pulse.
#[derive(Debug)]
pub(super) struct Health {
    /// Preconditions: wrong means it works but is of no use yet.
    ready: Mutex<BTreeMap<String, Result<(), String>>>,
    pulses: Mutex<Vec<(Pulse, Duration)>>,
}

impl Health {
    /// Alive, and not ready before a model is reported.
    pub(super) fn new() -> Self {
        let model = Err("no model has been loaded yet".to_owned());
        Self { ready: Mutex::new(BTreeMap::from([("model".to_owned(), model)])), pulses: Mutex::default() }
    }

    pub(super) fn set_ready(&self, what: &str, state: Result<(), String>) {
        lock(&self.ready).insert(what.to_owned(), state);
    }

    pub(super) fn watch(&self, pulse: Pulse, limit: Duration) {
        lock(&self.pulses).push((pulse, limit));
    }

    /// What keeps the process from being alive; empty is alive.
    pub(super) fn dead_because(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for (pulse, limit) in lock(&self.pulses).iter() {
            if let Some(busy) = pulse.busy_for().filter(|busy| busy > limit) {
                let why = format!(
                    "stuck: one piece of work has taken {:.1} s, over its limit of {:.1} s",
                    busy.as_secs_f32(),
                    limit.as_secs_f32()
                );
                reasons.push(Reason::new(pulse.stage(), why));
            }
        }
        reasons
    }

    /// What keeps it from being ready, cameras aside.
    pub(super) fn unready_because(&self) -> Vec<Reason> {
        let ready = lock(&self.ready);
        ready.iter().filter_map(|(what, state)| Some(Reason::new(what, state.as_ref().err()?.as_str()))).collect()
    }
}
