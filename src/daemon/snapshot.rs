//! The best crop of a query as JPEG, now and then, off the delivery's path.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use crate::types::{BBox, CameraId, Frame, Grounding, QueryId, Rgb, Size};

/// Part of the box added on every side, so that one sees where the object is.
const MARGIN: f32 = 0.15;
/// Longest side of a snapshot, in pixels.
const LONGEST: f32 = 640.0;
const QUALITY: u8 = 85;
/// Snapshots that are made and wait to be published.
const MADE: usize = 16;
/// Snapshots that are made at a time; while there are so many, no other is begun.
const MAKING: usize = 4;

/// A picture of the best match.
pub(super) struct Snapshot {
    pub(super) camera: CameraId,
    pub(super) query: QueryId,
    /// The query's revision that was asked.
    pub(super) rev: u32,
    pub(super) jpeg: Bytes,
}

/// Remembers when each snapshot was last made, and hands over those that are done.
pub(super) struct Snapshots {
    /// `None` is never.
    every: Option<Duration>,
    /// And of which revision of the query.
    last: HashMap<(CameraId, QueryId), (u32, Instant)>,
    /// How many may be in the making: each holds a picture of full size.
    making: Arc<Semaphore>,
    done: mpsc::Sender<Snapshot>,
    made: mpsc::Receiver<Snapshot>,
}

impl Snapshots {
    pub(super) fn new(every: Option<Duration>) -> Self {
        let (done, made) = mpsc::channel(MADE);
        Self { every, last: HashMap::new(), making: Arc::new(Semaphore::new(MAKING)), done, made }
    }

    /// Begins to make a snapshot of the best match of each query whose last one is old enough.
    pub(super) fn consider(&mut self, grounding: &Grounding) {
        let Some(every) = self.every else { return };
        for answer in &grounding.answers {
            let Some(best) = answer.matches.first() else { continue };
            let (frame, query, rev) = (Arc::clone(&grounding.frame), answer.query.id.clone(), answer.query.rev);
            let Ok(permit) = Arc::clone(&self.making).try_acquire_owned() else { return };
            if !self.due(&frame.camera, &query, rev, every) {
                continue;
            }
            let (bbox, done) = (best.bbox, self.done.clone());
            tokio::task::spawn_blocking(move || {
                match jpeg(&frame, &bbox) {
                    Ok(jpeg) => {
                        let snapshot = Snapshot { camera: frame.camera.clone(), query, rev, jpeg: jpeg.into() };
                        // Nobody takes it any more at the end.
                        done.blocking_send(snapshot).ok();
                    }
                    Err(error) => warn!(camera = %frame.camera, %error, "no snapshot"),
                }
                drop(permit);
            });
        }
    }

    /// The next one that is done: whoever publishes it looks whether it is still wanted.
    pub(super) async fn made(&mut self) -> Option<Snapshot> {
        self.made.recv().await
    }

    /// A camera is gone: the first match of one of its name has a picture at once.
    pub(super) fn forget(&mut self, camera: &CameraId) {
        self.last.retain(|(of, _), _| of != camera);
    }

    /// Another revision asks for something else, of which there is no picture yet.
    fn due(&mut self, camera: &CameraId, query: &QueryId, rev: u32, every: Duration) -> bool {
        let now = Instant::now();
        let key = (camera.clone(), query.clone());
        let is_new = |(of, at): &(u32, Instant)| *of == rev && now.saturating_duration_since(*at) < every;
        let due = !self.last.get(&key).is_some_and(is_new);
        if due {
            self.last.insert(key, (rev, now));
        }
        due
    }
}

fn jpeg(frame: &Frame, bbox: &BBox) -> Result<Vec<u8>, String> {
    let [x1, y1, x2, y2] = bbox.corners();
    let (mx, my) = (bbox.width() * MARGIN, bbox.height() * MARGIN);
    let area = BBox::new(x1 - mx, y1 - my, x2 + mx, y2 + my)
        .and_then(|b| b.clipped(frame.source()))
        .ok_or("the box lies outside the picture")?;
    let scale = (LONGEST / area.width().max(area.height())).min(1.0);
    let picture = match &frame.full {
        Some(full) => full.crop(&area, scaled(&area, scale))?,
        None => return Err("the source keeps no full-size picture".to_owned()),
    };
    encode(&picture)
}

fn scaled(area: &BBox, scale: f32) -> Size {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to LONGEST")]
    let side = |v: f32| (v * scale).round().max(1.0) as u32;
    Size::new(side(area.width()), side(area.height()))
}

