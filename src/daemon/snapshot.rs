//! The best crop of a query as JPEG, now and then, off the delivery's path.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::Arc,
    time::{Duration, Instant},
};

use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use tracing::warn;

use crate::{
    publish::{Publisher, Topics},
    types::{BBox, CameraId, Frame, Grounding, QueryId, Rgb, Size},
};

/// Part of the box added on every side, so that one sees where the object is.
const MARGIN: f32 = 0.15;
/// Longest side of a snapshot, in pixels.
const LONGEST: f32 = 640.0;
const QUALITY: u8 = 85;

/// Remembers when each snapshot was last made.
pub(super) struct Snapshots {
    every: Duration,
    last: HashMap<(CameraId, QueryId), Instant>,
}

impl Snapshots {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, last: HashMap::new() }
    }

    /// Publishes the best match of each query whose last snapshot is old enough.
    pub(super) fn consider(&mut self, grounding: &Grounding, publisher: &Publisher, topics: &Topics) {
        let frame = &grounding.frame;
        for answer in &grounding.answers {
            let Some(best) = answer.matches.first() else { continue };
            if !self.due(&frame.camera, &answer.query.id) {
                continue;
            }
            let topic = topics.snapshot(&frame.camera, &answer.query.id);
            let (frame, bbox, publisher) = (Arc::clone(frame), best.bbox, publisher.clone());
            tokio::task::spawn_blocking(move || match jpeg(&frame, &bbox) {
                Ok(bytes) => publisher.state(topic, bytes.into()),
                Err(error) => warn!(camera = %frame.camera, %error, "no snapshot"),
            });
        }
    }

    fn due(&mut self, camera: &CameraId, query: &QueryId) -> bool {
        let now = Instant::now();
        let key = (camera.clone(), query.clone());
        let due = self.last.get(&key).is_none_or(|at| now.saturating_duration_since(*at) >= self.every);
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
