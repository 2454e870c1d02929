//! Groundings -> tracks -> messages -> everyone who listens. One task, so that a camera's messages keep their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    board,
    snapshot::{Snapshot, Snapshots},
    view::{Answered, View},
};
use crate::{
    http::Hub,
    publish::{Publisher, Refused, Topics, payload},
    schedule::Inlet,
    track::TrackConfig,
    types::{CameraId, DropReason, Followed, Grounding, Pulse, QueryId, QuerySet, Reminder, Status, TrackEvent},
};

/// Prints one detections message; an error ends the delivery (nobody reads any more).
pub type LineSink = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// Who gets the results.
#[derive(Default)]
pub struct Sinks {
    /// The broker.
    pub publisher: Option<(Publisher, Topics)>,
    /// The live view and the metrics.
    pub hub: Option<Hub>,
    /// A line a frame.
    pub lines: Option<LineSink>,
}

/// Settings of the delivery.
pub(super) struct Delivery {
    pub(super) sinks: Sinks,
    pub(super) track: TrackConfig,
    pub(super) staleness: Option<Duration>,
    /// Cameras that are films, whose pictures may come faster or slower than they were taken: tracking goes by their own time.
    pub(super) films: BTreeSet<CameraId>,
    /// Where that time begins.
    pub(super) started: Instant,
    pub(super) snapshot_every: Option<Duration>,
    /// Waits for a broker that is away rather than drop a frame.
    pub(super) every_frame: bool,
    /// Nobody comes after: retained topics are taken back at the end.
    pub(super) passing: bool,
    /// Ends the delivery at once: the model is still at work and will not be waited for.
    pub(super) leave: CancellationToken,
    pub(super) epoch: String,
    /// Each camera's numbers, which go on where they were if it goes and comes back.
    pub(super) numbers: BTreeMap<CameraId, Numbers>,
    /// Tells that answers come too late.
    pub(super) late: Reminder,
    /// When the latest batch was done; counts batches.
    pub(super) last_batch: Option<Instant>,
    pub(super) queries: watch::Receiver<Arc<QuerySet>>,
    pub(super) inlets: watch::Receiver<Vec<Arc<dyn Inlet>>>,
    pub(super) pulse: Pulse,
    /// Where the tracks are, for the model to look there first.
    pub(super) followed: Arc<Followed>,
}

/// What a camera's events and tracks are numbered by, in one epoch.
#[derive(Default)]
pub(super) struct Numbers {
    /// Events sent since the start.
    events: u64,
    /// The last track of a camera that is gone.
    tracks: u64,
}

/// How often tracks are looked at when no frame comes.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);

/// No frame is in the model for longer than this after its camera went.
const IN_FLIGHT: Duration = Duration::from_mins(10);

