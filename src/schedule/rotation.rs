//! Which cameras' frames go into the next batch: round robin, at most one frame a camera, nothing stale.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::types::{CameraId, DropReason, Frame};

/// Where one camera's frames come out.
pub trait Inlet: Send + Sync {
    /// Whose frames these are.
    fn camera(&self) -> &CameraId;
    /// Takes the next frame, if there is one.
    fn take(&self, now: Instant) -> Option<Frame>;
    /// Whether there never will be another frame.
    fn is_drained(&self) -> bool;
}

/// From how many frames in a row that are all too old it is no hiccup.
const MANY: u32 = 5;

/// Remembers whose turn is next.
#[derive(Debug, Default)]
pub struct Rotation {
    last: Option<CameraId>,
    /// How many frames in a row were too old, of the cameras whose last one was.
    stale: BTreeMap<CameraId, u32>,
    /// What [`Rotation::late`] tells.
    late: Option<(CameraId, Duration)>,
}

impl Rotation {
    /// Takes at most `max` frames, at most one from each inlet that `may` give one, beginning after the camera served last. Frames that
    /// arrived more than `staleness` before `now` are settled as [`DropReason::Stale`] and do not count.
    pub fn cut(
        &mut self,
        inlets: &[Arc<dyn Inlet>],
        may: impl Fn(&CameraId) -> bool,
        max: usize,
        staleness: Option<Duration>,
        now: Instant,
    ) -> Vec<Frame> {
        let start = self
            .last
            .as_ref()
            .and_then(|last| inlets.iter().position(|inlet| inlet.camera() == last))
            .map_or(0, |i| i + 1);
        let mut frames = Vec::new();
        self.late = None;
        self.stale.retain(|camera, _| inlets.iter().any(|inlet| inlet.camera() == camera));
        for inlet in inlets.iter().cycle().skip(start).take(inlets.len()) {
            if frames.len() == max.max(1) {
                break;
            }
            if may(inlet.camera())
                && let Some(frame) = self.fresh(inlet.as_ref(), staleness, now)
            {
                self.last = Some(inlet.camera().clone());
                frames.push(frame);
            }
        }
        frames
    }

    /// A camera of which the last cut met a frame that was too old, like those before it, and that frame's age.
    pub fn late(&self) -> Option<&(CameraId, Duration)> {
        self.late.as_ref()
    }

