//! One viewer's stream: picks what to send, when, and never more than one thing ahead of the reader.
//!
//! A stream has two events. `overview` is the JSON of everything but pictures, at least once a second. `frame` is one
//! picture with the detections found on that very picture:
//! `{"age_ms":…,"sent_ms":…,"camera":…,"width":…,"height":…,"aspect":…,"jpeg":"<base64>","detections":{…}}`.
//! `age_ms` is the age of the pixels at `sent_ms`, a clock that counts milliseconds from the viewer's arrival.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::sleep_until,
};

use super::{
    hub::{Hub, Shot, millis},
    picture::{Picture, encoded},
};
use crate::types::CameraId;

/// Pictures a second a viewer gets of one camera, at most.
const PER_CAMERA: u32 = 15;
/// Pictures a second a viewer gets in all, at most.
const IN_ALL: u32 = 60;
/// An overview is sent this often, and soon after a state changed.
const OVERVIEW: Duration = Duration::from_secs(1);
const OVERVIEW_SOON: Duration = Duration::from_millis(150);
/// An event is sent in this many pieces: what differs between viewers, and what is shared.
pub(super) const PIECES: usize = 2;

/// What a viewer has got so far.
#[derive(Debug, Default)]
struct Seen {
    shots: BTreeMap<CameraId, (u64, Instant)>,
    overview: Option<(u64, Instant)>,
}

/// What to do next for a viewer.
#[derive(Debug, PartialEq)]
enum Next {
    Overview,
    Frame(CameraId),
    /// Nothing is due before this time.
    Wait(Instant),
}

impl Seen {
    /// Chooses among `latest` (each camera's newest frame) and the overview. The camera that waited longest is first,
    /// so a fast camera never crowds out a slow one.
    fn next(&mut self, latest: &[(CameraId, u64)], states: u64, now: Instant) -> Next {
        let due = self.overview.map(|(version, at)| at + if version == states { OVERVIEW } else { OVERVIEW_SOON });
        let Some(mut wake) = due.filter(|due| *due > now) else { return Next::Overview };
        self.shots.retain(|id, _| latest.iter().any(|(known, _)| known == id));
        let cameras = u32::try_from(latest.len()).unwrap_or(u32::MAX);
        let gap = (Duration::from_secs(1) / PER_CAMERA).max(Duration::from_secs(1) / IN_ALL * cameras);
        let mut best: Option<(Option<Instant>, &CameraId)> = None;
        for (id, number) in latest {
            let last = self.shots.get(id);
            if last.is_some_and(|(sent, _)| sent >= number) {
                continue;
            }
            let at = last.map(|(_, at)| *at);
            match at.map(|at| at + gap).filter(|due| *due > now) {
                Some(due) => wake = wake.min(due),
                None if best.is_none_or(|(first, _)| at < first) => best = Some((at, id)),
                None => {}
            }
        }
        best.map_or(Next::Wait(wake), |(_, id)| Next::Frame(id.clone()))
    }
}

/// A viewer: which cameras it asked for and where its stream goes.
pub(super) struct Viewer {
    pub(super) hub: Hub,
    /// One camera, or all.
    pub(super) only: Option<CameraId>,
    /// Threads that compress pictures at once; shared by all viewers, so that watching never starves the model.
    pub(super) encoders: Arc<Semaphore>,
    pub(super) pieces: mpsc::Sender<Bytes>,
    /// Changes when the server stops.
    pub(super) stop: watch::Receiver<bool>,
}

impl Viewer {
    /// Sends until the viewer goes or the server stops.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        let pieces = self.pieces.clone();
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = pieces.closed() => {}
            () = self.send_all() => {}
        }
    }

    async fn send_all(&mut self) {
        let (mut seen, mut news) = (Seen::default(), self.hub.news());
        let opened = Instant::now();
        loop {
            // Room first, choice second: what is chosen now is sent now.
            let Ok(mut room) = self.pieces.reserve_many(PIECES).await else { return };
            news.mark_unchanged();
            let now = Instant::now();
            let event = match seen.next(&self.latest(), self.hub.states_version(), now) {
                Next::Wait(until) => {
                    drop(room);
                    tokio::select! {
                        changed = news.changed() => if changed.is_err() { return },
                        () = sleep_until(until.into()) => {}
                    }
                    continue;
                }
                Next::Overview => {
                    seen.overview = Some((self.hub.states_version(), now));
                    Some(overview(&self.hub))
                }
                Next::Frame(camera) => self.frame(&camera, &mut seen, opened).await,
            };
            for (permit, piece) in room.by_ref().zip(event.into_iter().flatten()) {
                permit.send(piece);
            }
        }
    }

    fn latest(&self) -> Vec<(CameraId, u64)> {
        match &self.only {
            Some(id) => self.hub.shot(id).map(|shot| (id.clone(), shot.number)).into_iter().collect(),
            None => self.hub.latest(),
        }
    }

    /// The newest frame of `camera` as an event; `None` if it cannot be shown or the camera went.
    async fn frame(&self, camera: &CameraId, seen: &mut Seen, opened: Instant) -> Option<[Bytes; PIECES]> {
        let permit = Arc::clone(&self.encoders).acquire_owned().await.ok()?;
        // Taken after the wait for a thread: still the newest.
        let shot = self.hub.shot(camera)?;
        seen.shots.insert(camera.clone(), (shot.number, Instant::now()));
        let shared = shot.event(&self.hub, permit).await;
        let (age, shared) = shared.inspect_err(|why| tracing::debug!(why, "a frame is not shown")).ok()?;
        let now = Instant::now();
        let age = age + millis(now.saturating_duration_since(shot.at));
        let sent = millis(now.saturating_duration_since(opened));
        Some([Bytes::from(format!("event: frame\ndata: {{\"age_ms\":{age:.1},\"sent_ms\":{sent},\n")), shared])
    }
}

