//! The searches against a second telling of the rules, and the promises that hold for any model and any budget.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    Budget, Confidence, Kind, Meter, Plan, Prompt, Question, Rules, Split, Tree, View, cues,
    original::{internvl, said},
    pursue,
    rules::Views,
};
use crate::types::Size;

/// A model that answers by a hash, counts what it is asked, and takes a while each time.
struct Scripted<'a> {
    oracle: (u64, u64, f64),
    clock: &'a Cell<Instant>,
    takes: Duration,
    asked: Vec<(View, Kind)>,
    fails_at: usize,
}

impl<'a> Scripted<'a> {
    fn new(oracle: (u64, u64, f64), clock: &'a Cell<Instant>) -> Self {
        Self { oracle, clock, takes: Duration::from_millis(7), asked: Vec::new(), fails_at: usize::MAX }
    }
}

impl Confidence for Scripted<'_> {
    type Error = String;

    fn confidence(&mut self, view: &View, prompt: Prompt<'_>) -> Result<f64, String> {
        if self.asked.len() == self.fails_at {
            return Err("no more".to_owned());
        }
        self.asked.push((*view, prompt.kind));
        self.clock.set(self.clock.get() + self.takes);
        Ok(said(&view.area, prompt.kind, oracle_about(self.oracle, prompt.about)))
    }
}

/// Another thing, other answers.
fn oracle_about((salt, grid, gloom): (u64, u64, f64), about: &str) -> (u64, u64, f64) {
    (about.bytes().fold(salt, |salt, byte| salt.wrapping_mul(31).wrapping_add(byte.into())), grid, gloom)
}

/// The tree as nested lists, told anew: an area's parts are computed where they are needed.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    xywh: [u32; 4],
    depth: usize,
    parts: Vec<Place>,
}

fn place(xywh: [u32; 4], depth: usize, patch: u32) -> Place {
    let [x, y, w, h] = xywh;
    let mut parts = Vec::new();
    if w.max(h) >= patch && depth < 5 {
        let (columns, rows) = if h >= 2 * w {
            (1, 4)
        } else if w >= 2 * h {
            (4, 1)
        } else {
            (2, 2)
        };
        let (dw, dh) = (w / columns, h / rows);
        for row in 0..rows {
            for column in 0..columns {
                let width = if column == columns - 1 { w - column * dw } else { dw };
                let height = if row == rows - 1 { h - row * dh } else { dh };
                parts.push(place([x + column * dw, y + row * dh, width, height], depth + 1, patch));
            }
        }
    }
    Place { xywh, depth, parts }
}

fn deepest(place: &Place) -> usize {
    place.parts.iter().map(deepest).max().unwrap_or(place.depth)
}

struct Told<'a> {
    oracle: (u64, u64, f64),
    rules: &'a Rules,
    visits: Vec<[u32; 4]>,
}

