//! The things on one frame, and how well one of them fits a place where nothing overlaps it.

use crate::types::{Answer, BBox, ScoreKind, Status};

/// Boxes of different queries that overlap this much are one object.
const SAME: f32 = 0.7;
/// Scores from here on are sure.
const SURE: f32 = 0.5;
/// How far an object may have moved against its prediction, in box sizes: at once, a second, at most.
const REACH: (f64, f64, f64) = (0.5, 2.5, 1.5);
/// Objects on one frame, but for the best match of each query, beyond which boxes stay without a track.
pub(super) const MAX_OBJECTS: usize = 128;

/// One thing on this frame, with every match that shows it: places in the answers.
pub(super) struct Object {
    pub(super) bbox: BBox,
    pub(super) sure: bool,
    pub(super) members: Vec<(usize, usize)>,
}

/// The things on a frame: matches of different queries that are one, the surest first.
pub(super) fn objects(answers: &[Answer]) -> Vec<Object> {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (a, answer) in answers.iter().enumerate() {
        places.extend((0..answer.matches.len()).map(|m| (a, m)));
    }
    let at = |(a, m): (usize, usize)| &answers[a].matches[m];
    places.sort_by(|x, y| at(*y).score.total_cmp(&at(*x).score));
    let mut objects: Vec<Object> = Vec::new();
    for place in places {
        let found = at(place);
        let same = objects
            .iter()
            .enumerate()
            .filter(|(_, object)| object.members.iter().all(|(answer, _)| *answer != place.0))
            .map(|(index, object)| (object.bbox.iou(&found.bbox), index))
            .filter(|(iou, _)| *iou >= SAME)
            .max_by(|x, y| x.0.total_cmp(&y.0));
        let sure = found.score >= SURE || found.score_kind == ScoreKind::None;
        match same {
            Some((_, index)) => {
                objects[index].members.push(place);
                objects[index].sure |= sure;
            }
            // In a crowd of one query's the others have their best, so that what is there is not said to be gone.
            None if objects.len() < MAX_OBJECTS || place.1 == 0 => {
                objects.push(Object { bbox: found.bbox, sure, members: vec![place] });
            }
            None => {}
        }
    }
    objects
}

/// How well a box fits a prediction it does not overlap, 0 to 1; `None` if it is too far away or of another size.
pub(super) fn closeness(bbox: &BBox, predicted: &BBox, since: f64) -> Option<f32> {
    let size = |b: &BBox| (f64::from(b.width()) * f64::from(b.height())).sqrt();
    let (a, b) = (size(bbox), size(predicted));
    if a > 2.0 * b || b > 2.0 * a {
        return None;
    }
    let ((x1, y1), (x2, y2)) = (bbox.center(), predicted.center());
    let distance = (f64::from(x1) - f64::from(x2)).hypot(f64::from(y1) - f64::from(y2)) / (a * b).sqrt();
    let (now, each_second, most) = REACH;
    let reach = (now + each_second * since).min(most);
    #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
    let score = (1.0 - distance / reach) as f32;
    (distance <= reach).then_some(score)
}

/// Whether what an answer does not hold was looked for, and is not there.
pub(super) fn tells_absence(answer: &Answer) -> bool {
    answer.status == Status::Ok && answer.complete
}
