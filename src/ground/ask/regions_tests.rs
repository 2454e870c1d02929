use proptest::prelude::*;

use super::*;

const BAR: Bar = Bar { objectness: 0.2, score: 0.5, nms_iou: 0.5, soft: f32::INFINITY };

/// Boxes with their objectness and the angle of a two-dimensional look.
struct Picture {
    boxes: Vec<[f32; 4]>,
    objectness: Vec<f32>,
    looks: Vec<Vec<f32>>,
}

impl Picture {
    fn new(things: &[([f32; 4], f32, f32)]) -> Self {
        Self {
            boxes: things.iter().map(|t| t.0).collect(),
            objectness: things.iter().map(|t| t.1).collect(),
            looks: things.iter().map(|t| vec![t.2.cos(), t.2.sin()]).collect(),
        }
    }

    fn proposed(&self) -> Proposed<'_> {
        Proposed { boxes: &self.boxes, objectness: &self.objectness, looks: &self.looks }
    }
}

fn square(x: f32, y: f32) -> [f32; 4] {
    [x, y, x + 0.1, y + 0.1]
}

#[test]
fn an_answer_follows_its_thing_and_doubles_share_it() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let later = |ms| start + Duration::from_millis(ms);
    let first =
        Picture::new(&[(square(0.1, 0.1), 0.5, 0.0), (square(0.11, 0.1), 0.9, 0.0), (square(0.6, 0.6), 0.9, 1.5)]);
    regions.observe(first.proposed(), BAR, 1, start);
    assert_eq!(regions.present().count(), 2);
    assert!(regions.present().all(|region| region.answer(0).is_none()));
    // The double that does not stand for itself was scored best.
    regions.answered(0, &[0.8, 0.3, 0.1], start);
    assert_eq!(regions.remembered(0), [0.0, 0.8, 0.1]);
    // Both moved, in another order, and a third came.
    let second =
        Picture::new(&[(square(0.63, 0.6), 0.9, 1.4), (square(0.13, 0.1), 0.9, 0.1), (square(0.3, 0.8), 0.9, 0.0)]);
    regions.observe(second.proposed(), BAR, 1, later(66));
    assert_eq!(regions.remembered(0), [0.1, 0.8, 0.0]);
    assert_eq!(regions.present().filter(|region| region.answer(0).is_none()).count(), 1);
    // Away for a moment, and back.
    regions.observe(Picture::new(&[]).proposed(), BAR, 1, later(500));
    assert_eq!(regions.present().count(), 0);
    regions.observe(second.proposed(), BAR, 1, later(900));
    assert_eq!(regions.remembered(0), [0.1, 0.8, 0.0]);
    // Away for too long.
    regions.observe(Picture::new(&[]).proposed(), BAR, 1, later(2000));
    regions.observe(second.proposed(), BAR, 1, later(2100));
    assert_eq!(regions.remembered(0), [0.0; 3]);
}

#[test]
fn nothing_is_followed_over_a_gap_and_what_a_gap_is_depends_on_the_camera() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let picture = Picture::new(&[(square(0.1, 0.1), 0.9, 0.0)]);
    let mut remembered_at = |ms: u64| {
        let now = start + Duration::from_millis(ms);
        regions.observe(picture.proposed(), BAR, 1, now);
        let score = regions.remembered(0)[0];
        regions.answered(0, &[0.8], now);
        score > 0.0
    };
    assert!(!remembered_at(0));
    assert!((1..10).all(|picture| remembered_at(picture * 66)));
    // Something that looks like it, in the same place.
    assert!(!remembered_at(594 + 1001));
    // One gap does not make a slow camera.
    assert!((1..10).all(|picture| remembered_at(1595 + picture * 66)));
    assert!(!remembered_at(2189 + 1001));
    // From here on a picture comes every five seconds: nothing is known of that at first.
    assert!(!remembered_at(10_000));
    assert!((3..10).all(|picture| remembered_at(picture * 5000)));
    assert!(!remembered_at(45_000 + 10_001));
}