impl Told<'_> {
    fn ask(&self, at: &Place, kind: Kind, about: &str) -> f64 {
        let [x, y, width, height] = at.xywh;
        let area = super::Area { x, y, width, height };
        said(&area, kind, oracle_about(self.oracle, about))
    }

    /// Type 1: the answering node, if any.
    fn seek(&mut self, root: &Place, cue: &str, question: &str, bottom: bool, skip: bool) -> Option<[u32; 4]> {
        let depth = deepest(root);
        let mut threshold = self.rules.upper;
        let mut falls = self.rules.steps.clone();
        let mut limit = 3 * depth;
        let mut at_bottom = false;
        let mut waiting: Vec<&Place> = vec![root];
        let mut seen: Vec<(&Place, f64)> = Vec::new();
        let mut chosen: Vec<(&Place, f64)> = Vec::new();
        while !waiting.is_empty() {
            let here = waiting.remove(0);
            self.visits.push(here.xywh);
            let skipped = skip && here.depth == 0;
            let sure = if skipped { -1.0 } else { self.ask(here, Kind::Answering, question) };
            seen.push((here, sure));
            if !skipped && sure >= threshold {
                chosen.push((here, sure));
                if !bottom || at_bottom {
                    break;
                }
            } else if seen.len() >= limit {
                threshold -= falls[0];
                if falls.len() > 1 {
                    falls.remove(0);
                }
                limit += 2;
                for (place, sure) in &seen {
                    if *sure >= threshold
                        && !chosen.iter().any(|(other, _)| other.xywh == place.xywh && other.depth == place.depth)
                    {
                        chosen.push((place, *sure));
                    }
                }
                chosen.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
                chosen.truncate(1);
                if !chosen.is_empty() || threshold < self.rules.lower {
                    break;
                }
            }
            if here.parts.is_empty() || here.depth == depth {
                at_bottom = true;
                if bottom && !chosen.is_empty() {
                    break;
                }
            } else {
                waiting.extend(&here.parts);
            }
            let worth = |place: &Place| {
                let (d, deep, b) = (place.depth as f64, depth as f64, self.rules.bias);
                let w = (1.0 - b) / (deep * deep) * (d * d) + b;
                self.ask(place, Kind::Existence, cue) * w + self.ask(place, Kind::Latent, cue) * (1.0 - w)
            };
            waiting.sort_by(|a, b| worth(b).partial_cmp(&worth(a)).unwrap());
        }
        let mut best: Option<&Place> = None;
        for (place, _) in chosen {
            if best.is_none_or(|best| place.depth > best.depth) {
                best = Some(place);
            }
        }
        best.map(|place| place.xywh)
    }

    /// Type 2: the views that show it best, in the order of a walk that goes down first.
    fn all(&self, at: &Place, cue: &str, found: &mut Vec<[u32; 4]>) -> f64 {
        let mut most: f64 = -1.0;
        if at.depth < 2 {
            for part in &at.parts {
                most = most.max(self.all(part, cue, found));
            }
        }
        let own = self.ask(at, Kind::Existence, cue);
        if own >= most.max(0.6) {
            found.push(at.xywh);
        }
        most.max(own)
    }

    fn everything(&mut self, root: &Place, question: &str, cues: &[String]) -> Vec<[u32; 4]> {
        let global = self.rules.views == Views::GlobalLocal;
        let looks = |cue: &str| format!("What is the appearance of the {cue}?");
        if cues.len() > 1 && global {
            let single = cues.iter().filter(|cue| !cue.starts_with("all "));
            if single.clone().any(|cue| self.ask(root, Kind::Answering, &looks(cue)) >= self.rules.upper) {
                return Vec::new();
            }
        }
        let one = cues.len() == 1 && !cues[0].starts_with("all ");
        let mut found = Vec::new();
        for cue in cues {
            if let Some(kind) = cue.strip_prefix("all ") {
                self.all(root, kind.strip_suffix('s').unwrap_or(kind), &mut found);
            } else {
                let question = if one { question.to_owned() } else { looks(cue) };
                found.extend(self.seek(root, cue, &question, !one, !one && !global));
            }
        }
        found
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    (prop::sample::select(vec![Rules::qwen(), Rules::llava_local(336), internvl(448)]), 60u32..700)
        .prop_map(|(rules, patch)| Rules { patch, ..rules })
}

fn oracle() -> impl Strategy<Value = (u64, u64, f64)> {
    (any::<u32>(), prop::sample::select(vec![4u64, 8, 20, 2000]), prop::sample::select(vec![0.0, 0.4, 0.9, 1.3]))
        .prop_map(|(salt, grid, gloom)| (salt.into(), grid, gloom))
}

fn some_cues() -> impl Strategy<Value = Vec<String>> {
    let cue = prop::sample::select(vec!["red car", "all dogs", "van", "all people", "cyclist"]);
    proptest::collection::vec(cue.prop_map(str::to_owned), 0..=3)
}