fn overview(hub: &Hub) -> [Bytes; PIECES] {
    let mut json = hub.status_json();
    json["cameras"] = hub.cameras_json();
    [Bytes::from_static(b"event: overview\n"), Bytes::from(format!("data: {json}\n\n"))]
}

impl Shot {
    /// The picture, compressed by the first who asks.
    pub(super) async fn picture(self: &Arc<Self>, hub: &Hub, permit: OwnedSemaphorePermit) -> Result<&Picture, String> {
        let encode = move || async move {
            let made = encoded(permit, Arc::clone(&self.frame), None).await;
            hub.metrics().pictures.inc();
            made
        };
        self.picture.get_or_try_init(encode).await
    }

    /// The pixels' age when they were published, and the part of the frame's event that every viewer gets.
    async fn event(self: &Arc<Self>, hub: &Hub, permit: OwnedSemaphorePermit) -> Result<(f64, Bytes), String> {
        let make = move || async move {
            let picture = self.picture(hub, permit).await?;
            let detections = self.detections();
            let age = detections["time"]["age_ms"].as_f64().unwrap_or(0.0);
            let head = json!({
                "camera": self.frame.camera, "width": picture.size.width, "height": picture.size.height,
                "aspect": picture.aspect, "detections": detections,
            });
            // The members without their braces: the viewer's own stand before them, the picture after.
            let head = head.to_string();
            let members = head.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
            let jpeg = BASE64.encode(&picture.jpeg);
            Ok::<_, String>((age, Bytes::from(format!("data: {members},\"jpeg\":\"{jpeg}\"}}\n\n"))))
        };
        self.event.get_or_try_init(make).await.cloned()
    }

    /// The message published with the frame; null if it is not JSON.
    pub(super) fn detections(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(i: usize) -> CameraId {
        CameraId::new(&format!("cam{i}")).unwrap()
    }

    #[test]
    fn a_new_viewer_gets_the_overview_then_every_camera() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        let latest = [(id(0), 1), (id(1), 2)];
        assert_eq!(seen.next(&latest, 0, now), Next::Overview);
        seen.overview = Some((0, now));
        for camera in 0..2 {
            assert_eq!(seen.next(&latest, 0, now), Next::Frame(id(camera)));
            seen.shots.insert(id(camera), (latest[camera].1, now));
        }
        assert_eq!(seen.next(&latest, 0, now), Next::Wait(now + OVERVIEW));
        assert_eq!(seen.next(&latest, 1, now), Next::Wait(now + OVERVIEW_SOON), "a state changed");
    }

    proptest! {
        /// Cameras of any speed: nobody starves, and nobody exceeds the rate.
        #[test]
        fn every_camera_gets_its_turn(periods in proptest::collection::vec(1u64..200, 1..12), cost in 1u64..40) {
            let (mut seen, start) = (Seen { overview: Some((0, Instant::now())), ..Seen::default() }, Instant::now());
            let mut sent = vec![Vec::new(); periods.len()];
            let mut ms = 0;
            while ms < 3000 {
                let now = start + Duration::from_millis(ms);
                seen.overview = Some((0, now));
                let latest: Vec<_> = periods.iter().enumerate().map(|(i, p)| (id(i), 1 + ms / p)).collect();
                match seen.next(&latest, 0, now) {
                    Next::Frame(camera) => {
                        let i = latest.iter().position(|(known, _)| *known == camera).unwrap();
                        seen.shots.insert(camera, (latest[i].1, now));
                        sent[i].push(ms);
                        ms += cost;
                    }
                    _ => ms += 1,
                }
            }
            let round = cost * periods.len() as u64;
            for (times, period) in sent.iter().zip(&periods) {
                let gaps: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
                prop_assert!(gaps.iter().all(|gap| *gap >= 66), "{gaps:?}");
                let longest = 68.max(17 * periods.len() as u64) + period + 2 * round;
                prop_assert!(gaps.iter().all(|gap| *gap <= longest), "{gaps:?} over {longest}");
            }
        }
    }
}
