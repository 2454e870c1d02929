//! What a service tells about itself besides results: its queries' states, discovery, statistics and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use super::{Sinks, queries::Changes, systemd, wishes::Wishes};
use crate::{
    config::Config,
    ground::{Grounder, QueryCheck},
    http::{Broker, Hub},
    ingest::{self, CameraConfig},
    publish::{
        Publisher, Target, discovery,
        payload::{self, SetState},
    },
    types::{CameraId, Ledger, Pulse, Query, QueryId, QuerySet, Work},
};

/// The notice board; see the module.
pub(super) struct Board {
    pub(super) publisher: Publisher,
    hub: Hub,
    epoch: String,
    checker: QueryCheck,
    /// What the model did, and was spared.
    work: Arc<Work>,
    /// Prefix of Home Assistant's discovery topics; `None` is off.
    discovery: Option<String>,
    /// Whether there are snapshots to discover.
    snapshots: bool,
    /// Where cameras' pipeline templates are looked for.
    pipelines: Option<PathBuf>,
    /// Revisions of the cameras.
    cameras: Changes<CameraId, CameraConfig>,
    /// What is wrong with cameras, by the revision that was looked at.
    problems: BTreeMap<CameraId, (u32, Option<String>)>,
    /// What was told last, to take back what is gone.
    told: BTreeSet<Target>,
    announced: BTreeSet<(CameraId, QueryId)>,
    /// Queries that cannot be answered, and in which revision that was logged.
    warned: BTreeMap<QueryId, u32>,
    /// What is answered, or is about to be.
    begun: BTreeSet<(CameraId, QueryId)>,
    started: Instant,
}

impl Board {
    /// The board of a service whose `model` is loaded. What is `unsaid` was taken back already.
    pub(super) fn new(
        config: &Config,
        model: &dyn Grounder,
        publisher: Publisher,
        unsaid: BTreeSet<(CameraId, QueryId)>,
        hub: Hub,
        epoch: String,
    ) -> Self {
        let work = model.work();
        hub.set_state("model", json!(model.describe().to_string()));
        hub.metrics().work(Arc::clone(&work));
        hub.ready("model", Ok(()));
        Self {
            publisher,
            hub,
            epoch,
            checker: model.checker(),
            work,
            discovery: config.mqtt.discovery_prefix.clone(),
            snapshots: config.mqtt.snapshot_every().is_some(),
            pipelines: config.pipelines.clone(),
            cameras: Changes::default(),
            problems: BTreeMap::new(),
            told: BTreeSet::new(),
            announced: BTreeSet::new(),
            warned: BTreeMap::new(),
            begun: unsaid,
            started: Instant::now(),
        }
    }

    /// Where the results of this service go.
    pub(super) fn sinks(&self) -> Sinks {
        Sinks { publisher: Some(self.publisher.clone()), hub: Some(self.hub.clone()), lines: None }
    }

    /// What this start is told apart by.
    pub(super) fn epoch(&self) -> String {
        self.epoch.clone()
    }

    /// `/healthz` sees the same stages as systemd's watchdog.
    pub(super) fn watch_pulses(&self, pulses: &[Pulse]) {
        for pulse in pulses {
            self.hub.watch_pulse(pulse.clone(), systemd::STUCK);
        }
    }

    /// Tells which queries are in force, which the model cannot answer, and which messages were not obeyed; takes back what
    /// is gone. `queries` are all of them, paused ones too.
    pub(super) fn tell(&mut self, queries: &QuerySet, wishes: &Wishes) {
        let (paused, cameras) = (wishes.paused(), wishes.cameras());
        let refused = |id: &QueryId| wishes.refused().get(&Target::Query(id.clone()));
        let states: Vec<_> = queries
            .iter()
            .map(|query| self.query_state(query, &cameras, paused.contains(&query.id), refused(&query.id)))
            .collect();
        self.hub.query_states(states.into());
        self.cameras.note(&cameras);
        for (id, camera) in &cameras {
            let note = wishes.refused().get(&Target::Camera(id.clone())).map(|reason| not_obeyed(reason));
            let (rev, problem) = (self.cameras.rev(id), self.problem(id, camera));
            let status = if problem.is_some() { SetState::Failed } else { SetState::Active };
            let state = payload::set_state(rev, status, note.or(problem).as_deref());
            self.publisher.state(self.publisher.topics().camera_state(id), state);
        }
        let mut told: BTreeSet<_> = queries.iter().map(|query| Target::Query(query.id.clone())).collect();
        told.extend(cameras.keys().cloned().map(Target::Camera));
        for (target, reason) in wishes.refused().iter().filter(|(target, _)| !told.contains(*target)) {
            self.publisher.state(self.state_topic(target), payload::set_state(0, SetState::Failed, Some(reason)));
        }
        told.extend(wishes.refused().keys().cloned());
        for gone in self.told.difference(&told) {
            self.publisher.state(self.state_topic(gone), Bytes::new());
            match gone {
                Target::Query(id) => {
                    self.hub.metrics().remove_query(id);
                    self.warned.remove(id);
                }
                Target::Camera(id) => drop(self.problems.remove(id)),
            }
        }
        self.told = told;
        self.discover(queries, &cameras);
    }

    /// Of a query that a camera is asked from now on nobody knows yet who is there: what an earlier start said, and left when it was
    /// killed, is not this one's word.
    pub(super) fn begin(&mut self, queries: &QuerySet, cameras: &BTreeMap<CameraId, CameraConfig>) {
        let begun = covered(queries, cameras);
        for (camera, query) in begun.difference(&self.begun) {
            unsay(&self.publisher, camera, query);
        }
        self.begun = begun;
    }