fn encode(picture: &Rgb) -> Result<Vec<u8>, String> {
    let mut bytes = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&picture.data, picture.size.width, picture.size.height, ExtendedColorType::Rgb8)
        .map_err(|e| e.to_string())?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {

    use image::RgbImage;

    use super::*;
    use crate::types::{Answer, FullFrame, Match, Method, Query, ScoreKind, Status, Timings, Via, Worth};

    const HD: Size = Size { width: 1280, height: 720 };

    /// A picture whose pixels say where they are: red left of 1200, green above 360.
    struct Corners;

    impl FullFrame for Corners {
        fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
            let [left, top, ..] = area.corners();
            let (across, down) = (area.width() / size.width as f32, area.height() / size.height as f32);
            let mut data = Vec::with_capacity(size.area() * 3);
            for y in 0..size.height {
                for x in 0..size.width {
                    let (x, y) = (left + across * (x as f32 + 0.5), top + down * (y as f32 + 0.5));
                    let lit = |is: bool| -> u8 { if is { 250 } else { 10 } };
                    data.extend([lit(x < 1200.0), lit(y < 360.0), 10]);
                }
            }
            Rgb::new(size, data).ok_or_else(|| "a wrong size".to_owned())
        }
    }

    fn frame(source: Size, full: Option<Arc<dyn FullFrame>>) -> Arc<Frame> {
        Arc::new(Frame { full, ..Frame::black("gate", &Arc::default(), source, Size::new(64, 36)) })
    }

    fn bbox([x1, y1, x2, y2]: [f32; 4]) -> BBox {
        BBox::new(x1, y1, x2, y2).unwrap()
    }

    fn decoded(jpeg: &[u8]) -> RgbImage {
        image::load_from_memory(jpeg).unwrap().to_rgb8()
    }

    /// The snapshot of a box on a picture of `source`.
    fn snapshot(source: Size, corners: [f32; 4]) -> RgbImage {
        decoded(&jpeg(&frame(source, Some(Arc::new(Corners))), &bbox(corners)).unwrap())
    }

    #[test]
    fn a_box_half_outside_is_shown_with_its_margin_as_far_as_the_picture_goes() {
        // With its margin from 1150 to 1410, of which 1280 are there, and from 295 to 425.
        let shown = snapshot(HD, [1180.0, 310.0, 1380.0, 410.0]);
        assert_eq!(shown.dimensions(), (130, 130));
        for (x, y, red, green) in
            [(20, 20, true, true), (100, 20, false, true), (20, 110, true, false), (100, 110, false, false)]
        {
            let [r, g, _] = shown.get_pixel(x, y).0;
            assert_eq!((r > 200, g > 200), (red, green), "{r} {g} at {x},{y}");
        }
    }

    #[test]
    fn no_side_is_longer_than_the_longest_and_none_is_nothing() {
        assert_eq!(snapshot(HD, [0.0, 0.0, 1280.0, 720.0]).dimensions(), (640, 360));
        assert_eq!(snapshot(Size::new(720, 1280), [0.0, 0.0, 720.0, 1280.0]).dimensions(), (360, 640));
        assert_eq!(snapshot(HD, [5.0, 5.0, 5.2, 5.1]).dimensions(), (1, 1));
        assert_eq!(snapshot(HD, [0.0, 300.0, 1280.0, 300.1]).dimensions(), (640, 1));
    }

    #[test]
    fn without_a_full_picture_or_outside_of_it_there_is_no_snapshot() {
        let inside = bbox([10.0, 10.0, 50.0, 50.0]);
        assert!(jpeg(&frame(HD, None), &inside).unwrap_err().contains("full-size"));
        let outside = bbox([2000.0, 10.0, 2050.0, 50.0]);
        assert!(jpeg(&frame(HD, Some(Arc::new(Corners))), &outside).unwrap_err().contains("outside"));
    }

    #[test]
    fn one_is_due_at_once_and_again_after_the_interval() {
        let mut snapshots = Snapshots::new(None);
        let [gate, yard] = ["gate", "yard"].map(|id| CameraId::new(id).unwrap());
        let [car, dog] = ["car", "dog"].map(|id| QueryId::new(id).unwrap());
        let (long, short) = (Duration::from_mins(10), Duration::from_millis(20));
        assert!(snapshots.due(&gate, &car, 1, long));
        assert!(!snapshots.due(&gate, &car, 1, long));
        assert!(snapshots.due(&gate, &dog, 1, long) && snapshots.due(&yard, &car, 1, long), "each has its own");
        std::thread::sleep(short);
        // What was not due does not put off what is.
        assert!(!snapshots.due(&gate, &car, 1, long));
        assert!(snapshots.due(&gate, &car, 1, short));
    }

    fn grounding(boxes: &[[f32; 4]]) -> Grounding {
        let query = Arc::new(Query {
            id: QueryId::new("car").unwrap(),
            rev: 1,
            text: "car".into(),
            cameras: None,
            method: Method::Auto,
            threshold: None,
            worth: Worth::default(),
        });
        let found = |corners: &[f32; 4]| Match {
            bbox: bbox(*corners),
            score: 0.5,
            score_kind: ScoreKind::Proposal,
            track: None,
            via: Via { method: Method::Retrieve, model: "m".into(), crop: None, fresh: true },
        };
        let answers =
            vec![Answer { query, status: Status::Ok, matches: boxes.iter().map(found).collect(), complete: true }];
        let timings = Timings { queued: Duration::ZERO, inferred: Duration::ZERO, done_at: Instant::now(), batch: 1 };
        Grounding { frame: frame(HD, Some(Arc::new(Corners))), answers, timings }
    }

    #[tokio::test]
    async fn of_several_matches_the_best_is_made_unless_snapshots_are_off() {
        let seen = grounding(&[[100.0, 100.0, 200.0, 200.0], [300.0, 300.0, 310.0, 310.0]]);
        let mut off = Snapshots::new(None);
        off.consider(&seen);
        assert!(off.last.is_empty());
        let mut snapshots = Snapshots::new(Some(Duration::from_mins(10)));
        snapshots.consider(&grounding(&[]));
        assert!(snapshots.last.is_empty(), "nothing was found, and the next find would have to wait");
        snapshots.consider(&seen);
        let made = snapshots.made().await.unwrap();
        assert_eq!((made.camera.as_str(), made.query.as_str()), ("gate", "car"));
        assert_eq!(decoded(&made.jpeg).dimensions(), (130, 130));
    }
}
