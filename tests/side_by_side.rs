//! Several pictures in a pass and several answers side by side are, number by number, what one at a time is; and graphs that
//! cannot do it are found out, not believed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "measured values are worth seeing")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use groundd::{
    ground::{
        codec::{RawBox, softmax::best},
        engine::{Data, Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor, local::Local},
        methods::{
            written::{Located, Writer},
            zoom::views::Judge,
        },
        models::speech::Talk,
        zoom::wording::Part as Said,
    },
    types::{Answer, Job, Ledger, Rgb, Size, Status},
};

use crate::support::{
    ground::{batch, edit_manifest, load, query},
    vlm::*,
    watched::{Run, Runs, Vice, Watched, of, taken},
    worst,
};

/// What logits may differ by.
const ALLOWED: f32 = 1e-4;

const TEXTS: [&str; 4] = ["person", "a man next to the van in a red jacket", "dog", "cat"];

/// A model of a family with a vice, what it ran since it was warmed up, and the folder it lies in.
fn watched(family: &str, limits: &str, vice: Vice) -> (Model, Runs, tempfile::TempDir) {
    let dir = copy_of(family);
    edit_manifest(dir.path(), "[limits]", &format!("[limits]\nanswer_tokens = 40\n{limits}"));
    let runs = Runs::default();
    let wrap = |_: &Path, engine| -> Box<dyn Engine> { Box::new(Watched::new(engine, vice, &runs)) };
    let model = Model::warmed(dir.path(), wrap);
    runs.lock().unwrap().clear();
    (model, runs, dir)
}

fn pictures() -> Vec<Rgb> {
    ["wide", "ties", "tiny", "big"].map(picture).to_vec()
}

#[track_caller]
fn same_boxes(got: &[Vec<RawBox>], expected: &[Vec<RawBox>]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(expected) {
            assert_eq!((&a.label, a.fractions), (&b.label, b.fractions));
            assert!((a.score.unwrap() - b.score.unwrap()).abs() < ALLOWED, "{a:?} {b:?}");
        }
    }
}

/// Logits of every step of every answer, each beside the token that was said before it; in an order of their own.
fn steps(runs: &[Run]) -> Vec<(i64, Vec<f32>)> {
    let mut steps = Vec::new();
    let mut fed = runs.iter();
    while let Some(run) = fed.next() {
        if run.graph == "embed_tokens" && run.length == 1 {
            let next = fed.by_ref().find(|run| run.graph == "decoder_model_merged").unwrap();
            assert_eq!(next.rows, run.rows);
            steps.extend(run.ids.iter().copied().zip(next.logits.iter().cloned()));
        }
    }
    steps
}

/// Each step of `got` is one of `expected`, and the other way round.
fn same_steps(family: &str, got: &[Run], expected: &[Run]) -> f32 {
    let (got, mut expected) = (steps(got), steps(expected));
    assert_eq!(got.len(), expected.len(), "{family}");
    let mut most: f32 = 0.0;
    for (token, logits) in got {
        let far = |other: &[f32]| worst(&logits, other);
        let near = expected.iter().enumerate().filter(|(_, (said, _))| *said == token);
        let near = near.map(|(at, (_, other))| (at, far(other))).min_by(|a, b| a.1.total_cmp(&b.1));
        let (at, distance) = near.unwrap_or_else(|| panic!("{family}: {token} was not said alone"));
        most = most.max(distance);
        expected.swap_remove(at);
    }
    most
}

#[test]
fn several_questions_about_several_pictures_are_answered_as_one_by_one() {
    for family in FAMILIES {
        let (mut alone, alone_runs, _folder) = watched(family, "rows = 1", Vice::OneRow);
        let mut expected = Vec::new();
        for picture in pictures() {
            for text in TEXTS {
                expected.extend(alone.ask_all(std::slice::from_ref(&picture), &[text]));
            }
        }
        let (mut model, runs, _folder) = watched(family, "", Vice::None);
        let got = model.ask_all(&pictures(), &TEXTS);
        same_boxes(&got, &expected);
        assert_eq!(model.written(), alone.written(), "{family}");
        let (runs, alone_runs) = (taken(&runs), taken(&alone_runs));
        let most = same_steps(family, &runs, &alone_runs);
        let boxes: usize = got.iter().map(Vec::len).sum();
        let steps = |runs: &[Run]| of(runs, "decoder_model_merged").filter(|run| run.length == 1).count();
        println!(
            "{family}: logits within {most}, {boxes} boxes, {} steps instead of {}",
            steps(&runs),
            steps(&alone_runs)
        );
        assert!(most < ALLOWED, "{family}: logits differ by {most}");
        // Eight at a time, and those that are over drop out; in one family none is before its last token.
        let rows: Vec<_> = of(&runs, "decoder_model_merged").map(|run| run.rows).collect();
        let dropped = rows.iter().any(|rows| (2..8).contains(rows));
        assert!(rows.contains(&8) && (dropped || family == "florence-2"), "{family}: {rows:?}");
        let first = if family == "florence-2" { TEXTS.len() * pictures().len() } else { 0 };
        assert!((steps(&runs) - first) * 4 <= steps(&alone_runs) - first, "{family}");
        assert!(of(&alone_runs, "decoder_model_merged").all(|run| run.rows == 1));
        // Pictures share passes, as far as they may.
        assert!(of(&runs, "vision_encoder").count() < pictures().len(), "{family}");
    }
}

