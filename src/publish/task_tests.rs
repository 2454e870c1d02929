//! The task against a carrier that fails when a test wants it to. (What a real broker does is in `tests/publish.rs`.)

use std::{collections::BTreeSet, sync::Mutex, time::SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::{super::outbox::Outbox, *};
use crate::publish::Refused;

/// Everything that arrived, on whatever connection.
type Arrived = Arc<Mutex<Vec<(String, Bytes)>>>;

/// Makes connections that end after so many messages each, then ones that hold.
struct Flaky {
    lives: VecDeque<(usize, bool)>,
    arrived: Arrived,
}

struct FlakySink {
    /// Messages that still arrive; the last of them without an acknowledgement if `eaten`.
    left: Mutex<usize>,
    eaten: bool,
    arrived: Arrived,
    over: Mutex<Option<oneshot::Sender<PublishError>>>,
    unanswered: Mutex<Vec<oneshot::Sender<Verdict>>>,
}

fn broken() -> PublishError {
    PublishError::Lost { broker: "test".into(), problem: "as planned".into() }
}

impl Dial for Flaky {
    type Sink = FlakySink;

    async fn dial(&mut self) -> Result<Session<FlakySink>, PublishError> {
        let (left, eaten) = self.lives.pop_front().unwrap_or((usize::MAX, false));
        if left == 0 {
            return Err(broken());
        }
        let (over, ended) = oneshot::channel();
        let sink = FlakySink {
            left: Mutex::new(left),
            eaten,
            arrived: Arc::clone(&self.arrived),
            over: Mutex::new(Some(over)),
            unanswered: Mutex::default(),
        };
        Ok(Session { sink, ended })
    }
}

impl Sink for FlakySink {
    fn offer(&self, _: &Message) -> Result<(), Refused> {
        Err(Refused::Backlogged)
    }

    fn send(&self, message: Message) -> BoxFuture<'_, Receipt> {
        let (verdict, receipt) = oneshot::channel();
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            self.unanswered.lock().unwrap().push(verdict);
            return Box::pin(async { Receipt(receipt) });
        }
        *left -= 1;
        self.arrived.lock().unwrap().push((message.topic, message.payload));
        if *left == 0 {
            drop(self.over.lock().unwrap().take().map(|over| over.send(broken())));
        }
        if *left == 0 && self.eaten {
            self.unanswered.lock().unwrap().push(verdict);
        } else {
            drop(verdict.send(Verdict::Acknowledged));
        }
        Box::pin(async { Receipt(receipt) })
    }

    fn window(&self) -> usize {
        3
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        drop(self.over.lock().unwrap().take().map(|over| over.send(broken())));
        Box::pin(async {})
    }
}

/// Makes connections that carry one message at a time, however many are on their way.
struct Slow {
    pace: Duration,
}

struct SlowSink {
    unanswered: mpsc::UnboundedSender<oneshot::Sender<Verdict>>,
    /// Held while the connection lasts.
    _over: oneshot::Sender<PublishError>,
}

impl Dial for Slow {
    type Sink = SlowSink;

    async fn dial(&mut self) -> Result<Session<SlowSink>, PublishError> {
        let pace = self.pace;
        let (over, ended) = oneshot::channel();
        let (unanswered, mut carried) = mpsc::unbounded_channel::<oneshot::Sender<Verdict>>();
        tokio::spawn(async move {
            while let Some(verdict) = carried.recv().await {
                tokio::time::sleep(pace).await;
                drop(verdict.send(Verdict::Acknowledged));
            }
        });
        Ok(Session { sink: SlowSink { unanswered, _over: over }, ended })
    }
}

impl Sink for SlowSink {
    fn offer(&self, _: &Message) -> Result<(), Refused> {
        Err(Refused::Backlogged)
    }

