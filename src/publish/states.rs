//! Retained values: the latest of each topic, and which of them the broker does not have yet. Pure state.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

#[derive(Debug)]
struct State {
    payload: Bytes,
    version: u64,
    /// On its way to the broker, or queued to go: in neither case a second time.
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Queued,
    Flying,
    Known,
}

/// The latest value of every retained topic.
#[derive(Debug, Default)]
pub(super) struct States {
    topics: BTreeMap<String, State>,
    queue: VecDeque<String>,
    versions: u64,
}

impl States {
    /// Sets a topic's value; an empty one clears it. A value the broker has already is not sent again.
    pub(super) fn set(&mut self, topic: String, payload: Bytes) {
        self.versions += 1;
        let version = self.versions;
        match self.topics.get_mut(&topic) {
            Some(state) if state.payload == payload => {}
            Some(state) => {
                (state.payload, state.version) = (payload, version);
                if state.phase == Phase::Known {
                    state.phase = Phase::Queued;
                    self.queue.push_back(topic);
                }
            }
            None => {
                self.queue.push_back(topic.clone());
                self.topics.insert(topic, State { payload, version, phase: Phase::Queued });
            }
        }
    }

    /// Whether there is a value of `topic`, or its end is on its way.
    pub(super) fn knows(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The next value to send, with its version.
    pub(super) fn take(&mut self) -> Option<(String, u64, Bytes)> {
        let topic = self.queue.pop_front()?;
        let state = self.topics.get_mut(&topic)?;
        state.phase = Phase::Flying;
        Some((topic, state.version, state.payload.clone()))
    }

    /// The broker has (or will never accept) `version` of `topic`.
    pub(super) fn done(&mut self, topic: &str, version: u64) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        if state.phase != Phase::Flying {
            return;
        }
        if state.version != version {
            state.phase = Phase::Queued;
            self.queue.push_back(topic.to_owned());
        } else if state.payload.is_empty() {
            self.topics.remove(topic);
        } else {
            state.phase = Phase::Known;
        }
    }

    /// `version` of `topic` is never to be sent again; a later value is.
    pub(super) fn forget(&mut self, topic: &str, version: u64) {
        if self.topics.get(topic).is_some_and(|s| s.version == version) {
            self.topics.remove(topic);
        }
    }

    /// The connection is gone, and a new broker may know nothing: all values go out again.
    pub(super) fn rewind(&mut self) {
        for state in self.topics.values_mut() {
            state.phase = Phase::Queued;
        }
        // What is taken back makes room for what takes its place, for those who look at the order.
        let (gone, there): (Vec<_>, Vec<_>) = self.topics.iter().partition(|(_, state)| state.payload.is_empty());
        self.queue = gone.into_iter().chain(there).map(|(topic, _)| topic.clone()).collect();
    }

    /// Whether the broker has everything.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.values().all(|s| s.phase == Phase::Known)
    }

    /// Values the broker does not have yet.
    pub(super) fn waiting(&self) -> usize {
        self.topics.values().filter(|s| s.phase != Phase::Known).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, u8),
        Take,
        Ack,
        Crash,
    }

    proptest! {
        #[test]
        fn the_broker_ends_up_with_the_latest_values(
            steps in proptest::collection::vec(prop_oneof![
                3 => (0u8..5, 0u8..4).prop_map(|(t, v)| Step::Set(t, v)),
                2 => Just(Step::Take), 2 => Just(Step::Ack), 1 => Just(Step::Crash),
            ], 0..200),
        ) {
            let mut states = States::default();
            let (mut broker, mut wanted) = (BTreeMap::new(), BTreeMap::new());
            let mut flight = VecDeque::new();
            let retain = |map: &mut BTreeMap<String, Bytes>, topic: String, payload: Bytes| {
                if payload.is_empty() { map.remove(&topic); } else { map.insert(topic, payload); }
            };
            for step in steps {
                match step {
                    Step::Set(topic, value) => {
                        let payload = if value == 0 { Bytes::new() } else { Bytes::from(vec![value]) };
                        states.set(format!("t{topic}"), payload.clone());
                        retain(&mut wanted, format!("t{topic}"), payload);
                    }
                    Step::Take => flight.extend(states.take()),
                    Step::Ack => if let Some((topic, version, payload)) = flight.pop_front() {
                        states.done(&topic, version);
                        retain(&mut broker, topic, payload);
                    },
                    // A broker without persistence: what it does not get again is gone.
                    Step::Crash => {
                        states.rewind();
                        flight.clear();
                        broker.clear();
                    }
                }
                prop_assert!(states.queue.len() <= states.topics.len() && states.topics.len() <= 5);
            }
            loop {
                flight.extend(states.take());
                let Some((topic, version, payload)) = flight.pop_front() else { break };
                states.done(&topic, version);
                retain(&mut broker, topic, payload);
            }
            prop_assert!(states.is_empty());
            prop_assert_eq!(broker, wanted);
            prop_assert_eq!(states.waiting(), 0);
        }
    }

    #[test]
    fn after_a_reconnect_what_is_taken_back_goes_before_what_takes_its_place() {
        let mut states = States::default();
        for topic in ["new", "old"] {
            states.set(topic.to_owned(), Bytes::from_static(b"there"));
        }
        while let Some((topic, version, _)) = states.take() {
            states.done(&topic, version);
        }
        states.set("old".to_owned(), Bytes::new());
        states.rewind();
        let order: Vec<_> = std::iter::from_fn(|| states.take()).map(|(topic, ..)| topic).collect();
        assert_eq!(order, ["old", "new"]);
    }
}
