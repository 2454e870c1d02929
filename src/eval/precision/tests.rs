//! Against pycocotools on random boxes, and what must hold for any.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::eval::matching::Rect;

type ThingRow = (i64, i64, f64, f64, f64, f64, f64, u8);

/// See `tests/data/eval/make.py`.
#[derive(Deserialize)]
struct Case {
    name: String,
    images: Vec<i64>,
    classes: Vec<i64>,
    /// image, class, x, y, width, height, area, crowd
    truths: Vec<ThingRow>,
    /// image, class, x, y, width, height, score
    found: Vec<(i64, i64, f64, f64, f64, f64, f64)>,
    /// AP, AP50, AP75, small, medium, large; null where pycocotools says -1.
    mean: [Option<f64>; 6],
    /// The same of every class, and its recall at IoU 0.5.
    each: Vec<([Option<f64>; 6], Option<f64>)>,
}

fn figures(p: &Precision) -> [Option<f64>; 6] {
    [p.ap, p.ap50, p.ap75, p.ap_small, p.ap_medium, p.ap_large]
}

#[track_caller]
fn same(ours: &[Option<f64>], theirs: &[Option<f64>], what: &str) {
    let close = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        (a, b) => a == b,
    };
    assert!(ours.len() == theirs.len() && ours.iter().zip(theirs).all(close), "{what}: {ours:?}, not {theirs:?}");
}

#[test]
fn average_precision_is_that_of_pycocotools() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eval/pycocotools.json");
    let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert!(cases.len() >= 8, "only {} cases", cases.len());
    for case in cases {
        let mut rankings: BTreeMap<i64, Ranking> = case.classes.iter().map(|c| (*c, Ranking::default())).collect();
        for image in &case.images {
            for class in &case.classes {
                let here = |i: i64, c: i64| i == *image && c == *class;
                let truths: Vec<Truth> = case
                    .truths
                    .iter()
                    .filter(|t| here(t.0, t.1))
                    .map(|&(_, _, x, y, width, height, area, crowd)| Truth {
                        rect: Rect { x, y, width, height },
                        area,
                        crowd: crowd != 0,
                    })
                    .collect();
                let found: Vec<Scored> = case
                    .found
                    .iter()
                    .filter(|f| here(f.0, f.1))
                    .map(|&(_, _, x, y, width, height, score)| Scored { rect: Rect { x, y, width, height }, score })
                    .collect();
                rankings.get_mut(class).unwrap().add(&truths, &found);
            }
        }
        let ours: Vec<Precision> = rankings.values().map(Ranking::precision).collect();
        same(&figures(&Precision::mean(&ours)), &case.mean, &case.name);
        for (((class, ranking), ours), (theirs, recall)) in rankings.iter().zip(&ours).zip(&case.each) {
            same(&figures(ours), theirs, &format!("{} class {class}", case.name));
            let (wanted, reached) = ranking.reached();
            let got = (wanted > 0).then(|| reached as f64 / wanted as f64);
            same(&[got], &[*recall], &format!("{} class {class} recall", case.name));
        }
    }
}

fn truth(x: f64) -> Truth {
    Truth::boxed(Rect { x, y: 0.0, width: 40.0, height: 40.0 })
}

fn on(truth: &Truth, score: f64) -> Scored {
    Scored { rect: truth.rect, score }
}

#[test]
fn without_things_there_is_no_precision_and_without_boxes_it_is_zero() {
    let mut none = Ranking::default();
    none.add(&[], &[on(&truth(0.0), 0.9)]);
    assert_eq!(none.precision(), Precision::default());
    let mut missed = Ranking::default();
    missed.add(&[truth(0.0)], &[]);
    assert_eq!((missed.precision().ap, missed.precision().ap_small), (Some(0.0), None));
}