fn areas(plan: &Plan, nodes: &[usize]) -> Vec<[u32; 4]> {
    let area = |at: &usize| plan.tree().node(*at).area;
    nodes.iter().map(area).map(|a| [a.x, a.y, a.width, a.height]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn searches_go_where_the_rules_told_another_way_go(
        (w, h) in (100u32..4000, 100u32..4000), rules in rules(), oracle in oracle(), cues in some_cues(),
    ) {
        let tree = Tree::of(Size::new(w, h), rules.patch, Split::Four);
        let clock = Cell::new(Instant::now());
        let mut model = Scripted::new(oracle, &clock);
        let mut plan = Plan::new(tree, rules.clone(), "Where is it?", &cues);
        prop_assert_eq!(pursue(&mut plan, &mut model, &mut Meter::unlimited(), &|| clock.get()), Ok(true));
        let mut told = Told { oracle, rules: &rules, visits: Vec::new() };
        let expected = told.everything(&place([0, 0, w, h], 0, rules.patch), "Where is it?", &cues);
        prop_assert_eq!(areas(&plan, &plan.found()), expected);
        let visits: Vec<_> = plan.taken().iter().flat_map(|taken| areas(&plan, taken)).collect();
        prop_assert_eq!(visits, told.visits);
    }

    #[test]
    fn a_search_in_pieces_finds_what_it_finds_in_one_go(
        (w, h) in (100u32..3000, 100u32..3000), rules in rules(), oracle in oracle(), cues in some_cues(),
        passes in 1usize..9, millis in 1u64..60,
    ) {
        let tree = Tree::of(Size::new(w, h), rules.patch, Split::Four);
        let clock = Cell::new(Instant::now());
        let mut whole = Plan::new(tree.clone(), rules.clone(), "Where is it?", &cues);
        let mut model = Scripted::new(oracle, &clock);
        pursue(&mut whole, &mut model, &mut Meter::unlimited(), &|| clock.get()).unwrap();
        let total = model.asked.len();

        let mut plan = Plan::new(tree, rules, "Where is it?", &cues);
        let mut model = Scripted::new(oracle, &clock);
        let budget = Budget { passes, time: Duration::from_millis(millis) };
        let mut pace = None;
        for piece in 0..=total {
            let (began, before) = (clock.get(), model.asked.len());
            let mut meter = Meter::new(budget, began, pace);
            let over = pursue(&mut plan, &mut model, &mut meter, &|| clock.get()).unwrap();
            pace = meter.pace();
            let asked = model.asked.len() - before;
            prop_assert!(asked <= passes && clock.get() - began <= budget.time.max(model.takes));
            prop_assert!(asked > 0 || over, "every piece gets on");
            if over {
                break;
            }
            prop_assert!(piece < total);
        }
        prop_assert!(plan.is_over());
        prop_assert_eq!(plan.found(), whole.found());
        prop_assert_eq!(plan.taken(), whole.taken());
        prop_assert_eq!(model.asked.len(), total, "nothing is asked twice");
    }

    #[test]
    fn searches_stay_in_the_picture_and_end(
        (w, h) in (0u32..6000, 0u32..6000), patch in 0u32..900, oracle in oracle(), cues in some_cues(),
        wild in prop::sample::select(vec![f64::NAN, f64::INFINITY, -7.0, 0.5]), split in 0usize..3,
    ) {
        struct Wild<'a>(Scripted<'a>, f64);
        impl Confidence for Wild<'_> {
            type Error = String;
            fn confidence(&mut self, view: &View, prompt: Prompt<'_>) -> Result<f64, String> {
                let value = self.0.confidence(view, prompt)?;
                Ok(if self.0.asked.len().is_multiple_of(3) { self.1 } else { value })
            }
            fn promise(&self, view: &View) -> f64 {
                if view.area.x.is_multiple_of(2) { f64::NAN } else { self.1 }
            }
            fn worth_splitting(&self, view: &View) -> bool {
                !view.area.y.is_multiple_of(3)
            }
        }
        let split = [Split::Four, Split::Nine, Split::Sixteen][split];
        let rules = Rules { patch, collect_depth: 3, ..Rules::qwen() };
        let clock = Cell::new(Instant::now());
        let mut model = Wild(Scripted::new(oracle, &clock), wild);
        let tree = Tree::of(Size::new(w, h), patch, split);
        let most = cues.len() * 3 * tree.count() + cues.len();
        let mut plan = Plan::new(tree, rules, "?", &cues);
        prop_assert_eq!(pursue(&mut plan, &mut model, &mut Meter::unlimited(), &|| clock.get()), Ok(true));
        prop_assert!(model.0.asked.len() <= most);
        let mut seen = HashSet::new();
        for (view, _) in &model.0.asked {
            let a = view.area;
            prop_assert!(a.x + a.width <= w && a.y + a.height <= h);
            seen.insert(a);
        }
        prop_assert!(plan.found().iter().all(|at| seen.contains(&plan.tree().node(*at).area)));
    }
}

