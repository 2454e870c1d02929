//! What is refused, and how it is told. (What becomes of a disk is in `keeper`.)

use futures_util::future::BoxFuture;

use super::*;
use crate::publish::{logged::logged, sink::Receipt};

fn event(shared: &Shared) {
    shared.event("t".to_owned(), Bytes::from_static(b"{}"), SystemTime::now());
}

/// A connection to a broker that takes ten bytes.
struct Narrow;

impl Sink for Narrow {
    fn offer(&self, message: &Message) -> Result<(), Refused> {
        let size = message.payload.len();
        if size > 10 { Err(Refused::TooLarge { size, limit: 10 }) } else { Ok(()) }
    }

    fn send(&self, _: Message) -> BoxFuture<'_, Receipt> {
        unreachable!("only live messages are sent")
    }

    fn window(&self) -> usize {
        1
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        unreachable!("it stays connected")
    }
}

#[test]
fn a_live_message_that_is_too_large_is_told_of_now_and_then() {
    let shared = Shared::new(Outbox::new(10), None);
    shared.up(Arc::new(Narrow));
    let live = |size: usize| {
        let payload = Bytes::from(vec![b'x'; size]);
        shared.live(&Message { topic: "cam/detections".into(), payload, delivery: Delivery::Live })
    };
    let said = logged(|| {
        assert_eq!(live(10), Ok(()));
        (11..20).for_each(|size| assert_eq!(live(size), Err(Refused::TooLarge { size, limit: 10 })));
    });
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in ["WARN", "cam/detections", "11 bytes", "takes 10"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!((shared.stats().sent_live, shared.stats().dropped_live), (1, 9));
}

#[test]
fn an_event_that_the_broker_refuses_is_counted() {
    let shared = Shared::new(Outbox::new(10), None);
    event(&shared);
    let (item, _) = shared.take().unwrap();
    shared.done(&item, Some("no"));
    let stats = shared.stats();
    assert_eq!((stats.events_refused, stats.refused, stats.events_acked, stats.events_waiting), (1, 1, 0, 0));
}

#[test]
fn refusals_are_told_ten_times_and_then_now_and_again() {
    let shared = Shared::new(Outbox::new(100), None);
    let said = logged(|| {
        for _ in 0..30 {
            event(&shared);
            let (item, _) = shared.take().unwrap();
            shared.done(&item, Some("it is not wanted"));
        }
    });
    // Ten, and the first of those that are told once a minute.
    assert_eq!(said.matches("which is dropped: it is not wanted").count(), 11, "{said}");
    assert_eq!(shared.stats().refused, 30);
}