impl Delivery {
    /// Delivers until the model ends or nobody listens any more; an error is why the lines could not be written any more.
    pub(super) async fn run(
        mut self,
        mut groundings: mpsc::Receiver<Grounding>,
        mut gone: mpsc::Receiver<(CameraId, Instant)>,
    ) -> io::Result<()> {
        let mut written = Ok(());
        let mut views: BTreeMap<CameraId, View> = BTreeMap::new();
        let mut removed: BTreeMap<CameraId, Instant> = BTreeMap::new();
        let mut snapshots = Snapshots::new(self.snapshot_every);
        let leave = self.leave.clone();
        let mut expiry = tokio::time::interval(EXPIRE_EVERY);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                Some((camera, at)) = gone.recv() => {
                    if let Some(view) = views.remove(&camera) {
                        self.part(&camera, view);
                    }
                    snapshots.forget(&camera);
                    removed.insert(camera, at);
                }
                grounding = groundings.recv() => {
                    let Some(grounding) = grounding else { break };
                    let pulse = self.pulse.clone();
                    let _busy = pulse.busy();
                    if removed.get(&grounding.frame.camera).is_some_and(|at| grounding.frame.decoded_at <= *at) {
                        // Still in the model when its camera went: it must not bring the camera's topics back.
                        grounding.frame.ticket.drop_for(DropReason::Shutdown);
                        continue;
                    }
                    let camera = grounding.frame.camera.clone();
                    let last_id = self.numbers.get(&camera).map_or(0, |numbers| numbers.tracks);
                    let view = views.entry(camera).or_insert_with(|| View::new(&self.track, last_id));
                    if let Err(error) = self.deliver(grounding, view, &mut snapshots).await {
                        // Who closes a pipe has seen enough; anything else is a loss.
                        if error.kind() == io::ErrorKind::BrokenPipe {
                            info!("nobody reads the output any more");
                        } else {
                            written = Err(error);
                        }
                        break;
                    }
                }
                () = leave.cancelled() => break,
                Some(snapshot) = snapshots.made() => {
                    let asked = (&snapshot.query, snapshot.rev);
                    let known = views.get(&snapshot.camera).is_some_and(|v| v.counts.contains_key(&snapshot.query));
                    let wanted = known && self.runs(asked, &snapshot.camera);
                    if wanted {
                        self.publish(snapshot);
                    }
                }
                _ = expiry.tick() => {
                    removed.retain(|_, at| at.elapsed() < IN_FLIGHT);
                    let now = Instant::now();
                    for (camera, view) in &mut views {
                        self.expire(camera, view, now);
                    }
                    for (camera, view) in views.extract_if(.., |camera, view| self.is_over(camera, view)).collect::<Vec<_>>() {
                        self.part(&camera, view);
                    }
                }
            }
        }
        // What is done and will not be told any more is accounted for as well.
        groundings.close();
        while let Ok(grounding) = groundings.try_recv() {
            grounding.frame.ticket.drop_for(DropReason::Shutdown);
        }
        for (camera, view) in &mut views {
            self.end(camera, view);
            if self.passing {
                self.clear(camera, view.counts.keys());
            }
        }
        written
    }

    fn publish(&self, Snapshot { camera, query, jpeg, .. }: Snapshot) {
        if let Some((publisher, topics)) = &self.sinks.publisher {
            publisher.state(topics.snapshot(&camera, &query), jpeg);
        }
    }

    /// Whether this is a film, and all its pictures were answered.
    fn is_over(&self, camera: &CameraId, view: &View) -> bool {
        let drained = |inlet: &Arc<dyn Inlet>| inlet.camera() == camera && inlet.is_drained();
        self.films.contains(camera) && view.frames.in_flight() == 0 && self.inlets.borrow().iter().any(drained)
    }

    /// Ends what is told of a camera, and takes back what is retained of it.
    fn part(&mut self, camera: &CameraId, mut view: View) {
        self.end(camera, &mut view);
        self.clear(camera, view.counts.keys());
        self.numbers.entry(camera.clone()).or_default().tracks = view.tracker.last_id();
    }

    /// Ends every open event: nobody looks at this camera any more. Who is there is not told: nobody knows.
    fn end(&mut self, camera: &CameraId, view: &mut View) {
        let events = view.tracker.update(&mut [], Instant::now(), SystemTime::now());
        self.followed.set(camera, Vec::new());
        self.tell(camera, &events);
    }

    /// Ends the events of a camera that gives no pictures any more, and takes back who is there: its silence does not say that
    /// nobody is.
    fn expire(&mut self, camera: &CameraId, view: &mut View, now: Instant) {
        // A film that gives no picture is waited for. And of a picture that waits for the model, or is in it, more will be told
        // however long that takes.
        if self.films.contains(camera) || view.frames.in_flight() > 0 {
            return;
        }
        let now = now.checked_sub(view.delay).unwrap_or(now);
        let events = view.tracker.expire(now);
        view.forget(now);
        self.announce(camera, view, &events);
    }

    /// Says now and then that an answer came too late: with a model slower than that nothing is ever published, and nothing
    /// else would say why.
    fn tell_late(&mut self, age: Duration, limit: Duration, now: Instant) {
        if self.late.is_due(now) {
            tracing::warn!(
                "an answer came {} ms after its picture and is not published: {} ms are allowed; take a faster model, fewer \
                 cameras or queries, or allow more (`staleness_ms` in [schedule], --staleness-ms of watch)",
                age.as_millis(),
                limit.as_millis()
            );
        }
    }

    async fn deliver(
        &mut self,
        mut grounding: Grounding,
        view: &mut View,
        snapshots: &mut Snapshots,
    ) -> io::Result<()> {
        let now = Instant::now();
        let frame = Arc::clone(&grounding.frame);
        let seen_at = if self.films.contains(&frame.camera) { self.started + frame.pts } else { frame.arrived_at() };
        if !view.revisions().all(|asked| self.runs(asked, &frame.camera)) {
            // What was said in answer to another question is taken back before this one is answered.
            self.announce(&frame.camera, view, &[]);
        }
        view.fit(frame.source());
        view.frames = Arc::clone(frame.ticket.ledger());
        let events = view.tracker.update(&mut grounding.answers, seen_at, frame.capture.at);
        self.followed.set(&frame.camera, view.tracker.predicted(seen_at));
        view.delay = now.saturating_duration_since(seen_at);
        for answer in grounding.answers.iter().filter(|answer| answer.status == Status::Ok) {
            view.answer(&answer.query, seen_at);
        }
        view.forget(seen_at);
        self.announce(&frame.camera, view, &events);
        let age = now.saturating_duration_since(frame.arrived_at());
        let late = self.staleness.filter(|limit| age > *limit);
        let message = late.is_none().then(|| payload::detections(&grounding, &self.epoch, SystemTime::now(), now));
        // Of queries that were removed or changed while the model was at work nothing else is kept or counted.
        grounding.answers.retain(|answer| self.runs((&answer.query.id, answer.query.rev), &frame.camera));
        self.count(&grounding);
        let Some(message) = message else {
            self.tell_late(age, late.unwrap_or_default(), now);
            frame.ticket.drop_for(DropReason::Stale);
            return Ok(());
        };
        if self.sinks.publisher.is_some() {
            snapshots.consider(&grounding);
        }
        let (published, printed) = self.send(&frame.camera, &message).await;
        match (published, &printed) {
            (true, _) => frame.ticket.publish(),
            (false, Ok(())) => frame.ticket.drop_for(DropReason::Broker),
            (false, Err(_)) => frame.ticket.drop_for(DropReason::Shutdown),
        }
        self.show(&grounding, message, published);
        printed
    }

    /// Hands a frame's message to the broker and to whoever reads the lines. Whether anybody has it, and whether lines can still be
    /// written.
    async fn send(&mut self, camera: &CameraId, message: &Bytes) -> (bool, io::Result<()>) {
        let mut sent = self.sinks.publisher.is_none() && self.sinks.lines.is_none();
        if let Some((publisher, topics)) = &self.sinks.publisher {
            let (topic, message) = (topics.detections(camera), message.clone());
            let taken = if self.every_frame {
                tokio::select! {
                    biased;
                    () = self.leave.cancelled() => Err(Refused::Offline),
                    taken = publisher.live_in_time(topic, message) => taken,
                }
            } else {
                publisher.live(topic, message)
            };
            sent = taken.is_ok();
        }
        let printed = self.sinks.lines.as_mut().map(|print| print(message));
        sent |= matches!(printed, Some(Ok(())));
        (sent, printed.unwrap_or(Ok(())))
    }

    /// Counts what the model did, also where it comes too late to be published.
    fn count(&mut self, grounding: &Grounding) {
        let Some(hub) = &self.sinks.hub else { return };
        hub.metrics().grounding(grounding);
        // The frames of one batch share the moment it was done.
        if self.last_batch.replace(grounding.timings.done_at) != Some(grounding.timings.done_at) {
            hub.metrics().batch(grounding.timings.batch);
        }
    }

    /// Shows a frame in the live view, whether or not it was published.
    fn show(&self, grounding: &Grounding, message: Bytes, published: bool) {
        let Some(hub) = &self.sinks.hub else { return };
        if published {
            hub.metrics().age(SystemTime::now().duration_since(grounding.frame.capture.at).unwrap_or_default());
        }
        hub.frame(&grounding.frame, message);
    }

    /// Publishes events.
    fn tell(&mut self, camera: &CameraId, events: &[TrackEvent]) {
        let Some((publisher, topics)) = self.sinks.publisher.as_ref().filter(|_| !events.is_empty()) else { return };
        let number = &mut self.numbers.entry(camera.clone()).or_default().events;
        for event in events {
            *number += 1;
            publisher.event(topics.events(camera), payload::event(camera, event, &self.epoch, *number));
        }
    }

    /// Publishes events, and what they changed about who is present.
    fn announce(&mut self, camera: &CameraId, view: &mut View, events: &[TrackEvent]) {
        self.tell(camera, events);
        let Some((publisher, topics)) = self.sinks.publisher.clone() else { return };
        let holds = |id: &QueryId, answered: &mut Answered| self.runs((id, answered.rev), camera);
        view.answered.retain(holds);
        view.before.retain(holds);
        let mut counts: BTreeMap<QueryId, Option<usize>> =
            view.answered.keys().map(|id| (id.clone(), Some(0))).collect();
        for (query, count) in view.tracker.presence() {
            if let Some(entry) = counts.get_mut(&query) {
                *entry = view.count(&query, count);
            }
        }
        for id in view.before.keys() {
            counts.entry(id.clone()).or_default();
        }
        self.clear(camera, view.counts.keys().filter(|id| !counts.contains_key(*id)));
        for (query, count) in &counts {
            let before = view.counts.get(query).copied().flatten();
            if count.is_none() && before.is_some() {
                self.unsay(camera, query);
            }
            let Some(count) = count.filter(|count| before != Some(*count)) else { continue };
            publisher.state(topics.count(camera, query), payload::count(count));
            if before.is_none_or(|b| (b > 0) != (count > 0)) {
                publisher.state(topics.present(camera, query), payload::present(count > 0));
            }
        }
        view.counts = counts;
    }

    /// Whether a query runs on `camera`, in this revision.
    fn runs(&self, (query, rev): (&QueryId, u32), camera: &CameraId) -> bool {
        self.queries.borrow().of(query, camera).is_some_and(|query| query.rev == rev)
    }

    /// Takes back who is there.
    fn unsay(&self, camera: &CameraId, query: &QueryId) {
        if let Some((publisher, topics)) = &self.sinks.publisher {
            board::unsay(publisher, topics, camera, query);
        }
    }

    /// Takes back the retained topics of queries that no longer run on `camera`.
    fn clear<'a>(&self, camera: &CameraId, queries: impl Iterator<Item = &'a QueryId>) {
        for query in queries {
            self.unsay(camera, query);
            if let Some((publisher, topics)) = &self.sinks.publisher {
                publisher.state(topics.snapshot(camera, query), Bytes::new());
            }
        }
    }
}
