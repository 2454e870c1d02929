//! Worlds made up at random: whatever comes, ids keep their promises.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Part of the frame time it is late, whether it is dropped, and for each object whether it is seen and the noise.
type LaneFrame = (f64, bool, Vec<(bool, f32)>);

/// Objects that move along lanes of their own, seen now and then.
#[derive(Debug, Clone)]
struct Lanes {
    /// Speed (sizes a second) and width of each.
    objects: Vec<(f32, f32)>,
    fps: f64,
    frames: Vec<LaneFrame>,
}

impl Lanes {
    /// Whether something may be missing on the frame `at`. How fast a thing is shows when it is seen again: if that has
    /// to wait, a fast one is beyond reach.
    fn may_miss(&self, at: usize) -> bool {
        at > 1 || self.objects.iter().all(|(speed, _)| speed.abs() <= 0.8)
    }
}

fn lanes() -> impl Strategy<Value = Lanes> {
    let objects = proptest::collection::vec((-2.0f32..2.0, 40.0f32..120.0), 1..5);
    let seen = proptest::collection::vec(
        (proptest::bool::weighted(0.85), (-30i8..30).prop_map(|off| f32::from(off) / 1000.0)),
        5,
    );
    let frame = (0.0f64..0.3, proptest::bool::weighted(0.1), seen);
    // Fast things overlap themselves no more from frame to frame where there are few.
    let fps = prop_oneof![2.0f64..4.0, 4.0f64..30.0];
    (objects, fps, proptest::collection::vec(frame, 10..60)).prop_map(|(objects, fps, frames)| Lanes {
        objects,
        fps,
        frames,
    })
}

proptest! {
    #[test]
    fn ids_are_unique_and_stable_for_what_does_not_cross(world in lanes()) {
        let q = query("q");
        // A loss longer than this is an end; the world may have gaps of several frames at 2 a second.
        let config = TrackConfig { lost_seconds: 4.0, ..TrackConfig::default() };
        let mut bench = Bench { tracker: Tracker::new(config), start: Instant::now() };
        let mut ids: BTreeMap<usize, u64> = BTreeMap::new();
        let mut last_seen: BTreeMap<usize, f64> = BTreeMap::new();
        for (i, (late, dropped, seen)) in world.frames.iter().enumerate() {
            if *dropped && world.may_miss(i) { continue }
            let t = (i as f64 + late) / world.fps;
            let mut matches = Vec::new();
            let mut truth = Vec::new();
            for (o, (speed, width)) in world.objects.iter().enumerate() {
                let (shown, noise) = seen[o];
                let size = width * 2f32.sqrt();
                // Longer out of sight, nothing could know where it went without a settled speed.
                let recent = last_seen.get(&o).is_some_and(|s| t - s < 0.7);
                if !shown && recent && world.may_miss(i) { continue }
                #[expect(clippy::cast_possible_truncation)]
                let x = 2000.0 + speed * size * t as f32 + noise * size;
                let y = 1000.0 * o as f32;
                matches.push(found([x, y, x + width, y + 2.0 * width], 0.4 + 0.1 * o as f32));
                truth.push(o);
                last_seen.insert(o, t);
            }
            let mut answers = [ok(&q, matches)];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            bench.update((t * 1000.0) as u64, &mut answers);
            for (o, found) in truth.iter().zip(&answers[0].matches) {
                let id = found.track.unwrap();
                prop_assert_eq!(*ids.entry(*o).or_insert(id), id, "object {} at {}", o, t);
            }
        }
        let all: BTreeSet<u64> = ids.values().copied().collect();
        prop_assert_eq!(all.len(), ids.len());
        prop_assert_eq!(all.last().copied().unwrap_or(0), ids.len() as u64);
    }

    #[test]
    fn every_life_is_new_updates_end_and_presence_is_what_is_open(
        frames in proptest::collection::vec(
            (
                0u64..1500,
                proptest::collection::vec(
                    (0u8..5, proptest::collection::vec((0f32..300.0, 0f32..300.0, any::<f32>()), 0..6)), 3,
                ),
                any::<bool>(),
            ),
            1..40,
        ),
    ) {
        let mut bench = Bench::new();
        let mut open: BTreeMap<(u64, String), bool> = BTreeMap::new();
        let mut ms = 0;
        for (step, queries, quiet) in frames {
            ms += step;
            let mut answers = Vec::new();
            for (i, (kind, boxes)) in queries.into_iter().enumerate() {
                let q = query_rev(&format!("q{i}"), 1 + u32::from(kind == 3));
                let boxes = boxes.iter().map(|(x, y, s)| found([*x, *y, x + 60.0, y + 60.0], *s)).collect();
                match kind {
                    0 => {}
                    1 => answers.push(shed(&q)),
                    2 => answers.push(incomplete(&q, boxes)),
                    _ => answers.push(ok(&q, boxes)),
                }
            }
            let events = if quiet { bench.expire(ms) } else { bench.update(ms, &mut answers) };
            for event in events {
                let key = (event.track, event.query.id.to_string());
                match event.kind {
                    EventKind::New => prop_assert_eq!(open.insert(key, true), None),
                    EventKind::Update => prop_assert!(open.contains_key(&key)),
                    EventKind::End => prop_assert_eq!(open.remove(&key), Some(true)),
                }
                prop_assert!(event.frames >= 2 && event.first_seen <= event.last_seen);
            }
            for answer in answers.iter().filter(|_| !quiet) {
                let ids: Vec<_> = answer.matches.iter().filter_map(|m| m.track).collect();
                prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
                prop_assert_eq!(ids.len(), answer.matches.len());
            }
            let present: BTreeMap<String, usize> =
                bench.tracker.presence().map(|(id, n)| (id.to_string(), n.unwrap_or(0))).collect();
            for (id, n) in &present {
                prop_assert_eq!(open.keys().filter(|(_, q)| q == id).count(), *n);
            }
            prop_assert_eq!(present.values().sum::<usize>(), open.len());
        }
    }

    #[test]
    fn nothing_that_can_be_a_box_makes_it_panic(
        frames in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec((any::<[f32; 4]>(), any::<f32>()), 0..20)), 1..20,
        ),
        lost in any::<f32>(), confirm in any::<u32>(), update in any::<f32>(),
    ) {
        let config = TrackConfig { lost_seconds: lost, confirm_frames: confirm, update_seconds: update };
        let mut bench = Bench { tracker: Tracker::new(config), start: Instant::now() };
        for (ms, boxes) in frames {
            let matches = boxes.into_iter().filter_map(|([a, b, c, d], s)| {
                BBox::new(a, b, c, d).map(|b| found(b.corners(), s))
            });
            bench.update(ms.into(), &mut [ok(&query("q"), matches.collect())]);
            bench.expire(u64::from(ms) / 2);
        }
    }
}