#[test]
fn cameras_are_answered_together_as_one_by_one() {
    let ledger = Arc::new(Ledger::default());
    for family in FAMILIES {
        let dir = copy_of(family);
        edit_manifest(dir.path(), "[limits]", "[limits]\nanswer_tokens = 40");
        let (mut together, mut alone) = (load(dir.path()), load(dir.path()));
        let queries: Vec<_> = TEXTS[..2].iter().map(|text| query(text)).collect();
        // One of them is a picture that no model of the patches was made for.
        let ribbon = Rgb::new(Size::new(900, 4), vec![9; 900 * 4 * 3]).unwrap();
        let shown = [picture("wide"), ribbon, picture("tiny"), picture("big")];
        let jobs: Vec<_> =
            shown.iter().map(|one| Job { frame: full_frame(&ledger, one).0, queries: queries.clone() }).collect();
        let before = [together.effort(), alone.effort()];
        let got = together.ground(&batch(jobs.clone())).unwrap();
        let expected: Vec<_> = jobs.into_iter().map(|job| alone.ground(&batch(vec![job])).unwrap().remove(0)).collect();
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            assert_eq!(got.status, expected.status, "{family}");
            let boxes = |answer: &Answer| answer.matches.iter().map(|m| m.bbox.corners()).collect::<Vec<_>>();
            assert_eq!(boxes(got), boxes(expected), "{family}");
        }
        let refused = got[1].iter().filter(|answer| answer.status != Status::Ok).count();
        assert_eq!(refused, if family.starts_with("qwen") { 2 } else { 0 }, "{family}");
        assert!(got[0].iter().chain(&got[2]).chain(&got[3]).all(|answer| answer.status == Status::Ok), "{family}");
        let took = [together.effort().since(before[0]), alone.effort().since(before[1])];
        println!("{family}: {took:?}");
        assert_eq!(took[0].tokens, took[1].tokens, "{family}");
        assert!(took[0].passes.unwrap() * 2 < took[1].passes.unwrap(), "{family}: {took:?}");
    }
}

#[test]
fn answers_may_be_of_any_length_and_end_at_any_time() {
    for family in FAMILIES {
        let (mut model, runs, _folder) = watched(family, "", Vice::None);
        drop(runs);
        let shown = if family.starts_with("qwen") { ["tiny", "wide", "ties"] } else { ["wide", "big", "ties"] };
        let mut talks: Vec<Talk> = Vec::new();
        for (name, text) in shown.iter().zip(TEXTS) {
            let looked = model.look(&[picture(name)]);
            talks.push(model.begin(&looked, text, 1));
        }
        // One has gone on before it joins the others; with an encoder all must stand at one place.
        if family != "florence-2" {
            model.say(&mut talks[2], 5);
            model.say(&mut talks[2], 6);
        }
        let mut alone = talks.clone();
        let mut joined = model.join(talks);
        let mut rows = vec![0, 1, 2];
        let mut most: f32 = 0.0;
        for step in 0..24_u32 {
            // The longest leaves first in one half of the cases, the shortest in the other.
            match step {
                8 => {
                    let left = if family.contains("qwen2") { vec![0, 2] } else { vec![2, 0] };
                    rows = left.iter().map(|row| rows[*row]).collect();
                    model.pick(&mut joined, &left);
                }
                16 => {
                    rows = vec![rows[1]];
                    model.pick(&mut joined, &[1]);
                }
                _ => {}
            }
            let said: Vec<u32> = rows.iter().map(|row| 3 + step + u32::try_from(*row).unwrap() * 7).collect();
            model.say_all(&mut joined, &said);
            for (row, at) in rows.iter().enumerate() {
                model.say(&mut alone[*at], said[row]);
                let (got, expected) = (joined.next(row), alone[*at].next(0));
                most = most.max(worst(got, expected));
                assert_eq!(best(got).unwrap().0, best(expected).unwrap().0, "{family} {step}");
            }
        }
        println!("{family}: {most}");
        assert!(most < ALLOWED, "{family}: {most}");
    }
}