    fn send(&self, _: Message) -> BoxFuture<'_, Receipt> {
        let (verdict, receipt) = oneshot::channel();
        drop(self.unanswered.send(verdict));
        Box::pin(async { Receipt(receipt) })
    }

    fn window(&self) -> usize {
        4
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn will() -> Will {
    Will { topic: "status".into(), online: Bytes::from_static(b"online"), offline: Bytes::from_static(b"offline") }
}

/// Waits, by a clock that may be stopped, until everything is acknowledged.
async fn idle(shared: &Shared) {
    let settled = async {
        while !shared.is_idle() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_hours(1), settled).await.expect("everything is acknowledged in the end");
}

fn task<D: Dial>(shared: &Arc<Shared>, dial: D) -> Task<D> {
    Task {
        shared: Arc::clone(shared),
        dial,
        will: Some(will()),
        pulse: Pulse::new("publish"),
        broker: "test".into(),
        ack_timeout: Duration::from_secs(5),
        too_large: usize::MAX,
    }
}

async fn scenario(lives: Vec<(usize, bool)>, events: u64) -> (Vec<(String, Bytes)>, u64) {
    let shared = Arc::new(Shared::new(Outbox::new(10_000), None));
    let arrived = Arrived::default();
    let dial = Flaky { lives: lives.into(), arrived: Arc::clone(&arrived) };
    let task = tokio::spawn(task(&shared, dial).run());
    for n in 0..events {
        shared.event("e".into(), Bytes::from(n.to_string()), SystemTime::now());
        shared.state(format!("s{}", n % 3), Bytes::from(n.to_string()));
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    idle(&shared).await;
    let until = Instant::now() + Duration::from_secs(2);
    shared.closing.send_replace(Some(Closing { flush_until: until, until }));
    task.await.unwrap();
    let all = arrived.lock().unwrap().clone();
    (all, shared.stats().events_acked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn through_any_losses_events_arrive_in_order_and_states_last(
        lives in proptest::collection::vec((0usize..12, any::<bool>()), 0..10), events in 1u64..60,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (arrived, acked) = runtime.block_on(scenario(lives, events));
        let mut seen = BTreeSet::new();
        let firsts: Vec<u64> = arrived
            .iter()
            .filter(|(topic, _)| topic == "e")
            .map(|(_, n)| std::str::from_utf8(n).unwrap().parse().unwrap())
            .filter(|n| seen.insert(*n))
            .collect();
        prop_assert_eq!(firsts, (0..events).collect::<Vec<_>>());
        prop_assert_eq!(acked, events);
        for s in 0..events.min(3) {
            let latest = (0..events).filter(|n| n % 3 == s).max().unwrap();
            let (_, value) = arrived.iter().rev().find(|(topic, _)| *topic == format!("s{s}")).unwrap();
            prop_assert_eq!(value, &Bytes::from(latest.to_string()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_online_once_and_ends_with_offline() {
    let (arrived, acked) = scenario(vec![], 5).await;
    let statuses: Vec<_> = arrived.iter().filter(|(topic, _)| topic == "status").map(|(_, s)| s.clone()).collect();
    assert_eq!((statuses, acked), (vec![will().online, will().offline], 5));
    assert_eq!(arrived.last().unwrap().0, "status");
}

#[tokio::test(start_paused = true)]
async fn online_comes_after_the_states_it_vouches_for_and_before_all_else() {
    let shared = Arc::new(Shared::new(Outbox::new(100), None));
    let arrived = Arrived::default();
    // More states than may be on their way at a time, and a connection that ends when it has told all.
    let dial = Flaky { lives: [(10, false)].into(), arrived: Arc::clone(&arrived) };
    for n in 0..8 {
        shared.state(format!("s{n}"), Bytes::from_static(b"ON"));
    }
    shared.event("e".into(), Bytes::from_static(b"{}"), SystemTime::now());
    let task = tokio::spawn(task(&shared, dial).run());
    let told = async |count: usize| {
        while arrived.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    told(10).await;
    // While there is no connection: what the broker has is not true any more.
    shared.state("s7".into(), Bytes::from_static(b"OFF"));
    told(19).await;
    let all: Vec<_> = arrived.lock().unwrap().iter().map(|(topic, value)| (topic.clone(), value.clone())).collect();
    let topics: Vec<_> = all.iter().map(|(topic, _)| topic.as_str()).collect();
    let states = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];
    assert_eq!(topics, [&states[..], &["status", "e"], &states[..], &["status"]].concat());
    assert_eq!(all[17].1, "OFF");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_connection_is_kept_while_acknowledgements_come() {
    let shared = Arc::new(Shared::new(Outbox::new(100), None));
    let task = Task { will: None, ..task(&shared, Slow { pace: Duration::from_secs(3) }) };
    let task = tokio::spawn(task.run());
    for n in 0..12 {
        shared.event("e".into(), Bytes::from(n.to_string()), SystemTime::now());
    }
    idle(&shared).await;
    let stats = shared.stats();
    assert_eq!((stats.events_acked, stats.connects), (12, 1));
    task.abort();
}