    fn fresh(&mut self, inlet: &dyn Inlet, staleness: Option<Duration>, now: Instant) -> Option<Frame> {
        loop {
            let frame = inlet.take(now)?;
            let age = now.saturating_duration_since(frame.arrived_at());
            if staleness.is_none_or(|limit| age <= limit) {
                self.stale.remove(inlet.camera());
                return Some(frame);
            }
            frame.ticket.drop_for(DropReason::Stale);
            let stale = self.stale.entry(inlet.camera().clone()).or_default();
            *stale = stale.saturating_add(1);
            if *stale >= MANY {
                self.late = Some((inlet.camera().clone(), age));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::types::{Ledger, Size};

    struct Camera {
        id: CameraId,
        ledger: Arc<Ledger>,
        frames: Mutex<VecDeque<Frame>>,
    }

    impl Inlet for Camera {
        fn camera(&self) -> &CameraId {
            &self.id
        }
        fn take(&self, _: Instant) -> Option<Frame> {
            self.frames.lock().unwrap().pop_front()
        }
        fn is_drained(&self) -> bool {
            self.frames.lock().unwrap().is_empty()
        }
    }

    fn frame(camera: &Camera, seq: u64, arrived: Instant) -> Frame {
        let blank = Frame::black(camera.id.as_str(), &camera.ledger, Size::new(1, 1), Size::new(1, 1));
        Frame { seq, decoded_at: arrived, ..blank }
    }

    /// Cameras whose frames arrived the given milliseconds after `start`.
    fn cameras(start: Instant, arrivals: &[Vec<u64>]) -> Vec<Arc<Camera>> {
        arrivals
            .iter()
            .enumerate()
            .map(|(i, times)| {
                let camera = Camera {
                    id: CameraId::new(&format!("cam{i}")).unwrap(),
                    ledger: Arc::default(),
                    frames: Mutex::default(),
                };
                for (seq, ms) in (0u64..).zip(times) {
                    let frame = frame(&camera, seq, start + Duration::from_millis(*ms));
                    camera.frames.lock().unwrap().push_back(frame);
                }
                Arc::new(camera)
            })
            .collect()
    }

    fn inlets(cameras: &[Arc<Camera>]) -> Vec<Arc<dyn Inlet>> {
        cameras.iter().map(|c| Arc::clone(c) as Arc<dyn Inlet>).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nothing_stale_is_served_and_no_camera_waits_two_rounds(
            arrivals in proptest::collection::vec(proptest::collection::vec(0u64..2000, 0..12), 1..8),
            max in 1usize..10,
            staleness in proptest::option::of(0u64..1500),
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(2);
            let cameras = cameras(start, &arrivals);
            let inlets = inlets(&cameras);
            let staleness = staleness.map(Duration::from_millis);
            let mut rotation = Rotation::default();
            let mut waited = vec![0usize; cameras.len()];
            loop {
                let had: Vec<bool> = cameras.iter().map(|c| !c.is_drained()).collect();
                let cut = rotation.cut(&inlets, |_| true, max, staleness, now);
                if cut.is_empty() { break; }
                prop_assert!(cut.len() <= max);
                for (i, camera) in cameras.iter().enumerate() {
                    let served = cut.iter().filter(|f| f.camera == camera.id).count();
                    prop_assert!(served <= 1, "a camera took two places of one batch");
                    waited[i] = if served == 1 || !had[i] { 0 } else { waited[i] + 1 };
                    prop_assert!(waited[i] <= cameras.len().div_ceil(max), "camera {} starves", camera.id);
                }
                for frame in &cut {
                    prop_assert!(staleness.is_none_or(|limit| now - frame.arrived_at() <= limit));
                    frame.ticket.publish();
                }
            }
            for (camera, times) in cameras.iter().zip(&arrivals) {
                prop_assert_eq!(camera.ledger.published() + camera.ledger.dropped(DropReason::Stale), times.len() as u64);
                prop_assert_eq!(camera.ledger.in_flight(), 0);
            }
        }
    }

    #[test]
    fn a_camera_whose_pictures_are_all_too_old_is_named_and_one_that_hiccups_is_not() {
        let (start, limit) = (Instant::now(), Duration::from_millis(100));
        let now = start + Duration::from_secs(1);
        for (arrivals, late) in [(vec![0; 4], false), (vec![0; 5], true), (vec![0, 0, 0, 0, 990, 0], false)] {
            let cameras = cameras(start, &[vec![950; 9], arrivals]);
            let (inlets, mut rotation, mut named) = (inlets(&cameras), Rotation::default(), false);
            while cameras.iter().any(|camera| !camera.is_drained()) {
                rotation.cut(&inlets, |_| true, 2, Some(limit), now).iter().for_each(|frame| frame.ticket.publish());
                let told =
                    rotation.late().filter(|(camera, age)| *camera == cameras[1].id && *age == Duration::from_secs(1));
                named |= told.is_some();
            }
            assert_eq!(named, late);
            rotation.cut(&inlets, |_| true, 2, Some(limit), now);
            assert!(rotation.late().is_none(), "not named again when nothing comes");
        }
    }

    #[test]
    fn a_busy_camera_does_not_take_a_quiet_ones_turn() {
        let start = Instant::now();
        let cameras = cameras(start, &[vec![0; 9], vec![0], vec![0]]);
        let inlets = inlets(&cameras);
        let mut rotation = Rotation::default();
        let order: Vec<String> = (0..5)
            .flat_map(|_| rotation.cut(&inlets, |_| true, 1, None, start))
            .map(|frame| frame.camera.to_string())
            .collect();
        assert_eq!(order, ["cam0", "cam1", "cam2", "cam0", "cam0"]);
    }

    #[test]
    fn a_camera_that_may_not_give_a_picture_keeps_it_and_its_turn() {
        let start = Instant::now();
        let cameras = cameras(start, &[vec![0; 2], vec![0; 2], vec![0; 2]]);
        let inlets = inlets(&cameras);
        let mut rotation = Rotation::default();
        let mut cut = |away: &[&str]| {
            let may = |camera: &CameraId| !away.contains(&camera.as_str());
            let frames = rotation.cut(&inlets, may, 1, None, start);
            for frame in &frames {
                frame.ticket.publish();
            }
            frames.first().map(|frame| frame.camera.to_string())
        };
        assert_eq!(cut(&[]).as_deref(), Some("cam0"));
        assert_eq!(cut(&["cam0"]).as_deref(), Some("cam1"));
        assert_eq!(cut(&["cam0", "cam1"]).as_deref(), Some("cam2"));
        assert_eq!(cut(&["cam0", "cam1", "cam2"]), None);
        assert_eq!(cut(&["cam0", "cam2"]).as_deref(), Some("cam1"));
        assert_eq!(cut(&["cam1"]).as_deref(), Some("cam2"));
        assert_eq!(cut(&[]).as_deref(), Some("cam0"));
        assert!(cameras.iter().all(|camera| camera.is_drained()));
    }
}