#[test]
fn half_found_without_a_mistake_is_half_the_recalls() {
    let mut ranking = Ranking::default();
    ranking.add(&[truth(0.0), truth(100.0)], &[on(&truth(0.0), 0.9)]);
    assert!((ranking.precision().ap.unwrap() - 51.0 / 101.0).abs() < 1e-12);
    assert_eq!(ranking.reached(), (2, 1));
}

/// Images with things and answers; scores are all different, so that no order is left to chance.
fn images() -> impl Strategy<Value = Vec<(Vec<Truth>, Vec<Scored>)>> {
    let rect = (0u8..60, 0u8..60, 1u8..60, 1u8..60).prop_map(|(x, y, w, h)| Rect {
        x: x.into(),
        y: y.into(),
        width: w.into(),
        height: h.into(),
    });
    let truth =
        (rect.clone(), proptest::bool::weighted(0.2)).prop_map(|(rect, crowd)| Truth { crowd, ..Truth::boxed(rect) });
    let image = (proptest::collection::vec(truth, 0..6), proptest::collection::vec(rect, 0..6));
    proptest::collection::vec(image, 0..6).prop_perturb(|images, mut random| {
        let mut used = std::collections::BTreeSet::new();
        let mut score = || loop {
            let score = random.next_u32();
            if used.insert(score) {
                return f64::from(score) / f64::from(u32::MAX);
            }
        };
        let mut scored = |rects: Vec<Rect>| rects.into_iter().map(|rect| Scored { rect, score: score() }).collect();
        images.into_iter().map(|(truths, rects)| (truths, scored(rects))).collect()
    })
}

fn precision(images: &[(Vec<Truth>, Vec<Scored>)]) -> Precision {
    let mut ranking = Ranking::default();
    for (truths, found) in images {
        ranking.add(truths, found);
    }
    ranking.precision()
}

proptest! {
    #[test]
    fn figures_are_bounded_and_stricter_ones_are_not_higher(images in images()) {
        let p = precision(&images);
        for figure in figures(&p).into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&figure), "{:?}", p);
        }
        prop_assert!(p.ap.is_none_or(|ap| ap <= p.ap50.unwrap() + 1e-12));
        let wanted = images.iter().flat_map(|(truths, _)| truths).any(|t| !t.crowd);
        prop_assert_eq!(p.ap.is_some(), wanted);
    }

    #[test]
    fn the_order_of_images_and_boxes_does_not_matter(images in images(), seed in any::<u64>()) {
        let mut shuffled = images.clone();
        let turn = usize::try_from(seed % 7).unwrap();
        for (_, found) in &mut shuffled {
            let by = turn % found.len().max(1);
            found.rotate_left(by);
        }
        let by = turn % shuffled.len().max(1);
        shuffled.rotate_left(by);
        prop_assert_eq!(precision(&images), precision(&shuffled));
    }

    #[test]
    fn only_the_order_of_scores_matters(images in images()) {
        let mut other = images.clone();
        for scored in other.iter_mut().flat_map(|(_, found)| found) {
            scored.score = (scored.score * 3.0).exp() - 100.0;
        }
        prop_assert_eq!(precision(&images), precision(&other));
    }

    #[test]
    fn a_false_box_below_all_others_changes_nothing_and_one_above_never_helps(images in images()) {
        prop_assume!(!images.is_empty());
        let far = Rect { x: 1e4, y: 1e4, width: 50.0, height: 50.0 };
        let with = |score| {
            let mut more = images.clone();
            more[0].1.push(Scored { rect: far, score });
            precision(&more)
        };
        prop_assert_eq!(precision(&images), with(-1.0));
        prop_assert!(with(2.0).ap <= precision(&images).ap);
    }

    #[test]
    fn answering_the_truth_is_perfect(images in images()) {
        let told: Vec<_> = images
            .into_iter()
            .map(|(truths, _)| {
                let found = truths.iter().filter(|t| !t.crowd).map(|t| on(t, 0.5)).collect();
                (truths, found)
            })
            .collect();
        prop_assert!(precision(&told).ap.is_none_or(|ap| ap > 1.0 - 1e-9));
    }
}
