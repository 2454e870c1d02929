//! Where a box is going: a constant-velocity Kalman filter for its centre, a plain one for its size. Time steps are
//! whatever the camera makes them, so the noise grows with the step instead of with the frame.

use std::time::{Duration, Instant};

use crate::types::BBox;

/// Standard deviations, in box sizes (the square root of the area).
const MEASURED: f64 = 0.05;
const START_SPEED: f64 = 1.5;
const ACCELERATION: f64 = 1.5;
const GROWTH: f64 = 0.3;
/// Predictions reach no further ahead.
const HORIZON: Duration = Duration::from_secs(10);

/// One coordinate with its speed, and their covariance `[[a, b], [b, c]]`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    x: f64,
    v: f64,
    a: f64,
    b: f64,
    c: f64,
}

impl Axis {
    fn new(x: f64, size: f64) -> Self {
        Self { x, v: 0.0, a: (MEASURED * size).powi(2), b: 0.0, c: (START_SPEED * size).powi(2) }
    }

    fn predicted(self, dt: f64, size: f64) -> Self {
        // White acceleration over the step.
        let q = (ACCELERATION * size).powi(2);
        Self {
            x: self.x + self.v * dt,
            v: self.v,
            a: self.a + 2.0 * dt * self.b + dt * dt * self.c + q * dt.powi(4) / 4.0,
            b: self.b + dt * self.c + q * dt.powi(3) / 2.0,
            c: self.c + q * dt * dt,
        }
    }

    fn corrected(self, measured: f64, size: f64) -> Self {
        let total = self.a + (MEASURED * size).powi(2);
        let (gain_x, gain_v) = (self.a / total, self.b / total);
        let error = measured - self.x;
        Self {
            x: self.x + gain_x * error,
            v: self.v + gain_v * error,
            a: (1.0 - gain_x) * self.a,
            b: (1.0 - gain_x) * self.b,
            c: self.c - gain_v * self.b,
        }
    }

    fn scaled(self, by: f64) -> Self {
        let Self { x, v, a, b, c } = self;
        Self { x: x * by, v: v * by, a: a * by * by, b: b * by * by, c: c * by * by }
    }
}

/// A side's length and its variance.
#[derive(Debug, Clone, Copy)]
struct Side {
    length: f64,
    variance: f64,
}

impl Side {
    fn scaled(self, by: f64) -> Self {
        Self { length: self.length * by, variance: self.variance * by * by }
    }

    fn corrected(self, measured: f64, dt: f64, size: f64) -> Self {
        let variance = self.variance + (GROWTH * size).powi(2) * dt;
        let gain = variance / (variance + (MEASURED * size).powi(2));
        Self { length: self.length + gain * (measured - self.length), variance: (1.0 - gain) * variance }
    }
}

/// The motion of one box.
#[derive(Debug, Clone)]
pub(super) struct Motion {
    x: Axis,
    y: Axis,
    width: Side,
    height: Side,
    last: BBox,
    at: Instant,
}

impl Motion {
    pub(super) fn new(bbox: BBox, at: Instant) -> Self {
        let (size, (x, y)) = (size(&bbox), bbox.center());
        let edge = |length: f32| Side { length: length.into(), variance: (MEASURED * size).powi(2) };
        Self {
            x: Axis::new(x.into(), size),
            y: Axis::new(y.into(), size),
            width: edge(bbox.width()),
            height: edge(bbox.height()),
            last: bbox,
            at,
        }
    }

    /// Where the box should be at `now`.
    pub(super) fn predict(&self, now: Instant) -> BBox {
        let dt = self.step(now);
        let (x, y) = (self.x.x + self.x.v * dt, self.y.x + self.y.v * dt);
        let (w, h) = (self.width.length / 2.0, self.height.length / 2.0);
        #[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes infinite, hence no box")]
        let corner = |v: f64| v as f32;
        BBox::new(corner(x - w), corner(y - h), corner(x + w), corner(y + h)).unwrap_or(self.last)
    }

    /// It was seen at `bbox`.
    pub(super) fn correct(&mut self, bbox: BBox, now: Instant) {
        let (dt, size, (x, y)) = (self.step(now), size(&bbox), bbox.center());
        self.x = self.x.predicted(dt, size).corrected(x.into(), size);
        self.y = self.y.predicted(dt, size).corrected(y.into(), size);
        self.width = self.width.corrected(bbox.width().into(), dt, size);
        self.height = self.height.corrected(bbox.height().into(), dt, size);
        (self.last, self.at) = (bbox, self.at.max(now));
    }

    /// See [`super::Tracker::rescale`].
    pub(super) fn rescale(&mut self, by: [f32; 2]) {
        let [across, down] = by.map(f64::from);
        (self.x, self.y) = (self.x.scaled(across), self.y.scaled(down));
        (self.width, self.height) = (self.width.scaled(across), self.height.scaled(down));
        self.last = self.last.scaled(by);
    }

    /// Seconds since it was last seen.
    pub(super) fn step(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.at).min(HORIZON).as_secs_f64()
    }
}

fn size(bbox: &BBox) -> f64 {
    (f64::from(bbox.width()) * f64::from(bbox.height())).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steady_motion_is_learnt_at_any_rate(
            steps in proptest::collection::vec(0.03f64..0.6, 8..20), speed in -150.0f32..150.0,
        ) {
            let start = Instant::now();
            let at = |t: f64| {
                #[expect(clippy::cast_possible_truncation)]
                let x = 500.0 + speed * t as f32;
                BBox::new(x, 100.0, x + 60.0, 200.0).unwrap()
            };
            let mut motion = Motion::new(at(0.0), start);
            let mut t = 0.0;
            for step in steps {
                t += step;
                motion.correct(at(t), start + Duration::from_secs_f64(t));
            }
            let ahead = motion.predict(start + Duration::from_secs_f64(t + 0.5));
            prop_assert!(ahead.iou(&at(t + 0.5)) > 0.7, "{ahead:?} {:?}", at(t + 0.5));
        }

        #[test]
        fn any_box_at_any_time_leaves_a_box(
            boxes in proptest::collection::vec((any::<[f32; 4]>(), 0u64..100_000), 1..20), back in 0u64..1000,
        ) {
            let start = Instant::now() + Duration::from_secs(1);
            let mut boxes = boxes.into_iter().filter_map(|([a, b, c, d], ms)| Some((BBox::new(a, b, c, d)?, ms)));
            if let Some((first, _)) = boxes.next() {
                let mut motion = Motion::new(first, start);
                for (bbox, ms) in boxes {
                    motion.correct(bbox, start + Duration::from_millis(ms.saturating_sub(back)));
                    for ahead in [0, 40, 1_000_000_000] {
                        let predicted = motion.predict(start + Duration::from_millis(ahead));
                        let [x1, y1, x2, y2] = predicted.corners();
                        let finite = predicted.corners().iter().all(|v| v.is_finite());
                        prop_assert!(finite && x1 < x2 && y1 < y2, "{predicted:?}");
                    }
                }
            }
        }
    }
}