    /// Why a camera cannot work as it is set. What it lacks on this machine just now is its status' business: it may be there the
    /// next time it is tried.
    fn problem(&mut self, id: &CameraId, camera: &CameraConfig) -> Option<String> {
        let rev = self.cameras.rev(id);
        match self.problems.get(id) {
            // A pipeline is built to see whether it can be: not whenever something else changes. What is wrong may lie in a file
            // beside the configuration, and be mended there.
            Some((of, None)) if *of == rev => None,
            _ => {
                let error = ingest::check(camera, self.pipelines.as_deref()).err();
                let problem = error.filter(|error| !error.is_unavailable()).map(|error| error.to_string());
                self.problems.insert(id.clone(), (rev, problem.clone()));
                problem
            }
        }
    }

    fn state_topic(&self, target: &Target) -> String {
        match target {
            Target::Query(id) => self.publisher.topics().query_state(id),
            Target::Camera(id) => self.publisher.topics().camera_state(id),
        }
    }

    fn query_state(
        &mut self,
        query: &Query,
        cameras: &BTreeMap<CameraId, CameraConfig>,
        paused: bool,
        refused: Option<&String>,
    ) -> serde_json::Value {
        let problem = (self.checker)(query).err();
        // Once, and not whenever something else changes.
        if let Some(reason) = &problem
            && self.warned.insert(query.id.clone(), query.rev) != Some(query.rev)
        {
            warn!(query = %query.id, "the query cannot be answered: {reason}");
        }
        let status = match &problem {
            Some(_) => SetState::Failed,
            None if paused => SetState::Paused,
            None => SetState::Active,
        };
        let nowhere = (!cameras.keys().any(|camera| query.covers(camera)))
            .then(|| "none of its cameras is there; it is asked as soon as one is".to_owned());
        let reason = refused.map(|reason| not_obeyed(reason)).or(problem).or(nowhere);
        let state = payload::set_state(query.rev, status, reason.as_deref());
        self.publisher.state(self.publisher.topics().query_state(&query.id), state);
        json!({
            "id": query.id, "rev": query.rev, "text": query.text, "cameras": query.cameras,
            "method": query.method, "status": status, "reason": reason,
        })
    }

    /// What is gone goes first: Home Assistant takes a camera away with its last entity, and a moment later whatever that has by then.
    fn discover(&mut self, queries: &QuerySet, cameras: &BTreeMap<CameraId, CameraConfig>) {
        let Some(prefix) = &self.discovery else { return };
        let topics = self.publisher.topics();
        let announced = covered(queries, cameras);
        let gone = self.announced.difference(&announced);
        let gone = gone.flat_map(|(camera, query)| discovery::withdraw(topics, prefix, camera, query));
        let there = announced.iter().filter_map(|(camera, query)| Some((camera, queries.of(query, camera)?)));
        let there =
            there.flat_map(|(camera, query)| discovery::announce(topics, prefix, camera, query, self.snapshots));
        for (topic, payload) in gone.chain(there) {
            self.publisher.state(topic, payload);
        }
        self.announced = announced;
    }

    /// Topics of the pictures that may be there of queries in force.
    pub(super) fn pictures(&self, queries: &QuerySet, wishes: &Wishes) -> BTreeSet<String> {
        let cameras = wishes.cameras();
        let of = |query: &Arc<Query>| {
            let covered = cameras.keys().filter(|camera| self.snapshots && query.covers(camera));
            covered.map(|camera| self.publisher.topics().snapshot(camera, &query.id)).collect::<Vec<_>>()
        };
        queries.iter().flat_map(of).collect()
    }

    /// Publishes the counters.
    pub(super) fn stats(&self, accounts: &[(CameraId, Arc<Ledger>)]) {
        let cameras = accounts.iter().map(|(id, ledger)| (id, ledger.as_ref()));
        let stats = payload::stats(&self.epoch, self.started.elapsed(), cameras, &self.work, &self.publisher.stats());
        self.publisher.state(self.publisher.topics().stats(), stats);
    }

    /// Brings the numbers behind `/metrics` and the live view up to date.
    pub(super) fn metrics(&self, accounts: &[(CameraId, Arc<Ledger>)]) {
        for (camera, ledger) in accounts {
            self.hub.metrics().camera(camera, Arc::clone(ledger));
        }
        let stats = self.publisher.stats();
        self.hub.metrics().broker(Broker {
            connected: stats.up,
            connects: stats.connects,
            messages: stats.sent_live + stats.states_acked + stats.events_acked,
            outbox: stats.events_waiting,
            outbox_dropped: stats.events_lost + stats.events_refused,
        });
        let connection = self.publisher.connection().borrow().clone();
        self.hub.set_state("broker", json!(connection));
    }
}

/// Each camera with each query that it is asked.
pub(super) fn covered(queries: &QuerySet, cameras: &BTreeMap<CameraId, CameraConfig>) -> BTreeSet<(CameraId, QueryId)> {
    let pairs = cameras.keys().flat_map(|camera| queries.iter().map(move |query| (camera, query)));
    pairs
        .filter(|(camera, query)| query.covers(camera))
        .map(|(camera, query)| (camera.clone(), query.id.clone()))
        .collect()
}

/// Takes back who is there.
pub(super) fn unsay(publisher: &Publisher, camera: &CameraId, query: &QueryId) {
    let topics = publisher.topics();
    for topic in [topics.present(camera, query), topics.count(camera, query)] {
        publisher.state(topic, Bytes::new());
    }
}

/// The reason beside something that goes on as it was.
fn not_obeyed(reason: &str) -> String {
    format!("the last message was not obeyed: {reason}")
}
