//! The best crop of a query as JPEG, now and then, off the delivery's path.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use tokio::sync::mpsc;
use tracing::warn;

use crate::types::{BBox, CameraId, Frame, Grounding, QueryId, Rgb, Size};

/// Part of the box added on every side, so that one sees where the object is.
const MARGIN: f32 = 0.15;
/// Longest side of a snapshot, in pixels.
const LONGEST: f32 = 640.0;
const QUALITY: u8 = 85;
/// Snapshots that are made and wait to be published.
const MADE: usize = 16;

/// A picture of the best match.
pub(super) struct Snapshot {
    pub(super) camera: CameraId,
    pub(super) query: QueryId,
    pub(super) jpeg: Bytes,
}

/// Remembers when each snapshot was last made, and hands over those that are done.
pub(super) struct Snapshots {
    /// `None` is never.
    every: Option<Duration>,
    last: HashMap<(CameraId, QueryId), Instant>,
    done: mpsc::Sender<Snapshot>,
    made: mpsc::Receiver<Snapshot>,
}

impl Snapshots {
    pub(super) fn new(every: Option<Duration>) -> Self {
        let (done, made) = mpsc::channel(MADE);
        Self { every, last: HashMap::new(), done, made }
    }

    /// Begins to make a snapshot of the best match of each query whose last one is old enough.
    pub(super) fn consider(&mut self, grounding: &Grounding) {
        let Some(every) = self.every else { return };
        for answer in &grounding.answers {
            let Some(best) = answer.matches.first() else { continue };
            let (frame, query) = (Arc::clone(&grounding.frame), answer.query.id.clone());
            if !self.due(&frame.camera, &query, every) {
                continue;
            }
            let (bbox, done) = (best.bbox, self.done.clone());
            tokio::task::spawn_blocking(move || match jpeg(&frame, &bbox) {
                Ok(jpeg) => {
                    let snapshot = Snapshot { camera: frame.camera.clone(), query, jpeg: jpeg.into() };
                    // Nobody takes it any more at the end.
                    done.blocking_send(snapshot).ok();
                }
                Err(error) => warn!(camera = %frame.camera, %error, "no snapshot"),
            });
        }
    }

    /// The next one that is done: whoever publishes it looks whether it is still wanted.
    pub(super) async fn made(&mut self) -> Option<Snapshot> {
        self.made.recv().await
    }

    fn due(&mut self, camera: &CameraId, query: &QueryId, every: Duration) -> bool {
        let now = Instant::now();
        let key = (camera.clone(), query.clone());
        let due = self.last.get(&key).is_none_or(|at| now.saturating_duration_since(*at) >= every);
        if due {
            self.last.insert(key, now);
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