#[test]
fn half_precision_goes_side_by_side_too() {
    let dir = half();
    let runs = Runs::default();
    let wrap = |_: &Path, engine| -> Box<dyn Engine> { Box::new(Watched::new(engine, Vice::None, &runs)) };
    let mut model = Model::warmed(dir.path(), wrap);
    taken(&runs);
    model.ask_all(&pictures()[..2], &TEXTS[..2]);
    assert!(of(&taken(&runs), "decoder_model_merged_fp16").any(|run| run.rows == 4));
}

#[test]
fn what_graphs_only_say_they_can_is_not_asked_of_them() {
    for family in FAMILIES {
        let (mut honest, _, _folder) = watched(family, "", Vice::None);
        for vice in
            [Vice::Maskless, Vice::OneRow, Vice::WholePrompts, Vice::MixesPictures, Vice::Tight, Vice::Forgetful]
        {
            if (vice == Vice::WholePrompts && !family.starts_with("qwen"))
                || (vice == Vice::Forgetful && family != "florence-2")
            {
                continue;
            }
            let (mut model, runs, _folder) = watched(family, "", vice);
            let texts = ["person", "dog", "a person in a red jacket"];
            // The same numbers as an honest graph's: a mask that says nothing is not missed where nothing is filled up.
            let got = model.ask_all(&pictures(), &texts);
            same_boxes(&got, &honest.ask_all(&pictures(), &texts));
            let watching = runs;
            let runs = taken(&watching);
            let rows = of(&runs, "decoder_model_merged").map(|run| run.rows).max().unwrap();
            let looks = of(&runs, "vision_encoder").count();
            match vice {
                Vice::OneRow => assert_eq!(rows, 1, "{family}"),
                Vice::Tight => {
                    assert_eq!(rows, 2, "{family}");
                    assert_eq!(of(&runs, "refused").count(), 2, "{family}: eight, four, and no more than two");
                    model.ask_all(&pictures(), &texts);
                    assert_eq!(of(&taken(&watching), "refused").count(), 0, "{family}: never again");
                }
                Vice::MixesPictures => assert_eq!(looks, pictures().len(), "{family}"),
                _ => assert!(looks < pictures().len(), "{family}"),
            }
            if family == "florence-2" {
                let slim = of(&runs, "decoder_model_merged").filter(|run| run.past > 0).all(|run| run.states == 1);
                assert_eq!(slim, vice != Vice::Forgetful, "{vice:?}");
            }
            if vice == Vice::WholePrompts {
                assert!(rows > 1 && of(&runs, "decoder_model_merged").all(|run| run.length == 1 || run.past == 0));
            }
            if vice == Vice::Maskless {
                let most = if family == "florence-2" || family == "paligemma" { pictures().len() } else { 1 };
                assert!(rows >= most, "{family}: {rows}");
            }
        }
    }
}

/// What is done to a decoder, and how many rows it had at most.
#[derive(Default, Clone)]
struct Spoiling {
    /// Whether the second of several rows is no number the next time.
    next: Arc<AtomicBool>,
    rows: Arc<AtomicUsize>,
}

/// A decoder that may be spoilt.
struct Spoilt(Local, Spoiling);

impl Engine for Spoilt {
    fn inputs(&self) -> &[Port] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.0.outputs()
    }

    fn file(&self) -> &Path {
        self.0.file()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        self.0.run(inputs)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        let mut outputs = self.0.run_keeping(inputs, keep)?;
        let mut logits = outputs.host.take("logits").unwrap();
        let (rows, each) = (logits.shape[0], logits.shape[1] * logits.shape[2]);
        self.1.rows.fetch_max(rows, Relaxed);
        if let Data::F32(values) = &mut logits.data
            && rows > 1
            && self.1.next.swap(false, Relaxed)
        {
            values[each..each * 2].fill(f32::NAN);
        }
        outputs.host = Outputs::new(vec![("logits".into(), logits)]);
        Ok(outputs)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.0.blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.0.arrange(parts)
    }
}

