//! Messages that came in and were not looked at yet: of each topic the latest, in the order the topics were first heard of.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::types::lock;

/// Most topics that wait. Orders are rare; more at once is a flood.
const MOST: usize = 1024;

/// One message from the broker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Letter {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    /// User properties of MQTT 5.
    pub(super) properties: Vec<(String, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    letters: Mutex<Vec<Letter>>,
    news: Notify,
}

impl Inbox {
    /// Keeps `letter`, in the place of an earlier one with the same topic.
    pub(super) fn put(&self, letter: Letter) {
        let mut letters = lock(&self.letters);
        if let Some(waiting) = letters.iter_mut().find(|waiting| waiting.topic == letter.topic) {
            *waiting = letter;
        } else if letters.len() < MOST {
            letters.push(letter);
        } else {
            tracing::warn!(topic = letter.topic, "more than {MOST} orders wait; this one is not obeyed");
        }
        drop(letters);
        self.news.notify_one();
    }

    /// Everything that waits; resolves when there is something. Nothing is lost when it is dropped before.
    pub(super) async fn take(&self) -> Vec<Letter> {
        loop {
            let letters = std::mem::take(&mut *lock(&self.letters));
            if !letters.is_empty() {
                return letters;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(topic: &str, payload: &'static str) -> Letter {
        Letter { topic: topic.into(), payload: Bytes::from_static(payload.as_bytes()), properties: Vec::new() }
    }

    #[tokio::test]
    async fn the_latest_of_a_topic_is_read_in_the_topics_order() {
        let inbox = Inbox::default();
        for (topic, payload) in [("a", "1"), ("b", "2"), ("a", "3")] {
            inbox.put(letter(topic, payload));
        }
        assert_eq!(inbox.take().await, [letter("a", "3"), letter("b", "2")]);
        inbox.put(letter("c", "4"));
        assert_eq!(inbox.take().await, [letter("c", "4")]);
    }

    #[tokio::test]
    async fn a_flood_is_cut_off() {
        let inbox = Inbox::default();
        (0..2 * MOST).for_each(|i| inbox.put(letter(&i.to_string(), "x")));
        assert_eq!(inbox.take().await.len(), MOST);
    }
}
