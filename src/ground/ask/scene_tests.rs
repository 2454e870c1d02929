use super::*;
use crate::types::Size;

const SIZE: Size = Size { width: 16, height: 16 };
const HERE: [f32; 4] = [0.1, 0.1, 0.3, 0.3];
/// It has come nearer.
const GROWN: [f32; 4] = [0.1, 0.1, 0.3, 0.55];
const THERE: [f32; 4] = [0.6, 0.6, 0.8, 0.8];
/// Two things that do not look alike.
const CAR: [f32; 2] = [1.0, 0.0];
const BUS: [f32; 2] = [0.0, 1.0];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn picture(shade: u8) -> Rgb {
    Rgb::new(SIZE, vec![shade; SIZE.area() * 3]).unwrap()
}

fn scene(queries: usize) -> Scene {
    let mut scene = Scene::new();
    let key = |i| Key { id: QueryId::new(&format!("q{i}")).unwrap(), rev: 1 };
    scene.set_queries((0..queries).map(key).collect());
    scene
}

/// A picture of this shade, with these things on it, is looked at.
fn see(scene: &mut Scene, shade: u8, things: &[([f32; 4], [f32; 2])], now: Instant) {
    assert_eq!(scene.look(&picture(shade), &AskConfig::default(), now), Look::Changed);
    let boxes: Vec<[f32; 4]> = things.iter().map(|thing| thing.0).collect();
    let looks: Vec<Vec<f32>> = things.iter().map(|thing| thing.1.to_vec()).collect();
    let bar = Bar { objectness: 0.05, score: 0.5, nms_iou: 0.6, soft: f32::INFINITY };
    scene.observe(Proposed { boxes: &boxes, objectness: &vec![0.9; things.len()], looks: &looks }, bar, now);
}

/// What is due of the queries with these priorities, and what has to wait.
fn due(scene: &Scene, priorities: &[i32], kept: bool, now: Instant) -> (Vec<usize>, Vec<Due>) {
    let wanted = |(query, priority): (usize, &i32)| Wanted { query, threshold: 0.5, priority: *priority };
    let wanted: Vec<Wanted> = priorities.iter().enumerate().map(wanted).collect();
    let (due, waiting) = scene.due(&wanted, kept, &AskConfig::default(), now);
    (due.iter().map(|due| due.query).collect(), waiting)
}

#[test]
fn of_those_that_are_due_the_one_of_highest_priority_goes_first() {
    let (mut scene, start) = (scene(30), Instant::now());
    see(&mut scene, 40, &[(HERE, CAR)], start);
    (0..30).for_each(|query| scene.answered(query, &[0.1], start));
    // It was asked last, and so is the least urgent of all.
    scene.answered(29, &[0.1], start + ms(400));
    let now = start + ms(500);
    see(&mut scene, 90, &[(HERE, BUS)], now);
    scene.allowance = 1.0;
    let mut priorities = [0; 30];
    assert_ne!(due(&scene, &priorities, false, now).0, [29]);
    priorities[29] = 9;
    let (asked, waiting) = due(&scene, &priorities, false, now);
    assert_eq!((asked, waiting.len()), (vec![29], 29));
    assert!(waiting.iter().all(|due| due.reason.class == Class::Ask));
}

#[test]
fn what_nobody_knows_goes_before_what_may_have_changed_whatever_the_priority() {
    let (mut scene, start) = (scene(2), Instant::now());
    see(&mut scene, 40, &[(HERE, CAR)], start);
    scene.answered(0, &[0.1], start);
    see(&mut scene, 90, &[(HERE, CAR), (THERE, CAR)], start + ms(66));
    scene.answered(1, &[0.1, 0.1], start + ms(66));
    see(&mut scene, 140, &[(GROWN, CAR), (THERE, CAR)], start + ms(133));
    scene.allowance = 1.0;
    // Both know the first thing as it was; only one knows the second.
    let (asked, waiting) = due(&scene, &[0, 9], false, start + ms(133));
    assert_eq!((asked, waiting.len(), waiting[0].query), (vec![0], 1, 1));
}

#[test]
fn what_has_changed_is_due_until_it_was_asked_about_also_on_a_look_that_is_kept() {
    let (mut scene, start) = (scene(1), Instant::now());
    see(&mut scene, 40, &[(HERE, CAR)], start);
    scene.answered(0, &[0.1], start);
    see(&mut scene, 90, &[(GROWN, CAR)], start + ms(66));
    scene.allowance = 0.0;
    let (asked, waiting) = due(&scene, &[0], false, start + ms(66));
    assert!(asked.is_empty() && waiting[0].reason.changed);
    scene.allowance = 1.0;
    assert_eq!(due(&scene, &[0], true, start + ms(133)).0, [0]);
    scene.answered(0, &[0.1], start + ms(133));
    scene.allowance = 1.0;
    assert!(due(&scene, &[0], true, start + ms(200)).0.is_empty());
}

#[test]
fn what_is_on_a_still_picture_is_not_gone_however_seldom_it_is_looked_at() {
    let (mut scene, start) = (scene(1), Instant::now());
    let config = AskConfig { look_seconds: 60.0, ..AskConfig::default() };
    see(&mut scene, 40, &[(HERE, CAR)], start);
    scene.answered(0, &[0.8], start);
    for quarter in 1..=20 {
        assert_eq!(scene.look(&picture(40), &config, start + ms(quarter * 250)), Look::Same);
    }
    see(&mut scene, 90, &[(HERE, CAR)], start + ms(5100));
    assert_eq!(scene.remembered(0), [0.8]);
    // And then no picture for three seconds: it may be another car.
    see(&mut scene, 140, &[(HERE, CAR)], start + ms(8100));
    assert_eq!(scene.remembered(0), [0.0]);
}

#[test]
fn one_that_was_not_asked_for_a_second_has_its_turn_before_one_of_higher_priority() {
    let (mut scene, start) = (scene(2), Instant::now());
    see(&mut scene, 40, &[(HERE, CAR)], start);
    (0..2).for_each(|query| scene.answered(query, &[0.1], start));
    scene.answered(0, &[0.1], start + ms(600));
    for (after, shade, first) in [(900, 90, 0), (1000, 140, 1)] {
        let now = start + ms(after);
        see(&mut scene, shade, &[(HERE, BUS)], now);
        scene.allowance = 1.0;
        assert_eq!(due(&scene, &[9, 0], false, now).0, [first], "after {after} ms");
    }
}

#[test]
fn what_to_expect_is_learned_beside_a_query_whose_method_knows_no_regions() {
    let (mut scene, start) = (scene(2), Instant::now());
    see(&mut scene, 40, &[(HERE, CAR)], start);
    scene.answered(0, &[0.1], start);
    scene.learn();
    // Another of the same kind, which the first query did not mean.
    see(&mut scene, 90, &[(HERE, CAR), (THERE, CAR)], start + ms(66));
    see(&mut scene, 140, &[(HERE, CAR), (THERE, CAR)], start + ms(133));
    assert!(due(&scene, &[0], false, start + ms(133)).0.is_empty(), "it can wait");
    // Of another kind nothing is known.
    see(&mut scene, 190, &[(HERE, CAR), (THERE, BUS)], start + ms(200));
    see(&mut scene, 240, &[(HERE, CAR), (THERE, BUS)], start + ms(266));
    assert_eq!(due(&scene, &[0], false, start + ms(266)).0, [0]);
}
