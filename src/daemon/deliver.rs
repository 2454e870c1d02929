//! Groundings -> tracks -> messages -> everyone who listens. One task, so that a camera's messages keep their order.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Plan, board,
    snapshot::{Snapshot, Snapshots},
    systemd::STUCK,
    view::{Change, Said, View},
};
use crate::{
    http::Hub,
    publish::{Publisher, Refused, payload},
    schedule::Inlet,
    types::{
        Answer, CameraId, DropReason, Followed, Grounding, Pulse, QueryId, QuerySet, Reminder, Status, TrackEvent,
    },
};

/// Prints one detections message; an error ends the delivery (nobody reads any more).
pub type LineSink = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// Who gets the results.
#[derive(Default)]
pub struct Sinks {
    /// The broker.
    pub publisher: Option<Publisher>,
    /// The live view and the metrics.
    pub hub: Option<Hub>,
    /// A line a frame.
    pub lines: Option<LineSink>,
}

/// What is the same for all cameras, and what goes on when one goes.
pub(super) struct Delivery {
    plan: Plan,
    sinks: Sinks,
    epoch: String,
    queries: watch::Receiver<Arc<QuerySet>>,
    inlets: watch::Receiver<Vec<Arc<dyn Inlet>>>,
    pub(super) pulse: Pulse,
    /// Where the tracks are, for the model to look there first.
    pub(super) followed: Arc<Followed>,
    /// Ends the delivery at once: the model is still at work and will not be waited for.
    pub(super) leave: CancellationToken,
    /// Where a film's own time begins.
    started: Instant,
    /// Each camera's numbers, which go on where they were if it goes and comes back.
    numbers: BTreeMap<CameraId, Numbers>,
    /// Tells that answers come too late.
    late: Reminder,
    /// When the latest batch was done; counts batches.
    last_batch: Option<Instant>,
}

/// What is known of the cameras that are there, and of those that just went.
struct Seen {
    views: BTreeMap<CameraId, View>,
    removed: BTreeMap<CameraId, Instant>,
    snapshots: Snapshots,
}

/// What a camera's events and tracks are numbered by, in one epoch.
#[derive(Default)]
struct Numbers {
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
    pub(super) fn new(
        plan: Plan,
        sinks: Sinks,
        epoch: String,
        queries: watch::Receiver<Arc<QuerySet>>,
        inlets: watch::Receiver<Vec<Arc<dyn Inlet>>>,
    ) -> Self {
        Self {
            plan,
            sinks,
            epoch,
            queries,
            inlets,
            pulse: Pulse::new("deliver"),
            followed: Arc::default(),
            leave: CancellationToken::new(),
            started: Instant::now(),
            numbers: BTreeMap::new(),
            late: Reminder::default(),
            last_batch: None,
        }
    }