#[test]
fn a_remembered_score_stays_with_the_box_it_was_given_for() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let (surest, fitting) = ([0.1, 0.1, 0.3, 0.3], [0.12, 0.1, 0.28, 0.34]);
    let first = Picture::new(&[(surest, 0.9, 0.0), (fitting, 0.5, 0.0), (square(0.7, 0.7), 0.9, 1.5)]);
    regions.observe(first.proposed(), BAR, 1, start);
    assert_eq!(regions.places(0), first.boxes, "nothing is remembered yet");
    assert!(regions.is_open(0));
    regions.answered(0, &[0.3, 0.8, 0.6], start);
    assert!(!regions.is_open(0));
    let near = |found: [f32; 4], wanted: [f32; 4]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6);
    let places = regions.places(0);
    assert!(near(places[0], fitting) && near(places[2], first.boxes[2]), "{places:?}");
    // It moves right and comes nearer: all its boxes do.
    regions.observe(Picture::new(&[([0.15, 0.1, 0.39, 0.34], 0.9, 0.0)]).proposed(), BAR, 1, start);
    assert_eq!(regions.remembered(0), [0.8]);
    let moved = [0.15 + 0.02 * 1.2, 0.1, 0.15 + 0.18 * 1.2, 0.1 + 0.24 * 1.2];
    assert!(near(regions.places(0)[0], moved), "{:?}", regions.places(0));
    // Asked anew, now it fits itself.
    regions.answered(0, &[0.7], start);
    assert_eq!(regions.places(0), [[0.15, 0.1, 0.39, 0.34]]);
}

#[test]
fn another_thing_in_its_place_does_not_get_its_answer() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let a = Picture::new(&[(square(0.1, 0.1), 0.9, 0.0)]);
    regions.observe(a.proposed(), BAR, 1, start);
    regions.answered(0, &[0.9], start);
    let b = Picture::new(&[([0.13, 0.13, 0.23, 0.23], 0.9, 1.5)]);
    regions.observe(b.proposed(), BAR, 1, start);
    assert_eq!(regions.remembered(0), [0.0]);
    regions.answered(0, &[0.2], start);
    // In the very same place, which something is known to be in.
    let c = Picture::new(&[([0.13, 0.13, 0.23, 0.23], 0.9, 3.0)]);
    regions.observe(c.proposed(), BAR, 1, start + Duration::from_millis(66));
    assert!(regions.is_open(0) && regions.present().all(|region| region.pictures == 2));
}

/// On two pictures a second whoever walks past overlaps nobody, not even themselves.
#[test]
fn what_moves_further_than_its_size_is_followed_if_it_looks_the_same_and_nothing_is_nearer() {
    let follow = |step: f32, look: f32, ms: u64| {
        let (mut regions, start) = (Regions::default(), Instant::now());
        let mut known = Vec::new();
        for picture in 0..3u8 {
            let now = start + Duration::from_millis(ms) * picture.into();
            let x = 0.1 + step * f32::from(picture);
            let boxes = [(square(x, 0.1), 0.9, look * f32::from(picture)), (square(0.8, 0.8), 0.9, 1.5)];
            regions.observe(Picture::new(&boxes).proposed(), BAR, 1, now);
            known.push(regions.remembered(0));
            if picture == 0 {
                regions.answered(0, &[0.9, 0.1], now);
            }
        }
        known[1..].iter().all(|scores| scores == &[0.9, 0.1])
    };
    assert!(follow(0.11, 0.1, 500), "it overlaps nothing");
    assert!(!follow(0.11, 1.2, 500), "something else");
    assert!(!follow(0.2, 0.1, 500), "too far to be the same");
}

#[test]
fn who_comes_as_another_goes_is_not_taken_for_them_unless_pictures_come_seldom_and_is_asked_about_then() {
    for (ms, taken) in [(66, false), (500, true)] {
        let (mut regions, start) = (Regions::default(), Instant::now());
        let see = |regions: &mut Regions, picture: u32, x: f32, look: f32| {
            let now = start + Duration::from_millis(ms) * picture;
            regions.observe(Picture::new(&[(square(x, 0.1), 0.9, look)]).proposed(), BAR, 1, now);
            now
        };
        see(&mut regions, 0, 0.1, 0.0);
        let now = see(&mut regions, 1, 0.1, 0.0);
        regions.answered(0, &[0.9], now);
        see(&mut regions, 2, 0.21, 0.7);
        let region = regions.present().next().unwrap();
        assert_eq!(region.answer(0).map(|answer| region.changed_since(answer)), taken.then_some(true), "{ms} ms");
    }
}

#[test]
fn what_moves_is_expected_where_it_was_heading() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let see = |regions: &mut Regions, picture: u16, boxes: &[[f32; 4]]| {
        let boxes: Vec<_> = boxes.iter().map(|corners| (*corners, 0.9, 0.0)).collect();
        let now = start + Duration::from_millis(200) * picture.into();
        regions.observe(Picture::new(&boxes).proposed(), BAR, 1, now);
    };
    // Two alike that walk towards each other, and pass.
    let (left, right) =
        (|picture: u16| 0.1 + 0.06 * f32::from(picture), |picture: u16| 0.64 - 0.06 * f32::from(picture));
    let both = |picture| [square(left(picture), 0.1), square(right(picture), 0.12)];
    see(&mut regions, 0, &both(0));
    regions.answered(0, &[0.9, 0.1], start);
    for picture in 1..=9 {
        see(&mut regions, picture, &both(picture));
    }
    assert_eq!(regions.remembered(0), [0.9, 0.1]);
}

