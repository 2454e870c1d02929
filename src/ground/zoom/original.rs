//! The searches against what the original does: `tests/data/zoom/search.json`, written by `make.py` beside it.

use serde::Deserialize;

use super::{
    Kind, Question, Rules, Split, Tree, View,
    collect::Collect,
    crop,
    seek::{Goal, Seek},
    tree::Area,
};
use crate::types::Size;

type Xywh = [u32; 4];

#[derive(Deserialize)]
struct File {
    searches: Vec<Search>,
    crops: Vec<Shown>,
}

#[derive(Deserialize)]
struct Search {
    size: [u32; 2],
    patch: u32,
    split: u32,
    preset: String,
    oracle: (u64, u64, f64),
    bottom: bool,
    skip: bool,
    depth: usize,
    pops: usize,
    looked: Vec<Xywh>,
    found: Option<Xywh>,
    all: Vec<Xywh>,
}

#[derive(Deserialize)]
struct Shown {
    size: [u32; 2],
    margin: f64,
    areas: Vec<Xywh>,
    crops: Vec<crop::Corners>,
    near: Vec<crop::Corners>,
    merged: Vec<crop::Corners>,
}

fn file() -> File {
    serde_json::from_str(include_str!("../../../tests/data/zoom/search.json")).unwrap()
}

/// What the scripted model of `make.py` says.
pub(super) fn said(area: &Area, kind: Kind, (salt, grid, gloom): (u64, u64, f64)) -> f64 {
    let kind = match kind {
        Kind::Existence => 0,
        Kind::Latent => 1,
        Kind::Answering => 2,
    };
    let mut state = salt;
    for value in [area.x.into(), area.y.into(), area.width.into(), area.height.into(), kind] {
        state = (state ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        state ^= state >> 29;
    }
    let step = u32::try_from((state >> 20) % (grid + 1)).unwrap();
    let grid = u32::try_from(grid).unwrap();
    (f64::from(step) * 2.0 / f64::from(grid) - 1.0 - gloom).max(-1.0)
}

/// The original's rules for `InternVL` 2.5; `patch` is the side of a tile.
pub(super) fn internvl(patch: u32) -> Rules {
    Rules { patch, upper: 0.2, lower: -0.2, steps: vec![0.1, 0.1, 0.2], ..Rules::qwen() }
}

fn xywh(tree: &Tree, at: usize) -> Xywh {
    let Area { x, y, width, height } = tree.node(at).area;
    [x, y, width, height]
}

fn answer(questions: &[Question], oracle: (u64, u64, f64), mut tell: impl FnMut(&Question, f64)) {
    for question in questions {
        tell(question, said(&question.view.area, question.kind, oracle));
    }
}

impl Search {
    fn rules(&self) -> Rules {
        match self.preset.as_str() {
            "qwen" => Rules::qwen(),
            "llava_local" => Rules::llava_local(self.patch),
            _ => internvl(self.patch),
        }
    }

    fn tree(&self) -> Tree {
        let split = match self.split {
            4 => Split::Four,
            9 => Split::Nine,
            _ => Split::Sixteen,
        };
        Tree::of(Size::new(self.size[0], self.size[1]), self.patch, split)
    }
}

#[test]
fn one_target_is_sought_in_the_order_of_the_original() {
    let searches = file().searches;
    assert!(searches.len() >= 200);
    for (number, search) in searches.iter().enumerate() {
        let (tree, rules) = (search.tree(), search.rules());
        assert_eq!(tree.depth(), search.depth, "{number}");
        let goal = Goal {
            cue: "cue".into(),
            question: "question".into(),
            to_the_bottom: search.bottom,
            skip_whole: search.skip,
        };
        let mut seek = Seek::new(&tree, &rules, goal);
        let mut looked = Vec::new();
        loop {
            let questions = seek.pending(&tree, &rules);
            if questions.is_empty() {
                break;
            }
            looked.extend(questions.iter().filter(|q| q.kind == Kind::Answering).map(|q| xywh(&tree, q.node)));
            answer(&questions, search.oracle, |question, value| seek.tell(question, value));
        }
        assert_eq!(looked, search.looked, "{number}: what was looked at");
        assert_eq!(seek.taken().len(), search.pops, "{number}: how much was looked at");
        assert_eq!(seek.found(&tree).map(|at| xywh(&tree, at)), search.found, "{number}: what was found");
    }
}

#[test]
fn all_of_a_kind_are_those_of_the_original() {
    for (number, search) in file().searches.iter().enumerate() {
        let (tree, rules) = (search.tree(), search.rules());
        let mut collect = Collect::new(&tree, "cue".into());
        loop {
            let questions = collect.pending(&tree, &rules);
            if questions.is_empty() {
                break;
            }
            answer(&questions, search.oracle, |question, value| collect.tell(question, value, true));
        }
        let found: Vec<_> = collect.found(&tree, &rules).into_iter().map(|at| xywh(&tree, at)).collect();
        assert_eq!(found, search.all, "{number}");
    }
}

#[test]
fn areas_are_shown_as_the_original_shows_them() {
    for shown in file().crops {
        let rules = Rules { margin: shown.margin, ..Rules::qwen() };
        let size = Size::new(shown.size[0], shown.size[1]);
        for ([x, y, width, height], expected) in shown.areas.into_iter().zip(shown.crops) {
            assert_eq!(crop::shown(&Area { x, y, width, height }, size, &rules), expected);
        }
        assert_eq!(crop::merged(&shown.near), shown.merged);
    }
}

#[test]
fn the_scripted_model_is_the_one_of_the_fixtures() {
    let area = Area { x: 0, y: 0, width: 1, height: 1 };
    let view = View { area, depth: 0, glance: false };
    assert!(view.is_whole());
    let values: Vec<_> = (0..100).map(|salt| said(&area, Kind::Latent, (salt, 8, 0.0))).collect();
    assert!(values.iter().any(|v| *v < -0.5) && values.iter().any(|v| *v > 0.5));
}