    /// Delivers until the model ends or nobody listens any more; an error is why the lines could not be written any more.
    pub(super) async fn run(
        mut self,
        mut groundings: mpsc::Receiver<Grounding>,
        mut gone: mpsc::Receiver<(CameraId, Instant)>,
    ) -> io::Result<()> {
        let snapshots = Snapshots::new(self.plan.snapshot_every);
        let mut seen = Seen { views: BTreeMap::new(), removed: BTreeMap::new(), snapshots };
        let leave = self.leave.clone();
        let mut expiry = tokio::time::interval(EXPIRE_EVERY);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let written = loop {
            tokio::select! {
                biased;
                Some((camera, at)) = gone.recv() => self.camera_gone(&mut seen, camera, at),
                grounding = groundings.recv() => {
                    let Some(grounding) = grounding else { break Ok(()) };
                    if let Err(error) = self.grounded(&mut seen, grounding).await {
                        break Err(error);
                    }
                }
                () = leave.cancelled() => break Ok(()),
                Some(snapshot) = seen.snapshots.made() => self.snapshot_made(&seen, snapshot),
                _ = expiry.tick() => self.tick(&mut seen),
            }
        };
        // What is done and will not be told any more is accounted for as well.
        groundings.close();
        while let Ok(grounding) = groundings.try_recv() {
            grounding.frame.ticket.drop_for(DropReason::Shutdown);
        }
        self.wind_up(&mut seen);
        match written {
            // Who closes a pipe has seen enough; anything else is a loss.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                info!("nobody reads the output any more");
                Ok(())
            }
            written => written,
        }
    }

    fn camera_gone(&mut self, seen: &mut Seen, camera: CameraId, at: Instant) {
        if let Some(view) = seen.views.remove(&camera) {
            self.part(&camera, view);
        }
        seen.snapshots.forget(&camera);
        seen.removed.insert(camera, at);
    }

    async fn grounded(&mut self, seen: &mut Seen, grounding: Grounding) -> io::Result<()> {
        let pulse = self.pulse.clone();
        let _busy = pulse.busy();
        let Seen { views, removed, snapshots } = seen;
        if removed.get(&grounding.frame.camera).is_some_and(|at| grounding.frame.decoded_at <= *at) {
            // Still in the model when its camera went: it must not bring the camera's topics back.
            grounding.frame.ticket.drop_for(DropReason::Shutdown);
            return Ok(());
        }
        let camera = grounding.frame.camera.clone();
        let last_id = self.numbers.get(&camera).map_or(0, |numbers| numbers.tracks);
        let frames = grounding.frame.ticket.ledger();
        let view = views.entry(camera).or_insert_with(|| View::new(&self.plan.track, last_id, Arc::clone(frames)));
        self.deliver(grounding, view, snapshots).await
    }

    fn snapshot_made(&self, seen: &Seen, Snapshot { camera, query, rev, jpeg }: Snapshot) {
        let known = seen.views.get(&camera).is_some_and(|view| view.said.contains_key(&query));
        if known
            && self.runs((&query, rev), &camera)
            && let Some(publisher) = &self.sinks.publisher
        {
            publisher.state(publisher.topics().snapshot(&camera, &query), jpeg);
        }
    }

    /// Looks after what no picture comes of.
    fn tick(&mut self, seen: &mut Seen) {
        seen.removed.retain(|_, at| at.elapsed() < IN_FLIGHT);
        let now = Instant::now();
        // Before a camera's picture the model may be at one of each other camera, at each for as long as it does not count as stuck.
        let patience = STUCK * u32::try_from(seen.views.len()).unwrap_or(u32::MAX);
        for (camera, view) in &mut seen.views {
            self.expire(camera, view, now, patience);
        }
        for (camera, view) in seen.views.extract_if(.., |camera, view| self.is_over(camera, view)).collect::<Vec<_>>() {
            self.part(&camera, view);
        }
    }

    /// Ends everything.
    fn wind_up(&mut self, seen: &mut Seen) {
        for (camera, view) in &mut seen.views {
            self.end(camera, view);
            // Nobody comes after.
            if self.plan.finite {
                self.clear(camera, view.said.keys());
            }
        }
    }

    /// Whether this is a film, and all its pictures were answered.
    fn is_over(&self, camera: &CameraId, view: &View) -> bool {
        let drained = |inlet: &Arc<dyn Inlet>| inlet.camera() == camera && inlet.is_drained();
        self.plan.films.contains(camera) && !view.has_more() && self.inlets.borrow().iter().any(drained)
    }

    /// Ends what is told of a camera, and takes back what is retained of it.
    fn part(&mut self, camera: &CameraId, mut view: View) {
        self.end(camera, &mut view);
        self.clear(camera, view.said.keys());
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
    fn expire(&mut self, camera: &CameraId, view: &mut View, now: Instant, patience: Duration) {
        if self.plan.films.contains(camera) {
            // A film that gives no picture is waited for.
            return;
        }
        if view.has_more() && now.saturating_duration_since(view.delivered) < patience {
            // A picture of it waits for the model, or is in it: that is no silence. What was said of other queries is taken back.
            self.announce(camera, view, &[]);
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
        self.track(&mut grounding, view, now);
        let age = now.saturating_duration_since(frame.arrived_at());
        let late = self.plan.staleness().filter(|limit| age > *limit);
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

    /// Follows what was found at `now`, and tells what that changed.
    fn track(&mut self, grounding: &mut Grounding, view: &mut View, now: Instant) {
        let frame = Arc::clone(&grounding.frame);
        let is_film = self.plan.films.contains(&frame.camera);
        let seen_at = if is_film { self.started + frame.pts } else { frame.arrived_at() };
        if !view.said.iter().all(|(query, said)| self.runs((query, said.rev), &frame.camera)) {
            // What was said in answer to another question is taken back before this one is answered.
            self.announce(&frame.camera, view, &[]);
        }
        view.fit(frame.source());
        let events = view.tracker.update(&mut grounding.answers, seen_at, frame.capture.at);
        self.followed.set(&frame.camera, view.tracker.predicted(seen_at));
        (view.delay, view.delivered) = (now.saturating_duration_since(seen_at), now);
        for Answer { query, .. } in grounding.answers.iter().filter(|answer| answer.status == Status::Ok) {
            // Of one that was removed or changed while the model was at work nothing is said that would have to be taken back.
            if self.runs((&query.id, query.rev), &frame.camera) {
                view.answer(query, seen_at);
            }
        }
        view.forget(seen_at);
        self.announce(&frame.camera, view, &events);
    }

    /// Hands a frame's message to the broker and to whoever reads the lines. Whether anybody has it, and whether lines can still be
    /// written.
    async fn send(&mut self, camera: &CameraId, message: &Bytes) -> (bool, io::Result<()>) {
        let mut sent = self.sinks.publisher.is_none() && self.sinks.lines.is_none();
        if let Some(publisher) = &self.sinks.publisher {
            let (topic, message) = (publisher.topics().detections(camera), message.clone());
            let taken = if self.plan.every_frame {
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
            hub.metrics().age(payload::age(&grounding.frame, SystemTime::now(), Instant::now()));
        }
        hub.frame(&grounding.frame, message);
    }

    /// Publishes events.
    fn tell(&mut self, camera: &CameraId, events: &[TrackEvent]) {
        let Some(publisher) = self.sinks.publisher.as_ref().filter(|_| !events.is_empty()) else { return };
        let number = &mut self.numbers.entry(camera.clone()).or_default().events;
        for event in events {
            *number += 1;
            publisher.event(publisher.topics().events(camera), payload::event(camera, event, &self.epoch, *number));
        }
    }

    /// Publishes events, and what they changed about who is present.
    fn announce(&mut self, camera: &CameraId, view: &mut View, events: &[TrackEvent]) {
        self.tell(camera, events);
        let Some(publisher) = &self.sinks.publisher else { return };
        let outdated = |query: &QueryId, said: &mut Said| !self.runs((query, said.rev), camera);
        let gone: Vec<_> = view.said.extract_if(.., outdated).collect();
        self.clear(camera, gone.iter().map(|(query, _)| query));
        for Change { query, before, now } in view.recount() {
            let Some(count) = now else {
                board::unsay(publisher, camera, &query);
                continue;
            };
            publisher.state(publisher.topics().count(camera, &query), payload::count(count));
            if before.is_none_or(|before| (before > 0) != (count > 0)) {
                publisher.state(publisher.topics().present(camera, &query), payload::present(count > 0));
            }
        }
    }

    /// Whether a query runs on `camera`, in this revision.
    fn runs(&self, (query, rev): (&QueryId, u32), camera: &CameraId) -> bool {
        self.queries.borrow().of(query, camera).is_some_and(|query| query.rev == rev)
    }

    /// Takes back the retained topics of queries that no longer run on `camera`.
    fn clear<'a>(&self, camera: &CameraId, queries: impl Iterator<Item = &'a QueryId>) {
        let Some(publisher) = &self.sinks.publisher else { return };
        for query in queries {
            board::unsay(publisher, camera, query);
            publisher.state(publisher.topics().snapshot(camera, query), Bytes::new());
        }
    }
}