/// Looks at all pictures and asks every text about each.
fn each<W: Writer>(model: &mut W) -> Vec<Located> {
    let pictures = pictures();
    let looked = model.look(&pictures.iter().collect::<Vec<_>>()).unwrap();
    let seen: Vec<_> = looked.into_iter().map(Result::unwrap).collect();
    let asks: Vec<_> = seen.iter().flat_map(|seen| TEXTS.iter().map(move |text| (seen, *text))).collect();
    model.locate_each(&asks).unwrap()
}

#[test]
fn an_answer_that_is_no_number_is_lost_alone() {
    for family in FAMILIES {
        let dir = copy_of(family);
        edit_manifest(dir.path(), "[limits]", "[limits]\nanswer_tokens = 40");
        let spoiling = Spoiling::default();
        let wrap = |file: &Path, engine: Local| -> Box<dyn Engine> {
            if file.ends_with("decoder_model_merged.onnx") {
                Box::new(Spoilt(engine, spoiling.clone()))
            } else {
                Box::new(engine)
            }
        };
        let mut model = Model::warmed(dir.path(), wrap);
        let mut ask = |spoilt: bool| {
            spoiling.next.store(spoilt, Relaxed);
            spoiling.rows.store(0, Relaxed);
            let told = match &mut model {
                Model::Qwen(model) => each(model.as_mut()),
                Model::Florence(model) => each(model.as_mut()),
                Model::PaliGemma(model) => each(model.as_mut()),
            };
            (told, spoiling.rows.load(Relaxed))
        };
        let (expected, most) = ask(false);
        let expected: Vec<_> = expected.into_iter().map(Result::unwrap).collect();
        let (told, _) = ask(true);
        let lost: Vec<_> = told.iter().filter_map(|one| one.as_ref().err()).collect();
        assert_eq!(lost.len(), 1, "{family}: {lost:?}");
        assert!(lost[0].to_string().contains("its `logits` are not numbers"), "{family}: {lost:?}");
        for (one, expected) in told.iter().zip(&expected) {
            if let Ok(boxes) = one {
                same_boxes(std::slice::from_ref(boxes), std::slice::from_ref(expected));
            }
        }
        // It is nobody else's, and no reason to do less at once.
        let (again, rows) = ask(false);
        assert!(again.iter().all(Result::is_ok) && rows == most && most > 1, "{family}: {rows} rows, {most} before");
    }
}

#[test]
fn a_picture_is_read_once_for_all_questions_where_it_stands_before_them() {
    for family in ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"] {
        let (mut model, runs, _folder) = watched(family, "", Vice::None);
        let prompts = |runs: &[Run]| -> Vec<(usize, usize)> {
            of(runs, "decoder_model_merged").filter(|run| run.length > 1).map(|run| (run.past, run.length)).collect()
        };
        let looked = model.look(&pictures()[..1]);
        let lengths: Vec<_> = TEXTS.iter().map(|text| model.prompt(&looked, &model.asked(text)).len()).collect();
        taken(&runs);
        model.ask_all(&pictures()[..1], &TEXTS);
        let fed = prompts(&taken(&runs));
        // What every prompt begins with was kept when it was warmed up; then the picture, then the questions.
        let (opening, picture) = fed[0];
        assert!(opening > 0 && picture > 4, "{family}: {fed:?}");
        let expected: Vec<_> = lengths.iter().map(|length| (opening + picture, length - opening - picture)).collect();
        assert_eq!(fed[1..], expected, "{family}");
        // A search asks several things about one view.
        let Model::Qwen(qwen) = &mut model else { panic!("not a Qwen") };
        let Looked::Qwen(seen) = &looked else { panic!("not a Qwen's") };
        let parts = |words: &str| [Said::Words("This:".to_owned()), Said::Picture, Said::Words(words.to_owned())];
        for words in ["Is there a van?", "Is it possible?"] {
            qwen.sure(&[&seen[0]], &parts(words)).unwrap();
        }
        let fed = prompts(&taken(&runs));
        assert!(fed.len() == 4 && fed[3].0 == fed[1].0 + fed[1].1, "{family}: {fed:?}");
        // The next picture of the same size is another picture.
        let (again, other) = (model.look(&pictures()[..1]), model.look(&pictures()[1..2]));
        let of_other = model.begin(&other, "Is it?", 1);
        let (first, second) = (model.begin(&looked, "Is it?", 1), model.begin(&again, "Is it?", 1));
        assert_eq!(first.logits(), second.logits());
        assert_ne!(first.logits(), of_other.logits());
    }
}