#[test]
fn an_error_stops_the_search_where_it_is_and_it_can_go_on() {
    let clock = Cell::new(Instant::now());
    let tree = Tree::of(Size::new(1920, 1080), 448, Split::Four);
    let cues = ["red car".to_owned()];
    let mut plan = Plan::new(tree, Rules::qwen(), "?", &cues);
    let mut model = Scripted::new((3, 2000, 1.0), &clock);
    model.fails_at = 4;
    let now = || clock.get();
    assert_eq!(pursue(&mut plan, &mut model, &mut Meter::unlimited(), &now), Err("no more".to_owned()));
    let before = model.asked.clone();
    model.fails_at = usize::MAX;
    assert_eq!(pursue(&mut plan, &mut model, &mut Meter::unlimited(), &now), Ok(true));
    let counts = model.asked.iter().fold(HashMap::new(), |mut counts, one| {
        *counts.entry(*one).or_insert(0) += 1;
        counts
    });
    assert!(before.len() == 4 && counts.values().all(|count| *count == 1));
}

/// A model that looks at several views in one run, and knows from the whole which of them pay.
struct Batched {
    runs: Vec<Vec<u32>>,
}

impl Confidence for Batched {
    type Error = String;

    fn confidence(&mut self, view: &View, _: Prompt<'_>) -> Result<f64, String> {
        Ok(if view.is_whole() { -1.0 } else { 0.1 })
    }

    fn prepare(&mut self, questions: &[Question]) -> Result<(), String> {
        self.runs.push(questions.iter().map(|question| question.view.area.x).collect());
        Ok(())
    }

    fn promise(&self, view: &View) -> f64 {
        view.area.x.into()
    }

    fn worth_splitting(&self, view: &View) -> bool {
        view.area.x == 0
    }
}

#[test]
fn a_level_is_one_run_the_best_come_first_and_what_is_not_worth_it_is_left() {
    let tree = Tree::of(Size::new(1600, 400), 300, Split::Four);
    let mut plan = Plan::new(tree, Rules::qwen(), "?", &["all cars".to_owned()]);
    let mut model = Batched { runs: Vec::new() };
    let now = Instant::now();
    let mut meter = Meter::new(Budget { passes: 3, time: Duration::from_secs(9) }, now, Some(Duration::from_nanos(1)));
    assert_eq!(pursue(&mut plan, &mut model, &mut meter, &|| now), Ok(false));
    assert_eq!(model.runs, [vec![0], vec![1200, 800]]);
    assert_eq!(meter.left(), 0);
    assert_eq!(pursue(&mut plan, &mut model, &mut Meter::unlimited(), &|| now), Ok(true));
    // Of the second level only the parts of the leftmost band.
    assert_eq!(model.runs[2..], [vec![400, 0], vec![200, 200, 0, 0]]);
    assert_eq!(cues::singular("all cars"), "car");
}