#[test]
fn what_grew_or_looks_different_has_changed() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let changed = |regions: &Regions| {
        let region = regions.present().next().unwrap();
        region.changed_since(region.answer(0).unwrap())
    };
    let see = |regions: &mut Regions, corners, look| {
        regions.observe(Picture::new(&[(corners, 0.9, look)]).proposed(), BAR, 1, start);
    };
    see(&mut regions, square(0.1, 0.1), 0.0);
    regions.answered(0, &[0.9], start);
    assert!(!changed(&regions));
    see(&mut regions, [0.1, 0.1, 0.2, 0.29], 0.0);
    assert!(!changed(&regions));
    see(&mut regions, [0.1, 0.1, 0.2, 0.32], 0.0);
    assert!(changed(&regions));
    regions.answered(0, &[0.9], start);
    assert!(!changed(&regions));
    for step in 1..8u8 {
        see(&mut regions, [0.1, 0.1, 0.2, 0.32], f32::from(step) * 0.2);
    }
    assert!(changed(&regions));
}

#[test]
fn queries_come_and_go_without_mixing_their_answers() {
    let (mut regions, start) = (Regions::default(), Instant::now());
    let picture = Picture::new(&[(square(0.1, 0.1), 0.9, 0.0)]);
    regions.observe(picture.proposed(), BAR, 2, start);
    regions.answered(0, &[0.1], start);
    regions.answered(1, &[0.9], start);
    regions.set_queries(&[None, Some(1), Some(0)]);
    assert_eq!((0..3).map(|q| regions.remembered(q)[0]).collect::<Vec<_>>(), [0.0, 0.9, 0.1]);
    regions.set_queries(&[Some(2)]);
    assert_eq!(regions.remembered(0), [0.1]);
}

fn things() -> impl Strategy<Value = Vec<([f32; 4], f32, f32)>> {
    // Of whole numbers: proptest now and then trips over its own rounding in ranges like -0.2..1.2.
    let corners = [(); 4].map(|()| (-200i16..1200).prop_map(|thousandths| f32::from(thousandths) / 1000.0));
    proptest::collection::vec((corners, 0.0f32..1.0, 0.0f32..3.0), 0..24)
}

proptest! {
    #[test]
    fn whatever_is_proposed_every_region_is_one_proposal_and_scores_fit_the_picture(
        pictures in proptest::collection::vec((things(), 0u64..1500, any::<bool>()), 1..20),
    ) {
        let (mut regions, mut now) = (Regions::default(), Instant::now());
        let mut seen: Vec<(Instant, usize)> = Vec::new();
        for (things, ms, ask) in pictures {
            now += Duration::from_millis(ms);
            let picture = Picture::new(&things);
            // By how often pictures came so far.
            let kept = regions.usual.map_or(FORGET, |usual| FORGET.max(usual * 2));
            regions.observe(picture.proposed(), BAR, 1, now);
            seen.push((now, regions.present().count()));
            let lately = seen.iter().filter(|(at, _)| now.saturating_duration_since(*at) <= kept);
            prop_assert!(regions.known.len() <= lately.map(|(_, count)| count).sum::<usize>());
            let places: Vec<usize> = regions.present().filter_map(|region| region.proposal).collect();
            let distinct: std::collections::BTreeSet<&usize> = places.iter().collect();
            prop_assert_eq!(distinct.len(), places.len());
            for region in regions.present() {
                let proposal = region.proposal.unwrap();
                prop_assert_eq!(region.corners.map(f32::to_bits), picture.boxes[proposal].map(f32::to_bits));
                prop_assert!(region.objectness >= BAR.objectness && region.pictures >= 1);
                prop_assert!((dot(&region.look, &region.look) - 1.0).abs() < 1e-3);
            }
            if ask {
                let scores: Vec<f32> = picture.objectness.clone();
                regions.answered(0, &scores, now);
                prop_assert!(regions.present().all(|region| region.answer(0).is_some_and(|a| a.at == now)));
            }
            let remembered = regions.remembered(0);
            prop_assert_eq!(remembered.len(), things.len());
            prop_assert!(remembered.iter().enumerate().all(|(i, s)| *s == 0.0 || places.contains(&i)));
        }
    }
}
